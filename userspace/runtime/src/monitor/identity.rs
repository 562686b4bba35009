//! Who a process is: pid and start time, from /proc/PID/stat.
#![forbid(unsafe_code)]

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::disk::kernel_text;

/// Field 22 of /proc/PID/stat, clock ticks since boot
/// ([proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)).
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = kernel_text(format!("/proc/{pid}/stat"))?;
    parse(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The name in field 2 may hold spaces and parentheses: count from its last one.
fn parse(stat: &str) -> Option<u64> {
    const AFTER_NAME: usize = 22 - 3;
    stat.rsplit_once(") ")?
        .1
        .split(' ')
        .nth(AFTER_NAME)?
        .parse()
        .ok()
}

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_look_like_fields() {
        let stat = "7 (a) R 1) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0";
        assert_eq!(parse(stat), Some(4242));
        assert_eq!(parse("7 (a) S 1"), None);
    }
}
