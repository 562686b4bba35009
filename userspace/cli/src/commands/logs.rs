//! `paddock logs`: what a container wrote, each stream to its own.
//!
//! All that is kept comes from the agent, what comes on from the monitor, so that a follower
//! sees each line once whatever is rotated meanwhile, and goes on when the agent dies.

use std::{
    collections::VecDeque,
    io::{Write as _, stdout},
    os::fd::AsFd as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use paddock_agent::api::{ContainerDetail, LogLine, Origin, State};
use paddock_runtime::{
    client::Connection,
    protocol::{Packet, Request},
};

use super::{Context, attach::monitor};
use crate::{client::container_path, output::print, times};

/// Show a container's output
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock logs -n 20 -f web\n  \
    paddock logs -t --since 10m --until 2026-01-02T15:04:05Z web")]
pub(crate) struct Logs {
    /// Go on with what it writes, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only the last lines, or 'all'
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", value_parser = tail, hide_default_value = true)]
    tail: Tail,
    /// Not what is older: a time, seconds since 1970, or a time ago such as 10m
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    since: Option<u64>,
    /// Not what is newer; with --follow, it ends then
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    until: Option<u64>,
    #[arg(value_name = "NAME")]
    name: String,
}

/// Lines; `None` is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail(Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        number => number
            .parse()
            .map(|number| Tail(Some(number)))
            .map_err(|_| "expected a number of lines, or 'all'".to_owned()),
    }
}

impl Logs {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client()?;
        let mut shown = Shown::new(self);
        if self.follow {
            let detail: ContainerDetail = client.get(&container_path(&self.name, ""))?;
            let launched = detail.summary.origin == Origin::Launched;
            let path = monitor(context, &detail);
            // One that ended since then, or rests before its next run, has none. One that ends
            // now takes the connection and no request: what it wrote is asked of the agent.
            if launched
                && detail.summary.state == State::Running
                && let Ok(connection) = Connection::connect(&path)
                && self.follow(&detail.summary.name, &connection, &mut shown)? == Followed::Served
            {
                return Ok(0);
            }
        }
        client.lines(&container_path(&self.name, "/logs"), |line| {
            shown.line(line).map(drop)
        })?;
        shown.caught_up()?;
        Ok(0)
    }

    fn follow(
        &self,
        name: &str,
        connection: &Connection,
        shown: &mut Shown,
    ) -> anyhow::Result<Followed> {
        let mask: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        mask.thread_block().context("cannot take signals")?;
        let signals =
            SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC).context("cannot take signals")?;
        if connection.send(Request::Follow, &[]).is_err() {
            return Ok(Followed::Refused);
        }
        let mut partial = Vec::new();
        let (mut caught_up, mut ended) = (false, false);
        let mut followed = Followed::Refused;
        while !ended {
            let stdout = stdout();
            let mut fds = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(connection.as_fd(), PollFlags::POLLIN),
                // Tells of a reader that left.
                PollFd::new(stdout.as_fd(), PollFlags::empty()),
            ];
            // What was logged by then is shown, also where asking for it took longer.
            let patience = if caught_up {
                self.patience()
            } else {
                PollTimeout::NONE
            };
            match poll(&mut fds, patience) {
                Ok(0) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for the log"),
            }
            let [signal, log, reader] =
                fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
            if signal || reader {
                return Ok(Followed::Served);
            }
            if !log {
                continue;
            }
            match connection
                .recv()
                .with_context(|| format!("{name}: its monitor"))?
            {
                Some(Packet::Logged(part)) if part.is_empty() => {
                    followed = Followed::Served;
                    caught_up = true;
                    shown.caught_up()?;
                }
                Some(Packet::Logged(part)) => {
                    followed = Followed::Served;
                    partial.extend(part);
                    let whole = partial.iter().rposition(|byte| *byte == b'\n');
                    let rest = partial.split_off(whole.map_or(0, |end| end + 1));
                    for line in std::mem::replace(&mut partial, rest).split(|byte| *byte == b'\n') {
                        ended |= shown.line(&String::from_utf8_lossy(line))? == Wanted::NoMore;
                    }
                }
                Some(Packet::Exited(_) | Packet::Failed(_)) | None => ended = true,
                Some(_) => {}
            }
        }
        if followed == Followed::Served {
            shown.caught_up()?;
        }
        Ok(followed)
    }

    /// Until `--until`.
    fn patience(&self) -> PollTimeout {
        let Some(until) = self.until else {
            return PollTimeout::NONE;
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let left = Duration::from_nanos(until).saturating_sub(now);
        // Rounded up, so that the moment has come when poll returns; the longest wait is cut.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }
}

/// Whether a monitor told of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followed {
    Served,
    Refused,
}

/// What a line's time says of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    More,
    NoMore,
}

/// Lines on their way to stdout and stderr.
#[derive(Debug)]
struct Shown {
    since: u64,
    until: u64,
    timestamps: bool,
    /// Held back until all that was logged is known.
    last: Option<VecDeque<LogLine>>,
    most: usize,
    /// Of stdout and stderr: the last one had no line feed.
    unended: [bool; 2],
}

impl Shown {
    fn new(logs: &Logs) -> Self {
        Self {
            since: logs.since.unwrap_or(0),
            until: logs.until.unwrap_or(u64::MAX),
            timestamps: logs.timestamps,
            last: logs.tail.0.map(|_| VecDeque::new()),
            most: logs.tail.0.unwrap_or(usize::MAX),
            unended: [false; 2],
        }
    }

    fn line(&mut self, json: &str) -> anyhow::Result<Wanted> {
        // A line that is none is not paddock's.
        let Ok(line) = serde_json::from_str::<LogLine>(json) else {
            return Ok(Wanted::More);
        };
        if line.time_ns > self.until {
            return Ok(Wanted::NoMore);
        }
        if line.time_ns < self.since {
            return Ok(Wanted::More);
        }
        let Some(last) = &mut self.last else {
            return self.show(&line).map(|()| Wanted::More);
        };
        last.push_back(line);
        if last.len() > self.most {
            last.pop_front();
        }
        Ok(Wanted::More)
    }

    /// That was all so far.
    fn caught_up(&mut self) -> anyhow::Result<()> {
        for line in self.last.take().into_iter().flatten() {
            self.show(&line)?;
        }
        Ok(())
    }

    fn show(&mut self, line: &LogLine) -> anyhow::Result<()> {
        let is_error = line.stream == "stderr";
        let unended = &mut self.unended[usize::from(is_error)];
        let begins = !std::mem::replace(unended, !line.text.ends_with('\n'));
        let mut text = String::new();
        if self.timestamps && begins {
            let time = UNIX_EPOCH + Duration::from_nanos(line.time_ns);
            text = format!("{} ", humantime::format_rfc3339_nanos(time));
        }
        text.push_str(&line.text);
        if is_error {
            std::io::stderr().write_all(text.as_bytes())?;
        } else {
            print(&text)?;
        }
        Ok(())
    }
}
