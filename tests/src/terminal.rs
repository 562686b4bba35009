//! A person's terminal for a command: a pseudo terminal, its keys and what it shows.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZero,
    os::fd::OwnedFd,
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Result, ensure};
use nix::{
    fcntl::OFlag,
    pty::{Winsize, openpty},
    unistd::Pid,
};

use crate::context::{Context, eventually};

/// A command on a terminal of its own; killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: File,
    /// Its device, for `stty`.
    name: String,
    shown: Arc<Mutex<Vec<u8>>>,
}

#[derive(Debug)]
pub struct Screen {
    pub lines: Vec<String>,
    pub ordinary: bool,
}

impl Terminal {
    /// `paddock ARGS` as the leader of a session whose terminal it is.
    pub fn open(context: &Context, args: &[&str]) -> Result<Self> {
        Self::of(context, args, 80)
    }

    /// On one that is so wide.
    pub fn of(context: &Context, args: &[&str], columns: u16) -> Result<Self> {
        let mut paddock = context.command(args);
        paddock.env("PADDOCK_DATA_DIR", &context.data);
        Self::running(&paddock, columns)
    }

    /// Any program, with what its environment has beside this one's.
    pub fn running(program: &Command, columns: u16) -> Result<Self> {
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None)?;
        let name = nix::unistd::ttyname(&pty.slave)?.display().to_string();
        let slave = || pty.slave.try_clone();
        let (input, output, errors) = (slave()?, slave()?, slave()?);
        let set = program.get_envs();
        let child = Command::new("setsid")
            .arg("-c")
            .arg(program.get_program())
            .args(program.get_args())
            .envs(set.filter_map(|(name, value)| Some((name, value?))))
            .env("TERM", "xterm")
            .stdin(input)
            .stdout(output)
            .stderr(errors)
            .spawn()?;
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (screen, kept) = (read_end(&pty.master)?, Arc::clone(&shown));
        thread::spawn(move || copy(screen, &kept));
        Ok(Self {
            child,
            keys: File::from(pty.master),
            name,
            shown,
        })
    }

    pub fn type_keys(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.keys.write_all(keys)?)
    }

    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// What a person sees on one of that size: its lines, and whether it is the ordinary screen,
    /// with a cursor.
    pub fn screen(&self, rows: u16, columns: u16) -> Screen {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let least = |number| NonZero::new(number).unwrap_or(NonZero::<u16>::MIN);
        let mut parser = vt100::Parser::new(least(rows), least(columns), 0);
        parser.process(&shown);
        let screen = parser.screen();
        Screen {
            lines: screen.rows(0, columns).collect(),
            ordinary: !screen.alternate_screen() && !screen.hide_cursor(),
        }
    }

    /// Its settings, as `stty` writes them down.
    pub fn settings(&self) -> Result<String> {
        let output = Command::new("stty")
            .args(["-F", &self.name, "-g"])
            .output()?;
        ensure!(output.status.success(), "stty: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A hold on it, so that its settings outlive the command.
    pub fn hold(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::open(
            &*self.name,
            flags,
            nix::sys::stat::Mode::empty(),
        )?)
    }

    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    pub fn shows(&self, text: &str) -> Result<()> {
        eventually(text, || Ok(self.shown().contains(text)))
            .map_err(|error| error.context(format!("the terminal shows {:?}", self.shown())))
    }

    /// As dragging a window's corner does.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let status = Command::new("stty")
            .args(["-F", &self.name, "rows", &rows, "columns", &columns])
            .status()?;
        ensure!(status.success(), "stty: {status}");
        Ok(())
    }

    /// Its exit code, once it has ended.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        let mut code = None;
        let ended = eventually("the command ends", || {
            let status = self.child.try_wait()?;
            code = status.and_then(|status| status.code());
            Ok(status.is_some())
        });
        ended.map_err(|error| error.context(format!("the terminal shows {:?}", self.shown())))?;
        Ok(code)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only when it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_end(master: &OwnedFd) -> Result<File> {
    Ok(File::from(master.try_clone()?))
}

/// Ends with the last of those who write to it.
fn copy(mut screen: File, shown: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = screen.read(&mut buffer) {
        shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(&buffer[..length]);
    }
}
