//! The fields, each by its path through the kernel's structures.

use super::Group;

pub(super) type Row = (&'static str, Group, &'static [(&'static str, &'static str)]);

/// Global, group, and the path whose offsets add up.
pub(super) const FIELDS: &[Row] = &[
    (
        "OFF_TASK_CGROUPS",
        Group::Identity,
        &[("task_struct", "cgroups")],
    ),
    ("OFF_TASK_COMM", Group::Identity, &[("task_struct", "comm")]),
    ("OFF_TASK_PID", Group::Identity, &[("task_struct", "pid")]),
    ("OFF_TASK_TGID", Group::Identity, &[("task_struct", "tgid")]),
    (
        "OFF_TASK_REAL_CRED",
        Group::Identity,
        &[("task_struct", "real_cred")],
    ),
    (
        "OFF_TASK_REAL_PARENT",
        Group::Identity,
        &[("task_struct", "real_parent")],
    ),
    ("OFF_CRED_UID", Group::Identity, &[("cred", "uid")]),
    (
        "OFF_CSS_SET_DFL_CGRP",
        Group::Identity,
        &[("css_set", "dfl_cgrp")],
    ),
    (
        "OFF_CSS_CGROUP",
        Group::Identity,
        &[("cgroup_subsys_state", "cgroup")],
    ),
    (
        "OFF_CSS_PARENT",
        Group::Identity,
        &[("cgroup_subsys_state", "parent")],
    ),
    ("OFF_CGROUP_SELF", Group::Identity, &[("cgroup", "self")]),
    ("OFF_CGROUP_KN", Group::Identity, &[("cgroup", "kn")]),
    ("OFF_CGROUP_ROOT", Group::Identity, &[("cgroup", "root")]),
    (
        "OFF_ROOT_SUBSYS_MASK",
        Group::Identity,
        &[("cgroup_root", "subsys_mask")],
    ),
    (
        "OFF_ROOT_HIERARCHY_ID",
        Group::Identity,
        &[("cgroup_root", "hierarchy_id")],
    ),
    ("OFF_KN_ID", Group::Identity, &[("kernfs_node", "id")]),
    (
        "OFF_TASK_NSPROXY",
        Group::Namespaces,
        &[("task_struct", "nsproxy")],
    ),
    (
        "OFF_CRED_USER_NS",
        Group::Namespaces,
        &[("cred", "user_ns")],
    ),
    (
        "OFF_NSPROXY_CGROUP",
        Group::Namespaces,
        &[("nsproxy", "cgroup_ns")],
    ),
    (
        "OFF_NSPROXY_IPC",
        Group::Namespaces,
        &[("nsproxy", "ipc_ns")],
    ),
    (
        "OFF_NSPROXY_MNT",
        Group::Namespaces,
        &[("nsproxy", "mnt_ns")],
    ),
    (
        "OFF_NSPROXY_NET",
        Group::Namespaces,
        &[("nsproxy", "net_ns")],
    ),
    (
        "OFF_NSPROXY_PID",
        Group::Namespaces,
        &[("nsproxy", "pid_ns_for_children")],
    ),
    (
        "OFF_NSPROXY_TIME",
        Group::Namespaces,
        &[("nsproxy", "time_ns_for_children")],
    ),
    (
        "OFF_NSPROXY_UTS",
        Group::Namespaces,
        &[("nsproxy", "uts_ns")],
    ),
    (
        "OFF_CGROUP_NS_INUM",
        Group::Namespaces,
        &[("cgroup_namespace", "ns"), NS_INUM],
    ),
    (
        "OFF_IPC_NS_INUM",
        Group::Namespaces,
        &[("ipc_namespace", "ns"), NS_INUM],
    ),
    (
        "OFF_MNT_NS_INUM",
        Group::Namespaces,
        &[("mnt_namespace", "ns"), NS_INUM],
    ),
    (
        "OFF_NET_NS_INUM",
        Group::Namespaces,
        &[("net", "ns"), NS_INUM],
    ),
    (
        "OFF_PID_NS_INUM",
        Group::Namespaces,
        &[("pid_namespace", "ns"), NS_INUM],
    ),
    (
        "OFF_TIME_NS_INUM",
        Group::Namespaces,
        &[("time_namespace", "ns"), NS_INUM],
    ),
    (
        "OFF_UID_MAP",
        Group::Namespaces,
        &[("user_namespace", "uid_map"), ("uid_gid_map", "extent")],
    ),
    (
        "OFF_UID_MAP_COUNT",
        Group::Namespaces,
        &[("user_namespace", "uid_map"), ("uid_gid_map", "nr_extents")],
    ),
    (
        "OFF_USER_NS_INUM",
        Group::Namespaces,
        &[("user_namespace", "ns"), NS_INUM],
    ),
    (
        "OFF_UTS_NS_INUM",
        Group::Namespaces,
        &[("uts_namespace", "ns"), NS_INUM],
    ),
    ("OFF_NS_COMMON_INUM", Group::Descriptors, &[NS_INUM]),
    (
        "OFF_TASK_FILES",
        Group::Descriptors,
        &[("task_struct", "files")],
    ),
    (
        "OFF_TASK_PID_LINKS",
        Group::Descriptors,
        &[("task_struct", "pid_links")],
    ),
    (
        "OFF_FILES_FDT",
        Group::Descriptors,
        &[("files_struct", "fdt")],
    ),
    ("OFF_FDT_FD", Group::Descriptors, &[("fdtable", "fd")]),
    (
        "OFF_FDT_MAX_FDS",
        Group::Descriptors,
        &[("fdtable", "max_fds")],
    ),
    ("OFF_FILE_OP", Group::Descriptors, &[("file", "f_op")]),
    ("OFF_FILE_INODE", Group::Descriptors, &[("file", "f_inode")]),
    (
        "OFF_FILE_PRIVATE_DATA",
        Group::Descriptors,
        &[("file", "private_data")],
    ),
    ("OFF_INODE_SB", Group::Descriptors, &[("inode", "i_sb")]),
    (
        "OFF_INODE_PRIVATE",
        Group::Descriptors,
        &[("inode", "i_private")],
    ),
    (
        "OFF_SB_MAGIC",
        Group::Descriptors,
        &[("super_block", "s_magic")],
    ),
    ("OFF_PID_TASKS", Group::Descriptors, &[("pid", "tasks")]),
    ("OFF_MEMCG_CSS", Group::Memory, &[("mem_cgroup", "css")]),
    (
        "OFF_MEMCG_MEMORY",
        Group::Memory,
        &[("mem_cgroup", "memory")],
    ),
    ("OFF_MEMCG_MEMSW", Group::Memory, &[("mem_cgroup", "memsw")]),
    (
        "OFF_COUNTER_USAGE",
        Group::Memory,
        &[("page_counter", "usage")],
    ),
    ("OFF_COUNTER_MAX", Group::Memory, &[("page_counter", "max")]),
    (
        "OFF_SIGNAL_OOM_SCORE_ADJ",
        Group::Memory,
        &[("signal_struct", "oom_score_adj")],
    ),
    (
        "OFF_TASK_SIGNAL",
        Group::Process,
        &[("task_struct", "signal")],
    ),
    (
        "OFF_TASK_SELF_EXEC_ID",
        Group::Process,
        &[("task_struct", "self_exec_id")],
    ),
    (
        "OFF_TASK_START",
        Group::Process,
        &[("task_struct", "start_boottime")],
    ),
    (
        "OFF_TASK_EXIT_CODE",
        Group::Process,
        &[("task_struct", "exit_code")],
    ),
    (
        "OFF_SIGNAL_FLAGS",
        Group::Process,
        &[("signal_struct", "flags")],
    ),
    (
        "OFF_SIGNAL_GROUP_EXIT_CODE",
        Group::Process,
        &[("signal_struct", "group_exit_code")],
    ),
    (
        "OFF_SIGNAL_LIVE",
        Group::Process,
        &[("signal_struct", "live")],
    ),
    (
        "OFF_BINPRM_FILENAME",
        Group::Process,
        &[("linux_binprm", "filename")],
    ),
    (
        "OFF_TASK_GROUP_LEADER",
        Group::Identity,
        &[("task_struct", "group_leader")],
    ),
    (
        "OFF_TASK_THREAD_PID",
        Group::Identity,
        &[("task_struct", "thread_pid")],
    ),
    ("OFF_PID_LEVEL", Group::Identity, &[("pid", "level")]),
    ("OFF_PID_NUMBERS", Group::Identity, &[("pid", "numbers")]),
    ("OFF_CRED_EUID", Group::Process, &[("cred", "euid")]),
    (
        "OFF_CRED_PERMITTED",
        Group::Process,
        &[("cred", "cap_permitted")],
    ),
    (
        "OFF_BINPRM_FILE",
        Group::Process,
        &[("linux_binprm", "file")],
    ),
    (
        "OFF_BINPRM_FDPATH",
        Group::Process,
        &[("linux_binprm", "fdpath")],
    ),
    ("OFF_TASK_MM", Group::Process, &[("task_struct", "mm")]),
    (
        "OFF_MM_EXE_FILE",
        Group::Process,
        &[("mm_struct", "exe_file")],
    ),
    ("OFF_INODE_NLINK", Group::Process, &[("inode", "i_nlink")]),
    (
        "OFF_PID_NS_TREE",
        Group::Processes,
        &[
            ("pid_namespace", "idr"),
            ("idr", "idr_rt"),
            ("xarray", "xa_head"),
        ],
    ),
    (
        "OFF_XA_NODE_SHIFT",
        Group::Processes,
        &[("xa_node", "shift")],
    ),
    (
        "OFF_XA_NODE_SLOTS",
        Group::Processes,
        &[("xa_node", "slots")],
    ),
    (
        "OFF_SIGINFO_CODE",
        Group::Signals,
        &[("kernel_siginfo", "si_code")],
    ),
    ("OFF_TASK_FS", Group::Mounts, &[("task_struct", "fs")]),
    ("OFF_FS_PWD", Group::Mounts, &[("fs_struct", "pwd")]),
    ("OFF_FS_ROOT", Group::Mounts, &[("fs_struct", "root")]),
    ("OFF_FILE_PATH", Group::Mounts, &[("file", "f_path")]),
    ("OFF_PATH_MNT", Group::Mounts, &[("path", "mnt")]),
    ("OFF_PATH_DENTRY", Group::Mounts, &[("path", "dentry")]),
    ("OFF_MOUNT_MNT", Group::Mounts, &[("mount", "mnt")]),
    ("OFF_MOUNT_NS", Group::Mounts, &[("mount", "mnt_ns")]),
    (
        "OFF_DENTRY_NAME",
        Group::Mounts,
        &[("dentry", "d_name"), ("qstr", "name")],
    ),
    ("OFF_DENTRY_INODE", Group::Mounts, &[("dentry", "d_inode")]),
    (
        "OFF_DENTRY_PARENT",
        Group::Mounts,
        &[("dentry", "d_parent")],
    ),
    ("OFF_FILE_MODE", Group::Files, &[("file", "f_mode")]),
    ("OFF_FILE_FLAGS", Group::Files, &[("file", "f_flags")]),
    ("OFF_INODE_MODE", Group::Mounts, &[("inode", "i_mode")]),
    ("OFF_INODE_NUMBER", Group::Mounts, &[("inode", "i_ino")]),
    ("OFF_INODE_RDEV", Group::Files, &[("inode", "i_rdev")]),
    ("OFF_SB_DEV", Group::Mounts, &[("super_block", "s_dev")]),
    ("OFF_PROC_INODE_PID", Group::Files, &[("proc_inode", "pid")]),
    (
        "OFF_PROC_INODE_SYSCTL",
        Group::Files,
        &[("proc_inode", "sysctl")],
    ),
    (
        "OFF_SYSCTL_SET",
        Group::Files,
        &[("ctl_table_header", "set")],
    ),
    (
        "OFF_SYSCTL_IS_SEEN",
        Group::Files,
        &[("ctl_table_set", "is_seen")],
    ),
    ("OFF_NET_SYSCTLS", Group::Files, &[("net", "sysctls")]),
    (
        "OFF_PROC_INODE_VFS",
        Group::Files,
        &[("proc_inode", "vfs_inode")],
    ),
    ("OFF_KN_PRIV", Group::Files, &[("kernfs_node", "priv")]),
    ("OFF_SOCKET_SK", Group::Sockets, &[("socket", "sk")]),
    (
        "OFF_SOCK_FAMILY",
        Group::Sockets,
        &[("sock", "__sk_common"), ("sock_common", "skc_family")],
    ),
    ("OFF_UNIX_PATH", Group::Sockets, &[("unix_sock", "path")]),
    ("OFF_UNIX_PEER", Group::Sockets, &[("unix_sock", "peer")]),
    ("OFF_BPF_MAP_ID", Group::Guard, &[("bpf_map", "id")]),
    ("OFF_BPF_PROG_AUX", Group::Guard, &[("bpf_prog", "aux")]),
    ("OFF_BPF_AUX_ID", Group::Guard, &[("bpf_prog_aux", "id")]),
    ("OFF_BPF_LINK_ID", Group::Guard, &[("bpf_link", "id")]),
    ("OFF_MOUNT_PARENT", Group::Guard, &[("mount", "mnt_parent")]),
    (
        "OFF_MNT_NS_ROOT",
        Group::Paths,
        &[("mnt_namespace", "root")],
    ),
    (
        "OFF_VFSMOUNT_ROOT",
        Group::Paths,
        &[("vfsmount", "mnt_root")],
    ),
    (
        "OFF_DENTRY_LENGTH",
        Group::Paths,
        &[("dentry", "d_name"), ("qstr", "len")],
    ),
];

/// Read on the rung that hooks the function which gets one; it asks for all of them.
pub(crate) const OOM_CONTROL: [(&str, &str); 3] = [
    ("OFF_OC_MEMCG", "memcg"),
    ("OFF_OC_CHOSEN", "chosen"),
    ("OFF_OC_CONSTRAINT", "constraint"),
];

const NS_INUM: (&str, &str) = ("ns_common", "inum");

/// `pt_regs` fields of a syscall's first arguments, native and 32-bit entry.
#[cfg(target_arch = "x86_64")]
pub(super) const REGISTERS: &[Row] = &[
    ("OFF_REGS_ARG0", Group::Descriptors, &[("pt_regs", "di")]),
    ("OFF_REGS_ARG1", Group::Descriptors, &[("pt_regs", "si")]),
    ("OFF_REGS_ARG2", Group::Descriptors, &[("pt_regs", "dx")]),
    ("OFF_REGS_ARG3", Group::Descriptors, &[("pt_regs", "r10")]),
    (
        "OFF_REGS_CALL",
        Group::Descriptors,
        &[("pt_regs", "orig_ax")],
    ),
    (
        "OFF_COMPAT_REGS_ARG0",
        Group::Descriptors,
        &[("pt_regs", "bx")],
    ),
    (
        "OFF_COMPAT_REGS_ARG1",
        Group::Descriptors,
        &[("pt_regs", "cx")],
    ),
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const REGISTERS: &[Row] = &[];
