//! Where the running kernel keeps its fields: set by the loader before load, constant after.
//!
//! The loader never loads a program whose offsets it could not find, so the defaults here are
//! only ever seen by dead code. `OFF_STRUCT_FIELD`; `OFF_X_INUM` includes the way through `ns`.

use aya_ebpf::Global;

macro_rules! offsets {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)]
        pub(crate) static $name: Global<u32> = Global::new(0);)*
    };
}

offsets! {
    // Tasks.
    OFF_TASK_CGROUPS,
    OFF_TASK_COMM,
    OFF_TASK_EXIT_CODE,
    OFF_TASK_FILES,
    OFF_TASK_NSPROXY,
    OFF_TASK_PID,
    OFF_TASK_PID_LINKS,
    OFF_TASK_REAL_CRED,
    OFF_TASK_REAL_PARENT,
    OFF_TASK_SELF_EXEC_ID,
    OFF_TASK_SIGNAL,
    OFF_TASK_TGID,
    OFF_CRED_UID,
    OFF_CRED_USER_NS,
    OFF_SIGNAL_FLAGS,
    OFF_SIGNAL_GROUP_EXIT_CODE,
    OFF_SIGNAL_LIVE,
    OFF_BINPRM_FILENAME,
    // Namespaces.
    OFF_NSPROXY_CGROUP,
    OFF_NSPROXY_IPC,
    OFF_NSPROXY_MNT,
    OFF_NSPROXY_NET,
    OFF_NSPROXY_PID,
    OFF_NSPROXY_TIME,
    OFF_NSPROXY_UTS,
    OFF_CGROUP_NS_INUM,
    OFF_IPC_NS_INUM,
    OFF_MNT_NS_INUM,
    OFF_NET_NS_INUM,
    OFF_PID_NS_INUM,
    OFF_TIME_NS_INUM,
    OFF_USER_NS_INUM,
    OFF_UTS_NS_INUM,
    OFF_NS_COMMON_INUM,
    // `ns_type` (6.18) or 0 with `ops` set (before).
    OFF_NS_COMMON_TYPE,
    OFF_NS_COMMON_OPS,
    OFF_NS_OPERATIONS_TYPE,
    // Cgroups.
    OFF_CSS_SET_DFL_CGRP,
    OFF_CSS_SET_MEMORY,
    OFF_CSS_SET_PIDS,
    OFF_CSS_CGROUP,
    OFF_CSS_PARENT,
    OFF_CGROUP_SELF,
    OFF_CGROUP_KN,
    OFF_CGROUP_LEVEL,
    OFF_CGROUP_ROOT,
    OFF_ROOT_SUBSYS_MASK,
    OFF_ROOT_HIERARCHY_ID,
    OFF_KN_ID,
    // Descriptors.
    OFF_FILES_FDT,
    OFF_FDT_FD,
    OFF_FDT_MAX_FDS,
    OFF_FILE_OP,
    OFF_FILE_INODE,
    OFF_FILE_PRIVATE_DATA,
    OFF_INODE_SB,
    OFF_INODE_PRIVATE,
    OFF_SB_MAGIC,
    OFF_PID_TASKS,
    // Memory.
    OFF_MEMCG_CSS,
    OFF_MEMCG_MEMORY,
    OFF_MEMCG_MEMSW,
    OFF_MEMCG_OOM_LOCK,
    OFF_COUNTER_USAGE,
    OFF_COUNTER_MAX,
    // Registers of a syscall's first two arguments.
    OFF_REGS_ARG0,
    OFF_REGS_ARG1,
    OFF_COMPAT_REGS_ARG0,
    OFF_COMPAT_REGS_ARG1,
    // Plain tracepoints' fields, from tracefs.
    OFF_TP_NEWTASK_PID,
    OFF_TP_NEWTASK_FLAGS,
    OFF_TP_VICTIM_PID,
    // Facts, 0 or 1, and numbers.
    HAS_NS_COMMON_TYPE,
    HAS_OOM_LOCK,
    HAS_GROUP_DEAD_ARG,
    MEMORY_SUBSYS_BIT,
    PIDS_SUBSYS_BIT,
    PAGE_SIZE,
}
