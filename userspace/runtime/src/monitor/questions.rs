//! setns of the container's programs, each judged before it happens.
//!
//! A seccomp filter stops the call at its entry; what is to become of it the kernel half says,
//! which counts and tells it, too. The monitor decides nothing but what to do without an answer:
//! where no kernel half is, nothing is in force and the call goes on; where one is and cannot be
//! asked, it is refused. The kernel refuses all (ENOSYS) once nobody listens any more.
#![forbid(unsafe_code)]

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use nix::errno::Errno;
use paddock_abi::question::{Question, read_answer, verdict};

use crate::sys::{
    bpf,
    clone::{pidfd_open, pidfd_send_signal},
    seccomp::{self, Waiting},
};

#[derive(Debug)]
pub(super) struct Questions {
    listener: OwnedFd,
    program: CString,
    /// What went wrong last: told once, or a container could fill the disk.
    told: Option<(&'static str, Errno)>,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    GoOn,
    Refuse,
    /// And the process gets SIGKILL.
    Kill(u32),
}

impl Questions {
    pub(super) fn new(listener: OwnedFd, program: &Path) -> Self {
        // A path with a NUL names nothing.
        let program = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
        Self {
            listener,
            program,
            told: None,
        }
    }

    /// The next one.
    pub(super) fn answer(&mut self) {
        let call = match seccomp::receive(self.listener.as_fd()) {
            Ok(call) => call,
            // It was killed meanwhile.
            Err(Errno::ENOENT | Errno::EINTR) => return,
            Err(errno) => return self.complain("receive a question", errno),
        };
        let refused = match self.judge(&call) {
            Judgement::GoOn => None,
            Judgement::Refuse => Some(Errno::EPERM),
            Judgement::Kill(tgid) => {
                self.kill(&call, tgid);
                Some(Errno::EPERM)
            }
        };
        match seccomp::answer(self.listener.as_fd(), &call, refused) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => self.complain("answer", errno),
        }
    }

    fn judge(&mut self, call: &Waiting) -> Judgement {
        let program = match bpf::pinned(&self.program) {
            Ok(program) => program,
            Err(Errno::ENOENT) => return Judgement::GoOn,
            Err(errno) => {
                self.complain("open the program that judges setns", errno);
                return Judgement::Refuse;
            }
        };
        match bpf::ask(program.as_fd(), &question(call).words()) {
            Ok(answer) => self.read(call, answer),
            Err(errno) => {
                self.complain("run the program that judges setns", errno);
                Judgement::Refuse
            }
        }
    }

    fn read(&mut self, call: &Waiting, answer: u32) -> Judgement {
        match read_answer(answer) {
            (verdict::GO_ON, _) => Judgement::GoOn,
            (verdict::REFUSE, _) => Judgement::Refuse,
            (verdict::KILL, tgid) => Judgement::Kill(tgid),
            (code, _) => {
                // Nobody waits for the answer then.
                if code != verdict::GONE || seccomp::waits(self.listener.as_fd(), call) {
                    self.complain("find the thread that calls setns", Errno::ESRCH);
                }
                Judgement::Refuse
            }
        }
    }

    /// The process, while the thread is still in the call: its number is its own till then.
    fn kill(&mut self, call: &Waiting, tgid: u32) {
        let Ok(process) = i32::try_from(tgid)
            .map_err(|_| Errno::ESRCH)
            .and_then(pidfd_open)
        else {
            // Refused it is all the same, and gone.
            return;
        };
        if !seccomp::waits(self.listener.as_fd(), call) {
            return;
        }
        match pidfd_send_signal(process.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => self.complain("kill who called setns", errno),
        }
    }

    fn complain(&mut self, what: &'static str, errno: Errno) {
        if self.told.replace((what, errno)) != Some((what, errno)) {
            eprintln!("paddock-monitor: cannot {what}: {errno}: setns is refused");
        }
    }
}

impl AsFd for Questions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the kernel reads both arguments as 32 bits"
)]
fn question(call: &Waiting) -> Question {
    let [fd, flags, ..] = call.arguments;
    Question {
        tid: call.tid,
        fd: (fd as u32).cast_signed(),
        flags: flags as u32,
    }
}
