//! The terminal as `top` has it: raw, its other screen, no cursor; as it was on every way out.
//!
//! Signals that end a process are waited for by a thread, so that ending by one is an ordinary
//! way out; a panic puts the terminal back before it says what it is. A terminal that takes
//! nothing any more (a hung connection) ends `top` all the same, a while after the signal.

use std::{
    io::{Stdout, Write as _, stdout},
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal, raise};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor, event, execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use super::Message;

/// For the ordinary way out, from a signal on.
const GRACE: Duration = Duration::from_secs(2);

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub(super) fn enter() -> std::io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        take()?;
        // From here on whatever fails gives it back.
        let terminal =
            Terminal::new(CrosstermBackend::new(stdout())).inspect_err(|_| give_back())?;
        Ok(Self { terminal })
    }

    /// Stops as Ctrl-Z stops others, and goes on with a fresh screen.
    pub(super) fn suspend(&mut self) -> std::io::Result<()> {
        give_back();
        raise(Signal::SIGTSTP)?;
        take()?;
        // One that believes nothing of what was drawn. Clearing asks where the cursor is, and the
        // answer comes as keys, which the thread of keys takes.
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> std::io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, cursor::Hide).inspect_err(|_| give_back())
}

/// A terminal that is gone needs nothing.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = stdout().flush();
}

/// From now on keys, resizes and signals come as messages. Before any other thread is made: what
/// is blocked here is blocked in all of them.
pub(super) fn listen(to: &Sender<Message>) -> nix::Result<()> {
    let signals: SigSet = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ]
    .into_iter()
    .collect();
    signals.thread_block()?;
    let ended = to.clone();
    thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        let _ = ended.send(Message::Signal(signal));
        thread::sleep(GRACE);
        let _ = disable_raw_mode();
        let _ = signals.thread_unblock();
        let _ = raise(signal);
    });
    let typed = to.clone();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if typed.send(Message::Typed(event)).is_err() {
                return;
            }
        }
        let _ = typed.send(Message::Broken("the keyboard"));
    });
    Ok(())
}
