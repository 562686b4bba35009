//! Every field the kernel half reads, and what cannot work without it.

use std::collections::BTreeMap;

mod fields;

pub(crate) use self::fields::OOM_CONTROL;
use self::fields::{FIELDS, REGISTERS};
use crate::{hierarchies::v1_controllers, kernel_types::KernelTypes};

/// Fields that a capability needs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Identity,
    Namespaces,
    Descriptors,
    Memory,
    Process,
    Processes,
    Signals,
    Mounts,
    Files,
    Sockets,
    Guard,
    Paths,
}

/// What was found, by the programs' global, and what was not.
pub(crate) struct Offsets {
    pub(crate) globals: BTreeMap<&'static str, u32>,
    missing: Vec<(Group, String)>,
}

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
        found.side_by_side(types);
        found.renamed(types);
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

    /// What is read at once.
    fn side_by_side(&mut self, types: &KernelTypes) {
        let apart = |first: (&str, &str), second: (&str, &str), inner: u32| {
            let (first, second) = (
                types.offset(first.0, first.1)?,
                types.offset(second.0, second.1)?,
            );
            (second + inner).checked_sub(first)
        };
        let name = types.offset("qstr", "name").unwrap_or_default();
        for (first, second, inner, bytes) in [
            (("dentry", "d_parent"), ("dentry", "d_name"), name, 16),
            (("mount", "mnt_parent"), ("mount", "mnt_mountpoint"), 0, 8),
        ] {
            if apart(first, second, inner) != Some(bytes) {
                let (structure, field) = second;
                self.missing
                    .push((Group::Paths, format!("{structure}.{field} in its place")));
            }
        }
    }

    /// How much a process has in memory: an array of numbers, since 6.2 of counters.
    fn memory_of_a_process(&mut self, types: &KernelTypes) {
        let found = || {
            let array = types.offset("mm_struct", "rss_stat")?;
            let (count, stride) = match types.offset("mm_rss_stat", "count") {
                Some(count) => (count, 8),
                None => (
                    types.offset("percpu_counter", "count")?,
                    types.size("percpu_counter")?,
                ),
            };
            Some([
                ("HAS_MM_RSS", 1),
                ("OFF_MM_TOTAL_VM", types.offset("mm_struct", "total_vm")?),
                ("OFF_MM_RSS", array + count),
                ("MM_RSS_STRIDE", stride),
            ])
        };
        self.globals.extend(found().into_iter().flatten());
    }

    /// Where a call's registers are on the stack, on a kernel without `bpf_task_pt_regs` (5.15).
    #[cfg(target_arch = "x86_64")]
    fn registers_on_stack(&mut self, types: &KernelTypes) {
        /// <https://github.com/torvalds/linux/blob/v5.10/arch/x86/include/asm/page_64_types.h>;
        /// nothing lies above the registers before FRED (6.9).
        const THREAD_SIZE: u32 = 4 << 12;
        let helper = types.enumerator("bpf_func_id", "BPF_FUNC_task_pt_regs");
        let stack = types.offset("task_struct", "stack");
        let size = types.size("pt_regs");
        if let (None, Some(stack), Some(size)) = (helper, stack, size) {
            self.globals.insert("OFF_TASK_STACK", stack);
            self.globals
                .insert("OFF_REGS_ON_STACK", THREAD_SIZE.saturating_sub(size));
        }
    }

    /// Elsewhere what needs it is refused.
    #[cfg(not(target_arch = "x86_64"))]
    fn registers_on_stack(&mut self, _types: &KernelTypes) {}

    /// What has had several names.
    fn renamed(&mut self, types: &KernelTypes) {
        // <https://github.com/torvalds/linux/commit/3aa63a569c64>; a `timespec64` before it.
        let seconds = ["i_ctime_sec", "__i_ctime", "i_ctime"];
        let seconds = seconds.iter().find_map(|name| types.offset("inode", name));
        let nanoseconds = types
            .offset("inode", "i_ctime_nsec")
            .or_else(|| Some(seconds? + types.offset("timespec64", "tv_nsec")?));
        // Since 6.15 it is read under RCU alone.
        let parent = ["__parent", "parent"];
        let parent = parent
            .iter()
            .find_map(|name| types.offset("kernfs_node", name));
        for (global, group, offset, path) in [
            ("OFF_INODE_CTIME", Group::Process, seconds, "inode.i_ctime"),
            (
                "OFF_INODE_CTIME_NSEC",
                Group::Process,
                nanoseconds,
                "inode.i_ctime",
            ),
            ("OFF_KN_PARENT", Group::Files, parent, "kernfs_node.parent"),
        ] {
            match offset {
                Some(offset) => drop(self.globals.insert(global, offset)),
                None => self.missing.push((group, path.to_owned())),
            }
        }
    }

    /// What a kernel may lack without loss.
    fn optional(&mut self, types: &KernelTypes, page_size: u32) {
        if let Some(offset) = types.offset("mem_cgroup", "oom_lock") {
            self.globals.insert("HAS_OOM_LOCK", 1);
            self.globals.insert("OFF_MEMCG_OOM_LOCK", offset);
        }
        if let Some(offset) = types.offset("mem_cgroup", "oom_group") {
            self.globals.insert("HAS_OOM_GROUP", 1);
            self.globals.insert("OFF_MEMCG_OOM_GROUP", offset);
        }
        if types.offset("pid_namespace", "pid_max").is_some() {
            self.globals.insert("HAS_PID_MAX", 1);
        }
        self.memory_of_a_process(types);
        self.registers_on_stack(types);
        for (global, field) in OOM_CONTROL {
            let offset = types.offset("oom_control", field);
            self.globals.extend(offset.map(|offset| (global, offset)));
        }
        let exit = types.tracepoint("sched_process_exit");
        self.globals.insert(
            "HAS_GROUP_DEAD_ARG",
            u32::from(exit.is_some_and(|passed| passed.len() > 1)),
        );
        self.globals.insert("PAGE_SIZE", page_size);
        let helper = types.enumerator("bpf_func_id", "BPF_FUNC_get_current_task_btf");
        self.globals
            .insert("HAS_TYPED_TASK", u32::from(helper.is_some()));
        self.globals.extend(v1_controllers());
    }
}

fn display(path: &[(&str, &str)]) -> String {
    let fields: Vec<_> = path
        .iter()
        .map(|(structure, field)| format!("{structure}.{field}"))
        .collect();
    fields.join(" or ")
}
