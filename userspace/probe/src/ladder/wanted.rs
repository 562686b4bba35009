//! Capabilities whose programs hang only while they are wanted, or nowhere (`on_demand`).

use super::{Capability, Rung};
use crate::{hook::Hook, offsets::Group};

/// What policy forbids. Its hooks hang only while a policy is in force (`on_demand`).
pub(crate) const ENFORCE: Capability = Capability {
    name: "enforce",
    observed: 14,
    needs: &[
        Group::Identity,
        Group::Namespaces,
        Group::Descriptors,
        Group::Files,
        Group::Mounts,
        Group::Process,
        Group::Processes,
        Group::Sockets,
    ],
    rungs: &[Rung {
        name: "lsm",
        hooks: &[
            ("lsm_file_open", Hook::Lsm("file_open")),
            ("lsm_capable", Hook::Lsm("capable")),
            ("lsm_task_alloc", Hook::Lsm("task_alloc")),
            ("lsm_userns_create", Hook::LsmIfThere("userns_create")),
            ("lsm_ptrace_access_check", Hook::Lsm("ptrace_access_check")),
            ("lsm_task_kill", Hook::Lsm("task_kill")),
            ("lsm_sb_mount", Hook::Lsm("sb_mount")),
            ("lsm_move_mount", Hook::Lsm("move_mount")),
            ("lsm_sb_pivotroot", Hook::Lsm("sb_pivotroot")),
            ("lsm_bpf", Hook::Lsm("bpf")),
            ("lsm_kernel_read_file", Hook::Lsm("kernel_read_file")),
            ("lsm_kernel_load_data", Hook::Lsm("kernel_load_data")),
            ("lsm_perf_event_open", Hook::Lsm("perf_event_open")),
            (
                "lsm_inode_init_security_anon",
                Hook::LsmIfThere("inode_init_security_anon"),
            ),
            ("lsm_key_permission", Hook::Lsm("key_permission")),
            ("lsm_inode_mknod", Hook::Lsm("inode_mknod")),
            ("lsm_path_chroot", Hook::LsmIfThere("path_chroot")),
            ("lsm_bprm_check_security", Hook::Lsm("bprm_check_security")),
            ("lsm_unix_stream_connect", Hook::Lsm("unix_stream_connect")),
        ],
    }],
};

/// What policy says of paths, but for opens, which [`ENFORCE`] is asked for. Its hooks hang only
/// while a policy in force names paths.
pub(crate) const PATHS: Capability = Capability {
    name: "paths",
    observed: 19,
    needs: &[
        Group::Identity,
        Group::Namespaces,
        Group::Descriptors,
        Group::Files,
        Group::Mounts,
        Group::Process,
        Group::Guard,
        Group::Paths,
    ],
    rungs: &[Rung {
        name: "lsm",
        hooks: &[
            ("lsm_path_chmod", Hook::Lsm("path_chmod")),
            ("lsm_path_chown", Hook::LsmIfTaken("path_chown")),
            ("lsm_path_truncate", Hook::Lsm("path_truncate")),
            ("lsm_path_mknod", Hook::Lsm("path_mknod")),
            ("lsm_path_mkdir", Hook::Lsm("path_mkdir")),
            ("lsm_path_symlink", Hook::Lsm("path_symlink")),
            ("lsm_path_unlink", Hook::Lsm("path_unlink")),
            ("lsm_path_rmdir", Hook::Lsm("path_rmdir")),
            ("lsm_path_link", Hook::Lsm("path_link")),
            ("lsm_path_rename", Hook::Lsm("path_rename")),
        ],
    }],
};

pub(crate) const QUESTION_PROGRAM: &str = "question";

/// What stands in for the question about setns that nobody asks where `enforce` is not served: a
/// launched container's seccomp filter stops the call, and its monitor runs this.
pub(crate) const QUESTION: Capability = Capability {
    name: "question",
    observed: 18,
    needs: &[
        Group::Identity,
        Group::Namespaces,
        Group::Descriptors,
        Group::Mounts,
        Group::Process,
        Group::Processes,
    ],
    rungs: &[Rung {
        name: "seccomp",
        hooks: &[(QUESTION_PROGRAM, Hook::Called)],
    }],
};

/// Paddock's own objects. Its hooks hang only while they are guarded.
pub(crate) const GUARD: Capability = Capability {
    name: "guard",
    observed: 16,
    needs: &[
        Group::Identity,
        Group::Namespaces,
        Group::Descriptors,
        Group::Mounts,
        Group::Process,
        Group::Guard,
    ],
    rungs: &[Rung {
        name: "lsm",
        hooks: &[
            ("guard_bpf", Hook::Lsm("bpf")),
            ("guard_bpf_map", Hook::Lsm("bpf_map")),
            ("guard_bpf_prog", Hook::Lsm("bpf_prog")),
            ("guard_inode_unlink", Hook::Lsm("inode_unlink")),
            ("guard_inode_rename", Hook::Lsm("inode_rename")),
            ("guard_sb_umount", Hook::Lsm("sb_umount")),
            ("guard_sb_mount", Hook::Lsm("sb_mount")),
            ("guard_move_mount", Hook::Lsm("move_mount")),
            ("guard_ptrace", Hook::Lsm("ptrace_access_check")),
            ("guard_task_kill", Hook::Lsm("task_kill")),
        ],
    }],
};
