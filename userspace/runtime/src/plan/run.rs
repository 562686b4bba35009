//! The child's life between clone and exec.
//!
//! Kernels from 5.10. A failed step writes its number and errno to the status pipe and ends
//! the process; success closes the pipe by exec, after [`READY`].
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        socket::{SockFlag, accept4},
        stat::{Mode, umask},
    },
    unistd::{close, read, write},
};

use super::{Enter, Plan, Start, init};
use crate::{
    sys::{
        clone::{Side, clone_sibling},
        exec::{self, STATUS},
        seccomp, task,
    },
    trace,
};

/// In place of a step's number: all steps are done and exec comes next.
pub(crate) const READY: u32 = u32::MAX;
/// The child is in the other user namespace. In place of the errno is the process id of a
/// second child that goes on instead, or 0.
pub(crate) const ENTERED: u32 = READY - 1;
/// Entering the other user namespace failed.
pub(crate) const ENTER: u32 = READY - 2;

/// In place of a step's number, to who starts a waiting child.
pub(crate) const EXEC_FAILED: u32 = READY - 3;
pub(crate) const HOOK_FAILED: u32 = READY - 4;

/// The child is in its v1 cgroups.
pub(crate) const JOINED: u32 = READY - 5;
/// A filter with a listener is installed. In place of the errno is the listener's number in
/// the child, who waits at the gate until its launcher has it.
pub(crate) const LISTENER: u32 = READY - 6;
/// It could not join that of this index, counted from here.
pub(crate) const FIRST_JOIN: u32 = READY - 100;

/// From here on: a step of that index is done, in place of the errno the microseconds of
/// [`Channels::trace`]. The index past the steps is the closing of descriptors, the next the
/// last filter, about to be installed: it would judge what is told after it.
pub(crate) const DONE: u32 = 1 << 30;
/// The end of those.
pub(crate) const DONE_END: u32 = DONE << 1;

/// The child's ends of its two pipes, and the monitor's ends that came along with the clone.
#[derive(Debug)]
pub(crate) struct Channels {
    /// Opens when the monitor has written one byte; hangs up when the monitor is gone.
    pub gate: OwnedFd,
    pub status: OwnedFd,
    /// The monitor's writing end of the gate, which would keep it from hanging up.
    pub gate_writer: RawFd,
    /// `tasks` of each v1 cgroup, open for writing.
    pub tasks: Vec<OwnedFd>,
    /// Steps that are done are to be told, by the time since then in nanoseconds.
    pub trace: Option<u64>,
}

/// A status message: which step (or [`READY`]) and its errno.
pub(crate) fn encode_status(step: u32, errno: i32) -> [u8; 8] {
    let mut message = [0; 8];
    let (front, back) = message.split_at_mut(4);
    front.copy_from_slice(&step.to_ne_bytes());
    back.copy_from_slice(&errno.to_ne_bytes());
    message
}

/// The reverse of [`encode_status`].
pub(crate) fn decode_status(message: [u8; 8]) -> (u32, i32) {
    let (mut step, mut errno) = ([0; 4], [0; 4]);
    step.copy_from_slice(&message[..4]);
    errno.copy_from_slice(&message[4..]);
    (u32::from_ne_bytes(step), i32::from_ne_bytes(errno))
}

/// Carries the plan out. Never returns.
pub(crate) fn run(plan: &Plan, channels: &Channels) -> ! {
    let status = channels.status.as_raw_fd();
    // A container's processes must not look into this one while it has one foot outside.
    // Failing is impossible for 0 and would only lose a defence in depth.
    let _ = prctl::set_dumpable(false);
    let _ = close(channels.gate_writer);
    join(channels);
    pass_gate(channels);
    if let Some(enter) = &plan.enter {
        if let Err(errno) = enter_user(enter, status) {
            fail(status, ENTER, errno);
        }
        pass_gate(channels);
    }
    umask(Mode::empty());
    for (step, index) in plan.steps.iter().zip(0..) {
        if let Err(errno) = step.op.run(plan, channels) {
            fail(status, index, errno);
        }
        tell_done(status, channels, index);
    }
    let exec_index = u32::try_from(plan.steps.len()).unwrap_or(HOOK_FAILED - 2);
    umask(plan.umask);
    task::reset_signals();
    let first = STATUS + RawFd::from(plan.preserved);
    if let Some(start) = &plan.start {
        let kept = [status, start.listener.as_raw_fd(), start.state.as_raw_fd()];
        match exec::keep(first, kept) {
            Ok([status, listener, state]) => wait_for_start(plan, start, status, listener, state),
            Err(errno) => fail(status, exec_index, errno),
        }
    }
    let status = match exec::keep(first, [status]) {
        Ok([kept]) => kept,
        Err(errno) => fail(status, exec_index, errno),
    };
    let terminal = plan.terminal.then(exec::stdin);
    if plan.init
        && let Err(errno) = init::stay(terminal, plan.seccomp.as_ref())
    {
        fail(status, exec_index, errno);
    }
    tell_done(status, channels, exec_index);
    if plan.seccomp.is_some() {
        tell_done(status, channels, exec_index + 1);
    }
    exec::write_status(status, encode_status(READY, 0));
    if let Some(program) = &plan.seccomp
        && let Err(errno) = seccomp::install(program)
    {
        fail(status, exec_index + 1, errno);
    }
    let errno = exec::exec(&plan.exec.candidates, &plan.exec.argv, &plan.exec.envp);
    fail(status, exec_index, errno);
}

/// Stays behind when the launcher goes; whoever connects starts it and reads on that
/// connection why it came to nothing ([`HOOK_FAILED`], [`EXEC_FAILED`]). An end of file there
/// is the exec's success.
fn wait_for_start(plan: &Plan, start: &Start, status: RawFd, listener: RawFd, state: RawFd) -> ! {
    exec::write_status(status, encode_status(READY, 0));
    let _ = close(status);
    let connection = loop {
        match accept4(listener, SockFlag::SOCK_CLOEXEC) {
            Ok(connection) => break connection,
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(_) => exec::exit_now(super::SETUP_FAILED),
        }
    };
    for hook in &start.hooks {
        if let Err(errno) = hook.run(state) {
            fail(connection, HOOK_FAILED, errno);
        }
    }
    if let Some(program) = &plan.seccomp
        && let Err(errno) = seccomp::install(program)
    {
        fail(connection, HOOK_FAILED, errno);
    }
    let errno = exec::exec(&plan.exec.candidates, &plan.exec.argv, &plan.exec.envp);
    fail(connection, EXEC_FAILED, errno);
}

/// Joins the v1 cgroups. A thread that moves itself spares the kernel the lock that keeps all
/// of a process' threads in place: taking that one waits for an RCU grace period, milliseconds.
fn join(channels: &Channels) {
    let status = channels.status.as_raw_fd();
    for (tasks, index) in channels.tasks.iter().zip(FIRST_JOIN..) {
        if let Err(errno) = write(tasks, b"0") {
            fail(status, index, errno);
        }
        let _ = close(tasks.as_raw_fd());
    }
    if !channels.tasks.is_empty() {
        exec::write_status(status, encode_status(JOINED, 0));
    }
}

/// Waits for the launcher's byte; without a launcher there is nothing to do. A second child
/// waits until the launcher knows it: its own first words would come too early.
fn pass_gate(channels: &Channels) {
    let mut byte = [0];
    if read(&channels.gate, &mut byte) != Ok(1) {
        exec::exit_now(super::SETUP_FAILED);
    }
}

/// Installs a filter; of one that asks a listener the launcher takes the descriptor. The calls
/// in between are filtered already: a profile must not ask about write.
pub(super) fn install_filter(program: &seccomp::Program, channels: &Channels) -> nix::Result<()> {
    if !program.notifies {
        return seccomp::install(program);
    }
    let listener = seccomp::install_with_listener(program)?;
    let message = encode_status(LISTENER, listener.as_raw_fd());
    exec::write_status(channels.status.as_raw_fd(), message);
    pass_gate(channels);
    Ok(())
}

fn enter_user(enter: &Enter, status: RawFd) -> nix::Result<()> {
    setns(&enter.user, CloneFlags::CLONE_NEWUSER)?;
    if !enter.again {
        unshare(enter.new)?;
        exec::write_status(status, encode_status(ENTERED, 0));
        return Ok(());
    }
    match clone_sibling(enter.new)? {
        Side::Child => prctl::set_dumpable(false),
        Side::Parent(pid) => {
            exec::write_status(status, encode_status(ENTERED, pid));
            exec::exit_now(0)
        }
    }
}

fn tell_done(status: RawFd, channels: &Channels, index: u32) {
    if let Some(start) = channels.trace {
        let micros = i32::try_from(trace::micros_since(start)).unwrap_or(i32::MAX);
        exec::write_status(status, encode_status(DONE | index, micros));
    }
}

fn fail(status: RawFd, index: u32, errno: Errno) -> ! {
    exec::write_status(status, encode_status(index, errno as i32));
    exec::exit_now(super::SETUP_FAILED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_pipe() {
        assert_eq!(decode_status(encode_status(READY, -1)), (READY, -1));
        assert_eq!(decode_status(encode_status(7, 13)), (7, 13));
    }
}
