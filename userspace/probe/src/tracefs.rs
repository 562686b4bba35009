//! tracefs for a moment: attaching to a plain tracepoint needs its number from there.

use std::{collections::BTreeMap, fs, io, path::Path};

use nix::sys::statfs::TRACEFS_MAGIC;

use crate::private_mount::Filesystem;

const TRACEFS: Filesystem = Filesystem {
    kind: "tracefs",
    mount_point: MOUNT_POINT,
    magic: TRACEFS_MAGIC,
};

const MOUNT_POINT: &str = "/sys/kernel/tracing";

/// Runs `work` where tracefs is at its usual place.
pub(crate) fn with_tracefs<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    TRACEFS.with(work)
}

/// Offsets of plain tracepoints' fields, by the programs' global; what is not there is left out.
pub(crate) fn field_offsets() -> BTreeMap<&'static str, u32> {
    let rows = [
        ("OFF_TP_NEWTASK_PID", "task/task_newtask", "pid"),
        ("OFF_TP_NEWTASK_FLAGS", "task/task_newtask", "clone_flags"),
        ("OFF_TP_VICTIM_PID", "oom/mark_victim", "pid"),
    ];
    let read = || {
        rows.iter()
            .filter_map(|(global, event, field)| {
                let path = Path::new(MOUNT_POINT)
                    .join("events")
                    .join(event)
                    .join("format");
                Some((*global, offset_of(&fs::read_to_string(path).ok()?, field)?))
            })
            .collect()
    };
    with_tracefs(read).unwrap_or_default()
}

/// Those of the system calls that this kernel has; none where it traces no calls.
pub(crate) fn known_calls(calls: &[&'static str]) -> Vec<&'static str> {
    let there = |call: &&&str| {
        let event = format!("events/syscalls/sys_exit_{call}");
        Path::new(MOUNT_POINT).join(event).exists()
    };
    if calls.is_empty() {
        return Vec::new();
    }
    with_tracefs(|| calls.iter().filter(there).copied().collect()).unwrap_or_default()
}

/// `\tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;`
fn offset_of(format: &str, field: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let (declaration, rest) = line.trim().strip_prefix("field:")?.split_once(';')?;
        let name = declaration.split_whitespace().last()?;
        let name = name.split('[').next()?;
        let offset = rest.trim().strip_prefix("offset:")?.split(';').next()?;
        (name == field).then(|| offset.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_field_by_its_whole_name() {
        let format = "name: task_newtask\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
            \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
            \tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n\
            \tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;\n\
            \tfield:unsigned long clone_flags;\toffset:32;\tsize:8;\tsigned:0;\n";
        assert_eq!(offset_of(format, "pid"), Some(8));
        assert_eq!(offset_of(format, "comm"), Some(12));
        assert_eq!(offset_of(format, "clone_flags"), Some(32));
        assert_eq!(offset_of(format, "uid"), None);
    }
}
