//! Every field the kernel half reads, and what cannot work without it.

use std::collections::BTreeMap;

use crate::kernel_types::KernelTypes;

/// Fields that a capability needs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Identity,
    Namespaces,
    Descriptors,
    Memory,
    Process,
}

/// What was found, by the programs' global, and what was not.
pub(crate) struct Offsets {
    pub(crate) globals: BTreeMap<&'static str, u32>,
    missing: Vec<(Group, String)>,
}

type Row = (&'static str, Group, &'static [(&'static str, &'static str)]);

/// Global, group, and the path whose offsets add up.
const FIELDS: &[Row] = &[
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
    ("OFF_CGROUP_LEVEL", Group::Identity, &[("cgroup", "level")]),
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
        "OFF_TASK_SIGNAL",
        Group::Process,
        &[("task_struct", "signal")],
    ),
    (
        "OFF_TASK_EXIT_CODE",
        Group::Process,
        &[("task_struct", "exit_code")],
    ),
    (
        "OFF_TASK_SELF_EXEC_ID",
        Group::Process,
        &[("task_struct", "self_exec_id")],
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
];

const NS_INUM: (&str, &str) = ("ns_common", "inum");

/// `pt_regs` fields of a syscall's first two arguments, native and 32-bit entry.
#[cfg(target_arch = "x86_64")]
const REGISTERS: &[Row] = &[
    ("OFF_REGS_ARG0", Group::Descriptors, &[("pt_regs", "di")]),
    ("OFF_REGS_ARG1", Group::Descriptors, &[("pt_regs", "si")]),
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
const REGISTERS: &[Row] = &[];

impl Offsets {
    pub(crate) fn find(types: &KernelTypes, page_size: u32) -> Self {
        let mut found = Self {
            globals: BTreeMap::new(),
            missing: Vec::new(),
        };
        for (global, group, path) in FIELDS.iter().chain(REGISTERS) {
            let offsets = path
                .iter()
                .map(|(structure, field)| types.offset(structure, field));
            match offsets.sum::<Option<u32>>() {
                Some(offset) => drop(found.globals.insert(global, offset)),
                None => found.missing.push((*group, display(path))),
            }
        }
        found.controllers(types);
        found.namespace_type(types);
        found.optional(types, page_size);
        found
    }

    /// The first field that `group` misses, for the operator.
    pub(crate) fn missing(&self, group: Group) -> Option<&str> {
        self.missing
            .iter()
            .find(|(of, _)| *of == group)
            .map(|(_, path)| path.as_str())
    }

    fn controllers(&mut self, types: &KernelTypes) {
        let rows = [
            ("OFF_CSS_SET_MEMORY", "MEMORY_SUBSYS_BIT", "memory_cgrp_id"),
            ("OFF_CSS_SET_PIDS", "PIDS_SUBSYS_BIT", "pids_cgrp_id"),
        ];
        let array = types.offset("css_set", "subsys");
        for (global, bit, name) in rows {
            match (array, types.enumerator("cgroup_subsys_id", name)) {
                (Some(array), Some(id)) if id < 32 => {
                    self.globals.insert(global, array + 8 * id);
                    self.globals.insert(bit, 1 << id);
                }
                _ => self
                    .missing
                    .push((Group::Identity, format!("css_set.subsys[{name}]"))),
            }
        }
    }

    /// `ns_common.ns_type` since 6.18, before through its operations.
    fn namespace_type(&mut self, types: &KernelTypes) {
        if let Some(offset) = types.offset("ns_common", "ns_type") {
            self.globals.insert("HAS_NS_COMMON_TYPE", 1);
            self.globals.insert("OFF_NS_COMMON_TYPE", offset);
            return;
        }
        let ops = types.offset("ns_common", "ops");
        let kind = types.offset("proc_ns_operations", "type");
        if let (Some(ops), Some(kind)) = (ops, kind) {
            self.globals.insert("OFF_NS_COMMON_OPS", ops);
            self.globals.insert("OFF_NS_OPERATIONS_TYPE", kind);
        } else {
            self.missing
                .push((Group::Descriptors, "ns_common.ns_type".to_owned()));
        }
    }

    /// What a kernel may lack without loss.
    fn optional(&mut self, types: &KernelTypes, page_size: u32) {
        if let Some(offset) = types.offset("mem_cgroup", "oom_lock") {
            self.globals.insert("HAS_OOM_LOCK", 1);
            self.globals.insert("OFF_MEMCG_OOM_LOCK", offset);
        }
        let exit = types.tracepoint("sched_process_exit");
        self.globals.insert(
            "HAS_GROUP_DEAD_ARG",
            u32::from(exit.is_some_and(|passed| passed.len() > 1)),
        );
        self.globals.insert("PAGE_SIZE", page_size);
    }
}

fn display(path: &[(&str, &str)]) -> String {
    let fields: Vec<_> = path
        .iter()
        .map(|(structure, field)| format!("{structure}.{field}"))
        .collect();
    fields.join(" or ")
}
