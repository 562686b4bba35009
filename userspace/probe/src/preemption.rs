//! Whether the kernel takes a processor from a task that is inside the kernel, and so inside a
//! program of ours (see `Hook::is_beside`).

use std::fs;

use nix::sys::{statfs::DEBUGFS_MAGIC, utsname::uname};

use crate::private_mount::Filesystem;

const DEBUGFS: Filesystem = Filesystem {
    kind: "debugfs",
    mount_point: "/sys/kernel/debug",
    magic: DEBUGFS_MAGIC,
};

/// Where it is not to be learned, it is assumed.
pub fn preempts() -> bool {
    let never = uname().is_ok_and(|name| !name.version().to_string_lossy().contains("PREEMPT"));
    if never {
        return false;
    }
    let model = DEBUGFS.with(|| fs::read_to_string("/sys/kernel/debug/sched/preempt"));
    model
        .ok()
        .and_then(Result::ok)
        .is_none_or(|models| is_preemptive(&models))
}

/// `none (voluntary) full`, the one in force in brackets.
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/sched/debug.c>, `sched_dynamic_show`
fn is_preemptive(models: &str) -> bool {
    !["(none)", "(voluntary)"]
        .iter()
        .any(|model| models.contains(model))
}

#[cfg(test)]
mod tests {
    use super::is_preemptive;

    #[test]
    fn the_model_in_force_is_in_brackets() {
        for (models, expected) in [
            ("none (voluntary) full\n", false),
            ("(none) voluntary full\n", false),
            ("none voluntary full (lazy)\n", true),
            ("(full) lazy\n", true),
            ("", true),
        ] {
            assert_eq!(is_preemptive(models), expected, "{models}");
        }
    }
}
