//! What happens to the workload: start, stdin, signals, its end and what is recorded of it.
//!
//! The end, in order: reap, kill what is left in the cgroup, drain the pipes (complete, since
//! nobody can write any more), read the cgroup's last values, remove it, write `exit.json`,
//! take the socket away, tell the clients: who is told can start the next run in the same
//! directory. An exec's end kills nothing and leaves the cgroup alone.
#![forbid(unsafe_code)]

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, connect, socket},
        wait::WaitStatus,
    },
};

use super::{
    event_loop::{Monitor, State, packet},
    identity::now_ns,
    io::STDIN_LIMIT,
    launch::{Progress, launch, wait},
    log::Stream,
    questions::Questions,
};
use crate::{
    client::address_of,
    disk::write_record,
    network,
    plan::Failure,
    protocol::Reply,
    record::{Exit, Started},
    spec::Target,
    sys::clone::pidfd_send_signal,
};

/// What a shell says of a process that ended by a signal.
const SIGNAL_BASE: i32 = 128;

impl Monitor {
    pub(super) fn is_exec(&self) -> bool {
        matches!(self.spec.target, Target::Exec(_))
    }

    /// A second start, or one after the end, changes nothing.
    pub(super) fn start(&mut self) {
        let State::Waiting { .. } = self.state else {
            return;
        };
        match launch(&self.spec, &self.cgroup, self.window) {
            Ok(mut workload) => {
                workload.io.feed(&std::mem::take(&mut self.early));
                if self.early_eof {
                    workload.io.finish();
                }
                self.state = State::Running(Box::new(workload));
            }
            Err(failure) => self.fail(&failure),
        }
    }

    /// `true`: there is no room for more.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        match &mut self.state {
            State::Running(workload) => workload.io.feed(bytes),
            State::Waiting { .. } if self.spec.process.stdin && !self.early_eof => {
                self.early.extend_from_slice(bytes);
            }
            State::Waiting { .. } | State::Over => {}
        }
        self.stdin_is_full()
    }

    pub(super) fn stdin_is_full(&self) -> bool {
        match &self.state {
            State::Running(workload) => workload.io.is_full(),
            State::Waiting { .. } => self.early.len() >= STDIN_LIMIT,
            State::Over => false,
        }
    }

    pub(super) fn end_stdin(&mut self) {
        match &mut self.state {
            State::Running(workload) => workload.io.finish(),
            State::Waiting { .. } => self.early_eof = true,
            State::Over => {}
        }
    }

    pub(super) fn resize(&mut self, rows: u16, columns: u16) {
        self.window = Some((rows, columns));
        if let State::Running(workload) = &self.state {
            workload.io.resize(rows, columns);
        }
    }

    pub(super) fn signal(&self, signal: i32) {
        if let State::Running(workload) = &self.state
            && let Err(errno) = pidfd_send_signal(workload.process.pidfd.as_fd(), signal)
            && errno != Errno::ESRCH
        {
            eprintln!("paddock-monitor: signal {signal}: {errno}");
        }
    }

    pub(super) fn kill(&self) {
        if let State::Running(_) = &self.state {
            self.signal(libc::SIGKILL);
            if !self.is_exec()
                && let Err(error) = self.cgroup.kill()
            {
                report("kill", &error);
            }
        }
    }

    /// SIGTERM: end what runs, or what never ran.
    pub(super) fn terminate(&mut self) {
        match self.state {
            State::Running(_) => self.kill(),
            State::Waiting { .. } => {
                self.fail(&Failure::without_path("monitor terminated", Errno::EINTR));
            }
            State::Over => self.questions = None,
        }
    }

    /// The child has told something on its way to exec.
    pub(super) fn follow_status(&mut self) {
        let State::Running(workload) = &mut self.state else {
            return;
        };
        match workload.progress() {
            Progress::Pending => {}
            Progress::Asks(listener) => {
                let asking = self.spec.asking.as_ref();
                self.questions = asking.map(|one| Questions::new(listener, &one.program));
            }
            Progress::Executed => {
                let started = Started {
                    pid: workload.process.pid,
                    start_time: workload.start_time,
                    monitor_pid: i32::try_from(std::process::id()).unwrap_or_default(),
                    started_at_ns: now_ns(),
                    steps: workload.take_steps(),
                };
                self.record("started.json", &started);
                self.tell(&packet(Reply::Started, &started));
                self.started = Some(started);
            }
            Progress::Failed(failure) => {
                // It has ended or does so now: it waits for nothing.
                while wait(&workload.process) == Err(Errno::EINTR) {}
                self.fail(&failure);
            }
        }
    }

    /// Nothing of the workload stays, and clients hear why.
    pub(super) fn fail(&mut self, failure: &Failure) {
        self.clean();
        let failed = failure.record();
        self.record("failed.json", &failed);
        self.end(packet(Reply::Failed, &failed));
    }

    /// The first process has ended.
    pub(super) fn finish(&mut self) {
        self.follow_status();
        let State::Running(workload) = &mut self.state else {
            return;
        };
        let status = match wait(&workload.process) {
            Ok(status) => status,
            Err(Errno::EINTR) => return,
            Err(errno) => {
                eprintln!("paddock-monitor: wait: {errno}");
                WaitStatus::Exited(
                    nix::unistd::Pid::from_raw(workload.process.pid),
                    SIGNAL_BASE - 1,
                )
            }
        };
        // Mostly its pid namespace has taken all with it.
        if !self.is_exec()
            && !self.cgroup.seems_empty()
            && let Err(error) = self.cgroup.kill()
        {
            report("kill", &error);
        }
        for stream in Stream::BOTH {
            while self.relay(stream) {}
        }
        self.log.flush();
        let last = self.cgroup.stats().unwrap_or_default();
        self.leave_nothing();
        let (exit_code, signal) = exit_code(status);
        let exit = Exit {
            exit_code,
            signal,
            finished_at_ns: now_ns(),
            stats: Box::new(last),
        };
        self.record("exit.json", &exit);
        self.end(packet(Reply::Exited, &exit));
    }

    fn end(&mut self, last: Vec<u8>) {
        self.leave();
        for client in &mut self.clients {
            client.finish(last.clone());
        }
        self.last = Some(last);
        self.state = State::Over;
    }

    /// Removes the container's cgroup, killing what may be in it, and all else of this run.
    pub(super) fn clean(&self) {
        if !self.is_exec()
            && let Err(error) = self.cgroup.kill()
        {
            report("kill", &error);
        }
        self.leave_nothing();
    }

    /// Its processes are gone: takes it off its networks and removes its cgroup.
    fn leave_nothing(&self) {
        if self.is_exec() {
            return;
        }
        if let Err(error) = network::leave(&self.spec.dir) {
            report("leave networks", &error);
        }
        // The agent makes the parents for the next one too, and removes them when it ends;
        // it stops listening before that, so either it or this finds them empty.
        let alone = self.cgroup.remove_alone().or_else(|_| {
            // Somebody is in one hierarchy and not in the one that was looked at.
            self.cgroup.kill()?;
            self.cgroup.remove_alone()
        });
        let removed = if self.agent_listens() {
            alone
        } else {
            let removed = alone.and_then(|()| self.cgroup.remove());
            self.cgroup.hand_back();
            removed
        };
        if let Err(error) = removed {
            report("remove", &error);
        }
    }

    /// Without waiting: an agent that is stopped takes no connection.
    fn agent_listens(&self) -> bool {
        let Some(state) = self.spec.dir.parent().and_then(Path::parent) else {
            return false;
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let Ok((_directory, address)) = address_of(&state.join("paddock.sock")) else {
            return false;
        };
        socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .and_then(|socket| connect(socket.as_raw_fd(), &address))
            .map_or_else(|errno| errno == Errno::EAGAIN, |()| true)
    }

    fn record(&self, name: &str, value: &impl serde::Serialize) {
        if let Err(error) = write_record(&self.spec.dir, name, value) {
            eprintln!("paddock-monitor: write {name}: {error}");
        }
    }
}

fn report(op: &str, error: &dyn std::error::Error) {
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    eprintln!("paddock-monitor: {op}: {error}: {source}");
}

fn exit_code(status: WaitStatus) -> (i32, Option<i32>) {
    match status {
        WaitStatus::Exited(_, code) => (code, None),
        WaitStatus::Signaled(_, signal, _) => (SIGNAL_BASE + signal as i32, Some(signal as i32)),
        // waitid with WEXITED alone reports nothing else.
        _ => (SIGNAL_BASE - 1, None),
    }
}

#[cfg(test)]
mod tests {
    use nix::{sys::signal::Signal, unistd::Pid};

    use super::*;

    #[test]
    fn a_signal_is_128_more() {
        let pid = Pid::from_raw(1);
        assert_eq!(exit_code(WaitStatus::Exited(pid, 7)), (7, None));
        assert_eq!(
            exit_code(WaitStatus::Signaled(pid, Signal::SIGKILL, false)),
            (137, Some(9))
        );
    }
}
