//! The monitor's poll loop: who is ready, and what then.
//!
//! States: waiting for `Start`, running, over. Nothing blocks but the launch itself, the wait
//! for a killed cgroup to empty, and reads of procfs; so one slow client, a full stdin or a
//! silent workload never hold up the others.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signalfd::SignalFd,
        socket::{SockFlag, accept4},
    },
};
use paddock_cgroups::{Cgroup, Hierarchies};

use super::{
    Error, SOCKET,
    client::{Client, Received},
    identity::start_time,
    io::Output,
    launch::Workload,
    log::{Log, Stream},
    questions::Questions,
};
use crate::{
    protocol::{Reply, Request, decode_request, encode, parse_resize, parse_signal},
    record::Started,
    spec::{ExecSpec, LaunchSpec, Target},
    sys::{clone::pidfd_open, descriptor::received},
};

/// Nobody started it and nobody is connected: its agent died. Then it goes away, too.
const ABANDONED_AFTER: Duration = Duration::from_mins(1);

/// An exec whose container has ended can't be started any more. Who meant to start it still
/// hears so for some time; then the monitor goes, whoever is connected.
const TARGET_LATE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Monitor {
    pub(super) spec: LaunchSpec,
    pub(super) cgroup: Cgroup,
    pub(super) state: State,
    pub(super) clients: Vec<Client>,
    pub(super) log: Log,
    pub(super) started: Option<Started>,
    /// `Failed` or `Exited`, for who connects after.
    pub(super) last: Option<Vec<u8>>,
    pub(super) window: Option<(u16, u16)>,
    /// Stdin that came before the start.
    pub(super) early: Vec<u8>,
    pub(super) early_eof: bool,
    /// An exec's container's first process, while it is there.
    target: Option<OwnedFd>,
    target_gone: Option<Instant>,
    /// Until nobody lives under the filter that asks.
    pub(super) questions: Option<Questions>,
    listener: OwnedFd,
    termination: SignalFd,
    left: bool,
}

#[derive(Debug)]
pub(super) enum State {
    Waiting { alone_since: Option<Instant> },
    Running(Box<Workload>),
    Over,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy, Debug)]
enum Source {
    Listener,
    Termination,
    Client(usize),
    Status,
    Output(Stream),
    Input,
    Process,
    Target,
    Question,
}

impl Monitor {
    pub(super) fn new(
        spec: LaunchSpec,
        hierarchies: &Hierarchies,
        listener: OwnedFd,
        termination: SignalFd,
        log: Log,
    ) -> Result<Self, Error> {
        let path = match &spec.target {
            Target::Container(target) => &target.cgroup,
            Target::Exec(target) => &target.cgroup,
        };
        let cgroup = Cgroup::open(hierarchies, path)?;
        let (target, target_gone) = match &spec.target {
            Target::Container(_) => (None, None),
            Target::Exec(exec) => match open_target(exec) {
                Some(target) => (Some(target), None),
                None => (None, Some(Instant::now())),
            },
        };
        Ok(Self {
            spec,
            cgroup,
            state: State::Waiting {
                alone_since: Some(Instant::now()),
            },
            clients: Vec::new(),
            log,
            started: None,
            last: None,
            window: None,
            early: Vec::new(),
            early_eof: false,
            target,
            target_gone,
            questions: None,
            listener,
            termination,
            left: false,
        })
    }

    pub(super) fn run(mut self) {
        loop {
            self.flush_clients();
            self.track_loneliness();
            if self.is_done() {
                break;
            }
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    eprintln!("paddock-monitor: poll: {errno}");
                    self.terminate();
                    continue;
                }
            };
            for (source, events) in ready {
                self.handle(source, events);
            }
            let late = |since: Instant| since.elapsed() >= TARGET_LATE;
            if self.target_gone.is_some_and(late) {
                // Fails, and tells whoever is connected.
                self.start();
            }
            self.clients.retain(|client| !client.gone);
            if self.abandoned() {
                self.clean();
                break;
            }
        }
        self.leave();
        // Who came while the socket was still there gets its answer, if it is quick.
        self.accept();
        self.flush_clients();
    }

    fn wait(&self) -> nix::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Listener, Source::Termination];
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.termination.as_fd(), PollFlags::POLLIN),
        ];
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::new(fd, flags));
        };
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !client.stuffed);
            flags.set(PollFlags::POLLOUT, !client.is_idle());
            add(Source::Client(index), client.fd(), flags);
        }
        if let (State::Waiting { .. }, Some(target)) = (&self.state, &self.target) {
            add(Source::Target, target.as_fd(), PollFlags::POLLIN);
        }
        if let Some(questions) = &self.questions {
            add(Source::Question, questions.as_fd(), PollFlags::POLLIN);
        }
        if let State::Running(workload) = &self.state {
            if let Some(status) = workload.status() {
                add(Source::Status, status.as_fd(), PollFlags::POLLIN);
            }
            // A client that is behind holds output back, until it reads or is dropped.
            if !self.clients.iter().any(Client::is_full) {
                for stream in Stream::BOTH {
                    if let Some(fd) = workload.io.output(stream) {
                        add(Source::Output(stream), fd, PollFlags::POLLIN);
                    }
                }
            }
            if let Some(fd) = workload.io.input() {
                add(Source::Input, fd, PollFlags::POLLOUT);
            }
            add(
                Source::Process,
                workload.process.pidfd.as_fd(),
                PollFlags::POLLIN,
            );
        }
        poll(&mut fds, self.timeout())?;
        let ready = sources.into_iter().zip(fds).filter_map(|(source, fd)| {
            fd.revents()
                .filter(|events| !events.is_empty())
                .map(|events| (source, events))
        });
        Ok(ready.collect())
    }

    fn timeout(&self) -> PollTimeout {
        let abandoned = match self.state {
            State::Waiting {
                alone_since: Some(since),
            } => Some(since + ABANDONED_AFTER),
            _ => None,
        };
        let waiting = matches!(self.state, State::Waiting { .. });
        let gone = self.target_gone.filter(|_| waiting);
        let next = self
            .clients
            .iter()
            .filter_map(Client::stalls_at)
            .chain(abandoned)
            .chain(gone.map(|since| since + TARGET_LATE))
            .min();
        let Some(next) = next else {
            return PollTimeout::NONE;
        };
        // Rounded up, so that the moment has come when poll returns.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn handle(&mut self, source: Source, events: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Termination => {
                // Reading it is what makes it quiet again.
                let _ = self.termination.read_signal();
                self.terminate();
            }
            Source::Client(index) => self.serve_client(index, events),
            Source::Status => self.follow_status(),
            Source::Output(stream) => {
                self.relay(stream);
            }
            Source::Input => {
                if let State::Running(workload) = &mut self.state {
                    workload.io.flush();
                }
            }
            Source::Process => self.finish(),
            Source::Question => self.answer(events),
            Source::Target => {
                self.target = None;
                self.target_gone = Some(Instant::now());
            }
        }
        self.unstuff();
    }

    fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(fd) = accept4(self.listener.as_raw_fd(), flags) {
            let mut client = Client::new(received(fd));
            if let Some(started) = &self.started {
                client.push(packet(Reply::Started, started));
            }
            if let Some(last) = &self.last {
                client.finish(last.clone());
            }
            self.clients.push(client);
        }
    }

    fn serve_client(&mut self, index: usize, events: PollFlags) {
        let ends = PollFlags::POLLHUP | PollFlags::POLLERR;
        if events.intersects(PollFlags::POLLIN) {
            match self.clients[index].receive() {
                Received::Packet(packet) => self.obey(index, &packet),
                Received::Nothing => {}
                Received::Gone => self.clients[index].gone = true,
            }
        } else if events.intersects(ends) {
            self.clients[index].gone = true;
        }
    }

    fn obey(&mut self, index: usize, packet: &[u8]) {
        let Ok((request, payload)) = decode_request(packet) else {
            eprintln!("paddock-monitor: a client sent a malformed packet");
            self.clients[index].gone = true;
            return;
        };
        match request {
            Request::Start => self.start(),
            Request::Attach => self.clients[index].attach(),
            Request::Follow => self.clients[index].follow(&self.log),
            Request::Stdin => self.clients[index].stuffed = self.feed(payload),
            Request::StdinEof => self.end_stdin(),
            Request::Resize => {
                if let Some((rows, columns)) = parse_resize(payload) {
                    self.resize(rows, columns);
                }
            }
            Request::Signal => {
                if let Some(signal) = parse_signal(payload) {
                    self.signal(signal);
                }
            }
            Request::Kill => self.kill(),
        }
    }

    fn answer(&mut self, events: PollFlags) {
        if let Some(questions) = &mut self.questions
            && events.contains(PollFlags::POLLIN)
        {
            questions.answer();
        } else {
            // Nobody can ask any more.
            self.questions = None;
        }
    }

    /// What an exec's program leaves behind in the container goes on asking.
    fn is_done(&self) -> bool {
        let asked = self.is_exec() && self.questions.is_some();
        matches!(self.state, State::Over) && !asked && self.clients.iter().all(Client::is_idle)
    }

    fn unstuff(&mut self) {
        if !self.stdin_is_full() {
            for client in &mut self.clients {
                client.stuffed = false;
            }
        }
    }

    /// Reads one chunk of output, for the log and for who wants it. `false`: there was none.
    pub(super) fn relay(&mut self, stream: Stream) -> bool {
        let State::Running(workload) = &mut self.state else {
            return false;
        };
        let Output::Data(data) = workload.io.read(stream) else {
            return false;
        };
        self.log.append(stream, &data);
        let kind = match stream {
            Stream::Stdout => Reply::Stdout,
            Stream::Stderr => Reply::Stderr,
        };
        let packet = encode(kind, &data);
        for client in &mut self.clients {
            client.output(&packet);
        }
        true
    }

    pub(super) fn tell(&mut self, packet: &[u8]) {
        for client in &mut self.clients {
            client.push(packet.to_vec());
        }
    }

    fn flush_clients(&mut self) {
        let (now, log) = (Instant::now(), &self.log);
        self.clients.retain_mut(|client| {
            let stalled = client.stalls_at().is_some_and(|at| at <= now);
            if stalled {
                eprintln!("paddock-monitor: dropped a client that did not read");
            }
            client.flush(log) && !(stalled && client.stalls_at().is_some_and(|at| at <= now))
        });
        let needed = self.clients.iter().filter_map(Client::needs).min();
        self.log.release(needed.unwrap_or(u64::MAX));
    }

    /// Takes the socket away, once: after that the name may be the next run's.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            let _ = fs::remove_file(self.spec.dir.join(SOCKET));
        }
    }

    fn track_loneliness(&mut self) {
        if let State::Waiting { alone_since } = &mut self.state {
            if self.clients.is_empty() {
                alone_since.get_or_insert_with(Instant::now);
            } else {
                *alone_since = None;
            }
        }
    }

    fn abandoned(&self) -> bool {
        matches!(self.state, State::Waiting { alone_since: Some(since) } if since.elapsed() >= ABANDONED_AFTER)
    }
}

/// A JSON packet. Our own records always serialise.
pub(super) fn packet(kind: Reply, record: &impl serde::Serialize) -> Vec<u8> {
    encode(kind, &serde_json::to_vec(record).unwrap_or_default())
}

/// The process that the exec means, not one that has its number since.
fn open_target(exec: &ExecSpec) -> Option<OwnedFd> {
    let pidfd = pidfd_open(exec.pid).ok()?;
    let same = start_time(exec.pid).is_ok_and(|started| started == exec.start_time);
    same.then_some(pidfd)
}
