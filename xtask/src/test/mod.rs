//! `cargo xtask test`: lints, unit tests, scenarios here and in guests.
//!
//! The last line is `N passed, N failed`, over all parts. Choosing a place or a name leaves
//! the lints and the unit tests out: that is for the work on one scenario.

mod cost;
mod count;
mod install;

use std::{
    fmt::Write as _,
    panic::resume_unwind,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    cmd::step,
    lint,
    setup::{self, Purpose},
    test::count::{Count, follow},
    tree::Tree,
    vm::{
        self,
        initramfs::Contents,
        qemu::{self, Machine},
    },
};

/// The oldest kernel that is promised, and the newest there is.
const MATRIX: [&str; 2] = ["6.1", "newest"];
/// What `--vm all` means.
pub(crate) const ALL: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "newest"];
const GUEST_TIMEOUT: Duration = Duration::from_mins(75);
/// A scenario mostly waits for one emulated CPU: two guests fill the two that CI has.
pub(crate) const AT_ONCE: usize = 2;
/// What compiled the kernel half, for the scenario that knows what its verifier takes.
const COMPILER: &str = "PADDOCK_EBPF_COMPILER";
/// Where scenarios put what they saw, for a person to look at.
const PICTURES: &str = "PADDOCK_PICTURES";
/// What a client of registries wants to find, also where it speaks plain HTTP.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Witnesses and peers of scenarios, put into the guests.
const TOOLS: [&str; 7] = [
    "apparmor_parser",
    "runc",
    "strace",
    "zstd",
    "/usr/lib/cni/bridge",
    "/usr/lib/cni/host-local",
    "/usr/lib/cni/portmap",
];

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Only scenarios on this machine's kernel
    #[arg(long)]
    host: bool,
    /// Only scenarios in a guest with this kernel series (6.1, newest, …), or all five
    #[arg(long = "vm", value_name = "VERSION")]
    guests: Vec<String>,
    /// Only what hooks cost, in guests that count instructions
    #[arg(long, conflicts_with_all = ["host", "guests", "filter"])]
    cost: bool,
    /// Only the Debian package, in a guest with systemd
    #[arg(long, conflicts_with_all = ["host", "guests", "cost", "filter"])]
    install: bool,
    /// Only scenarios whose name contains this
    filter: Option<String>,
}

/// The exit code.
pub(crate) fn main(tree: &Tree, args: &Args) -> Result<i32> {
    if !setup::is_root() {
        bail!("needs root, since containers do: sudo -E cargo xtask test");
    }
    let start = Instant::now();
    let places = !args.host && args.guests.is_empty() && !args.cost && !args.install;
    let everything = places && args.filter.is_none();
    let toolchain = setup::prepare(tree, Purpose::Test)?;
    let is_new = everything && !tree.ebpf_object().exists();
    let mut beside = is_new
        .then(|| build::beside_kernel_half(tree))
        .transpose()?;
    build::kernel_half(tree, &toolchain)?;
    if let Some(child) = &mut beside {
        child.wait().context("wait for cargo")?;
    }
    let compiler = toolchain.version()?;
    let mut parts = Vec::new();
    if everything {
        lint::all(tree, &toolchain)?;
        step("unit tests");
        let mut command = build::cargo(tree, "test");
        command.args(["--tests", "--no-fail-fast"]);
        parts.push(("unit tests".to_owned(), follow(&mut command)?));
    }
    build::binaries(tree)?;
    let chosen = series(&args.guests, places.then_some(&MATRIX));
    let mut guests: Vec<Part> = Vec::new();
    for (place, series) in chosen.iter().enumerate() {
        // What asks nothing of the kernel half runs here: each guest takes its share.
        let share = everything.then(|| (place + 1, chosen.len()));
        let compiler = &compiler;
        guests.push((
            format!("Linux {series}"),
            Box::new(move || guest(tree, series, args.filter.as_deref(), share, compiler)),
        ));
    }
    if everything || args.install {
        guests.extend(install::MATRIX.map(|(suite, series)| -> Part {
            let run = move || install::run(tree, suite, series);
            (format!("Debian {suite}"), Box::new(run))
        }));
    }
    if everything || args.cost {
        guests.extend(MATRIX.map(|series| -> Part {
            let run = move || cost::compare(tree, series);
            (format!("Linux {series}, cost"), Box::new(run))
        }));
    }
    // A guest leaves to others what they want of a processor, and scenarios mostly wait.
    parts.extend(thread::scope(|scope| {
        let guests = scope.spawn(|| lanes(guests));
        let mut ran = Vec::new();
        if places || args.host {
            step("scenarios on this machine");
            let here = or_failed(host(tree, args, &compiler));
            println!("this machine: {here}");
            ran.push(("this machine".to_owned(), here));
        }
        ran.extend(guests.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ran
    }));
    println!("\nafter {} s:", start.elapsed().as_secs());
    let mut sum = Count::default();
    for (name, count) in parts {
        for failure in &count.failures {
            println!("{name}: failed: {failure}");
        }
        println!("{name}: {count}");
        sum += count;
    }
    println!("{sum}");
    Ok(i32::from(sum.failed > 0 || sum.passed == 0))
}

/// Those named, `all` being all five; `more` besides.
pub(crate) fn series(named: &[String], more: Option<&[&str]>) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::new();
    for one in named {
        if one == "all" {
            chosen.extend(ALL.map(str::to_owned));
        } else {
            chosen.push(one.clone());
        }
    }
    chosen.extend(more.into_iter().flatten().map(|&one| one.to_owned()));
    chosen
}

fn host(tree: &Tree, args: &Args, compiler: &str) -> Result<Count> {
    let mut command = Command::new(tree.binary("paddock-scenarios"));
    command
        .args(&args.filter)
        .env("PADDOCK_BIN", tree.binary("paddock"))
        .env("PADDOCK_WORKLOAD", tree.binary("paddock-workload"))
        .env(COMPILER, compiler)
        .env(PICTURES, tree.target.join("pictures"))
        .env("PATH", setup::path_with_extracted(tree)?);
    follow(&mut command)
}

/// What runs in a guest, by its name in the sum.
type Part<'run> = (String, Box<dyn Fn() -> Result<Count> + Send + 'run>);

/// Runs all, [`AT_ONCE`] side by side, in their order.
fn lanes(parts: Vec<Part<'_>>) -> Vec<(String, Count)> {
    let left = Mutex::new(parts.into_iter().enumerate());
    let ran = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((place, (name, run))) = next else {
                        break;
                    };
                    step(&name);
                    let count = or_failed(run());
                    println!("{name}: {count}");
                    ran.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((place, (name, count)));
                }
            });
        }
    });
    let mut ran = ran.into_inner().unwrap_or_else(PoisonError::into_inner);
    ran.sort_by_key(|(place, _)| *place);
    ran.into_iter().map(|(_, part)| part).collect()
}

/// What could not be run at all counts as one failure.
fn or_failed(ran: Result<Count>) -> Count {
    ran.unwrap_or_else(|error| {
        println!("{error:#}");
        Count::FAILED
    })
}

fn guest(
    tree: &Tree,
    series: &str,
    filter: Option<&str>,
    share: Option<(usize, usize)>,
    compiler: &str,
) -> Result<Count> {
    let mut script = format!(
        "export PADDOCK_BIN=/usr/bin/paddock\n\
         export PADDOCK_WORKLOAD=/usr/bin/paddock-workload\n\
         export {COMPILER}={}\n\
         exec paddock-scenarios",
        vm::quoted(compiler)
    );
    if let Some((which, of)) = share {
        let _ = write!(script, " --share {which}/{of}");
    } else if let Some(filter) = filter {
        script.push(' ');
        script.push_str(&vm::quoted(filter));
    }
    let contents = Contents {
        command: Some(script + "\n"),
        files: vec![(CERTIFICATES.into(), CERTIFICATES.to_owned())],
        tools: TOOLS.map(str::to_owned).to_vec(),
        ..Contents::default()
    };
    let machine = Machine {
        timeout: GUEST_TIMEOUT,
        memory_mib: 2048,
        deterministic: false,
        interactive: false,
        quiet: false,
        label: format!("[{series}] "),
    };
    let ended = vm::boot(tree, series, &contents, &machine)?;
    let mut count = Count::of(&ended.output);
    match ended.code {
        Some(0) => {}
        Some(_) => show_log(&ended.log),
        None => {
            println!("{}", ended.problem.unwrap_or_default());
            show_log(&ended.log);
        }
    }
    count.failed += u64::from(ended.code != Some(0) && count.failed == 0);
    Ok(count)
}

fn show_log(log: &Path) {
    println!(
        "--- end of the guest's kernel log ({}) ---\n{}\n---",
        log.display(),
        qemu::log_tail(log)
    );
}
