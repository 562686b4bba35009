//! The child's life between clone and exec.
//!
//! Kernels from 5.10. A failed step writes its number and errno to the status pipe and ends
//! the process; success closes the pipe by exec, after [`READY`].
#![forbid(unsafe_code)]

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{close, read},
};

use super::{Enter, Plan, init};
use crate::sys::{
    clone::{Side, clone_sibling},
    exec, seccomp, task,
};

/// In place of a step's number: all steps are done and exec comes next.
pub(crate) const READY: u32 = u32::MAX;
/// A second child goes on; in place of the errno is its process id.
pub(crate) const SIBLING: u32 = READY - 1;
/// Entering the other user namespace failed.
pub(crate) const ENTER: u32 = READY - 2;

/// The child's ends of its two pipes, and the monitor's ends that came along with the clone.
#[derive(Debug)]
pub(crate) struct Channels {
    /// Opens when the monitor has written one byte; hangs up when the monitor is gone.
    pub gate: OwnedFd,
    pub status: OwnedFd,
    /// The monitor's writing end of the gate, which would keep it from hanging up.
    pub gate_writer: RawFd,
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
    await_gate(channels);
    if let Some(enter) = &plan.enter
        && let Err(errno) = enter_user(enter, channels)
    {
        fail(status, ENTER, errno);
    }
    umask(Mode::empty());
    for (step, index) in plan.steps.iter().zip(0..) {
        if let Err(errno) = step.op.run(plan, channels.gate.as_fd()) {
            fail(status, index, errno);
        }
    }
    let exec_index = u32::try_from(plan.steps.len()).unwrap_or(ENTER - 2);
    umask(plan.umask);
    task::reset_signals();
    if let Err(errno) = exec::close_others(channels.status.as_fd()) {
        fail(status, exec_index, errno);
    }
    let terminal = plan.terminal.then(exec::stdin);
    if plan.init
        && let Err(errno) = init::stay(terminal, plan.seccomp.as_ref())
    {
        fail(exec::STATUS, exec_index, errno);
    }
    exec::write_status(exec::STATUS, encode_status(READY, 0));
    if let Some(program) = &plan.seccomp
        && let Err(errno) = seccomp::install(program)
    {
        fail(exec::STATUS, exec_index + 1, errno);
    }
    let errno = exec::exec(&plan.exec.candidates, &plan.exec.argv, &plan.exec.envp);
    fail(exec::STATUS, exec_index, errno);
}

/// The monitor's byte, or the end: a monitor that is gone opens nothing.
fn await_gate(channels: &Channels) {
    if read(&channels.gate, &mut [0]) != Ok(1) {
        exec::exit_now(super::SETUP_FAILED);
    }
}

fn enter_user(enter: &Enter, channels: &Channels) -> nix::Result<()> {
    let status = channels.status.as_raw_fd();
    setns(&enter.user, CloneFlags::CLONE_NEWUSER)?;
    if !enter.again {
        return unshare(enter.new);
    }
    match clone_sibling(enter.new)? {
        Side::Child => {
            prctl::set_dumpable(false)?;
            // Not before the monitor knows this process: its own first words would come too early.
            await_gate(channels);
            Ok(())
        }
        Side::Parent(pid) => {
            exec::write_status(status, encode_status(SIBLING, pid));
            exec::exit_now(0)
        }
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
