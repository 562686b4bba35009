//! `paddock oci`, and `paddock-oci`: an OCI runtime on paddock's launcher.
//!
//! Single-threaded and gone when its call is over; a container's state is a directory. It
//! speaks runtime-spec 1.2, through runc's command line and exit codes. cgroups by their file
//! system, v1, hybrid and v2. What a bundle asks for and this can't do is refused with one line.
#![forbid(unsafe_code)]

mod args;
mod config;
mod console;
mod container;
mod error;
mod hooks;
mod id;
mod log;
mod translate;
mod verbs;

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    path::Path,
    process::ExitCode,
};

use clap::{Parser as _, error::ErrorKind};

use self::{
    args::{Args, CgroupManager, Command},
    error::Error,
    log::Log,
};

/// `argv[0]` under which the whole binary is this runtime.
pub const NAME: &str = "paddock-oci";

/// What every failure of its own ends with, as runc's do.
const FAILURE: u8 = 1;

/// The binary was called by this runtime's name.
pub fn is_called_by(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name() == Some(OsStr::new(NAME))
}

/// The whole program; `args` are without the program's own name.
pub fn main(args: &[OsString]) -> ExitCode {
    let words = std::iter::once(OsStr::new(NAME)).chain(args.iter().map(OsString::as_os_str));
    let parsed = match Args::try_parse_from(words) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    let log = match Log::open(parsed.log.as_deref(), parsed.log_format, parsed.debug) {
        Ok(log) => log,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{NAME}: {}", error.line());
            return ExitCode::from(FAILURE);
        }
    };
    log.debug(&format!("{:?}", parsed.command));
    match run(parsed, args, &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&error.line());
            ExitCode::from(FAILURE)
        }
    }
}

fn run(args: Args, words: &[OsString], log: &Log) -> Result<u8, Error> {
    if args.systemd_cgroup || args.cgroup_manager == CgroupManager::Systemd {
        return Err(Error::usage(
            "systemd's cgroup manager is not supported: leave --systemd-cgroup out (podman: --cgroup-manager=cgroupfs)",
        ));
    }
    if launches(&args.command) {
        verbs::create::check_preserved(&args.command)?;
        paddock_runtime::sealed::ensure(OsStr::new(NAME), words)
            .map_err(Error::io("copy executable", "/proc/self/exe"))?;
        // Else it would have the descriptor's number for a name.
        let _ = nix::sys::prctl::set_name(c"paddock-oci");
    }
    verbs::dispatch(args, log)
}

/// These become a container's process before they are its program.
fn launches(command: &Command) -> bool {
    matches!(
        command,
        Command::Create(_) | Command::Run(_) | Command::Exec(_)
    )
}

fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // A closed stdout is the reader's choice.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let what: Vec<&str> = text
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim)
        .collect();
    let what = what.join(" ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let what: String = what
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let _ = writeln!(
        std::io::stderr(),
        "{NAME}: {}; try '{NAME} --help'",
        config::shorten(&what)
    );
    ExitCode::from(FAILURE)
}
