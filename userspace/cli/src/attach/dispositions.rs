//! What procfs says of a process and a signal: whether forwarding it would reach the workload,
//! and whether this process was told to ignore it (`nohup`, a shell's `&`).
//!
//! The first process of a pid namespace gets no signal from outside whose action is the default
//! one, but for SIGKILL and SIGSTOP (pid_namespaces(7)): `paddock run host sleep 9` would shrug
//! off Ctrl-C. An ordinary process would have died of it, and that is what the user means.

use nix::sys::signal::Signal;

/// True when the kernel drops `signal` because `pid` (as this namespace counts) is such a first
/// process and neither handles, ignores nor blocks it. A process that is gone drops nothing.
pub(crate) fn is_dropped(pid: i32, signal: Signal) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| drops(&status, signal))
}

/// Those that this process did not come to life ignoring.
pub(crate) fn minded_here(signals: &[Signal]) -> Vec<Signal> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let minded = |signal: &Signal| has(&status, "SigIgn:", *signal) != Some(true);
    signals.iter().copied().filter(minded).collect()
}

fn drops(status: &str, signal: Signal) -> bool {
    let pids = field(status, "NSpid:").map(|pids| pids.split_whitespace().collect::<Vec<_>>());
    let first = pids.is_some_and(|pids| pids.len() > 1 && pids.last() == Some(&"1"));
    // Unreadable counts as minding: then nothing is done beyond forwarding.
    let minds = ["SigBlk:", "SigIgn:", "SigCgt:"]
        .into_iter()
        .any(|mask| has(status, mask, signal).unwrap_or(true));
    first && !minds
}

fn has(status: &str, mask: &str, signal: Signal) -> Option<bool> {
    let mask = u64::from_str_radix(field(status, mask)?, 16).ok()?;
    Some(mask & (1 << (signal as i32 - 1)) != 0)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pids: &str, caught: &str) -> String {
        format!(
            "Name:\tsleep\nNSpid:\t{pids}\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t{caught}\n"
        )
    }

    #[test]
    fn first_process_without_handler() {
        assert!(drops(
            &status("4711\t1", "0000000000000000"),
            Signal::SIGINT
        ));
        // SIGINT is 2, so bit 1.
        assert!(!drops(
            &status("4711\t1", "0000000000000002"),
            Signal::SIGINT
        ));
        assert!(drops(
            &status("4711\t1", "0000000000000002"),
            Signal::SIGTERM
        ));
    }

    #[test]
    fn ordinary_processes_take_the_default_action() {
        assert!(!drops(
            &status("4711\t7", "0000000000000000"),
            Signal::SIGINT
        ));
        assert!(!drops(&status("1", "0000000000000000"), Signal::SIGINT));
        assert!(!is_dropped(-1, Signal::SIGINT));
    }
}
