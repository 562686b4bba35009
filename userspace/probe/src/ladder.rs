//! Which hooks can serve each capability, best rung first.
//!
//! A rung serves when every hook of it loads and attaches; deciding is trying (`load`).

use crate::{kernel_types::KernelTypes, offsets::Group};

/// How a program hangs in the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    /// The body of a syscall, native entry.
    Fentry(&'static str),
    Fexit(&'static str),
    /// The 32-bit entry's body; left out where the kernel has none.
    FentryCompat(&'static str),
    FexitCompat(&'static str),
    Btf(&'static str),
    Tracepoint(&'static str, &'static str),
}

pub(crate) struct Rung {
    pub(crate) name: &'static str,
    /// Program and hook.
    pub(crate) hooks: &'static [(&'static str, Hook)],
}

pub(crate) struct Capability {
    pub(crate) name: &'static str,
    /// Place in the self-test's observations.
    pub(crate) observed: u32,
    pub(crate) needs: &'static [Group],
    pub(crate) rungs: &'static [Rung],
}

pub(crate) const LADDER: &[Capability] = &[
    Capability {
        name: "setns",
        observed: 0,
        needs: &[Group::Identity, Group::Namespaces, Group::Descriptors],
        rungs: &[
            Rung {
                name: "fentry",
                hooks: &[
                    ("fexit_setns", Hook::Fexit("setns")),
                    ("fentry_setns", Hook::Fentry("setns")),
                    ("fexit_setns_compat", Hook::FexitCompat("setns")),
                    ("fentry_setns_compat", Hook::FentryCompat("setns")),
                ],
            },
            Rung {
                name: "tracepoint",
                hooks: &[
                    (
                        "sys_exit_setns",
                        Hook::Tracepoint("syscalls", "sys_exit_setns"),
                    ),
                    (
                        "sys_enter_setns",
                        Hook::Tracepoint("syscalls", "sys_enter_setns"),
                    ),
                ],
            },
        ],
    },
    Capability {
        name: "unshare",
        observed: 1,
        needs: &[Group::Identity, Group::Namespaces],
        rungs: &[
            Rung {
                name: "fentry",
                hooks: &[
                    ("fexit_unshare", Hook::Fexit("unshare")),
                    ("fentry_unshare", Hook::Fentry("unshare")),
                    ("fexit_unshare_compat", Hook::FexitCompat("unshare")),
                    ("fentry_unshare_compat", Hook::FentryCompat("unshare")),
                ],
            },
            Rung {
                name: "tracepoint",
                hooks: &[
                    (
                        "sys_exit_unshare",
                        Hook::Tracepoint("syscalls", "sys_exit_unshare"),
                    ),
                    (
                        "sys_enter_unshare",
                        Hook::Tracepoint("syscalls", "sys_enter_unshare"),
                    ),
                ],
            },
        ],
    },
    Capability {
        name: "clone",
        observed: 2,
        needs: &[Group::Identity, Group::Namespaces],
        rungs: &[
            Rung {
                name: "btf_tracepoint",
                hooks: &[("btf_task_newtask", Hook::Btf("task_newtask"))],
            },
            Rung {
                name: "tracepoint",
                hooks: &[("tp_task_newtask", Hook::Tracepoint("task", "task_newtask"))],
            },
        ],
    },
    Capability {
        name: "oom",
        observed: 3,
        needs: &[Group::Identity, Group::Memory],
        rungs: &[
            Rung {
                name: "btf_tracepoint",
                hooks: &[("btf_mark_victim", Hook::Btf("mark_victim"))],
            },
            Rung {
                name: "tracepoint",
                hooks: &[("tp_mark_victim", Hook::Tracepoint("oom", "mark_victim"))],
            },
        ],
    },
    Capability {
        name: "cgroup",
        observed: 4,
        needs: &[Group::Identity],
        rungs: &[Rung {
            name: "btf_tracepoint",
            hooks: &[
                ("btf_cgroup_rmdir", Hook::Btf("cgroup_rmdir")),
                ("btf_cgroup_mkdir", Hook::Btf("cgroup_mkdir")),
                ("btf_cgroup_attach_task", Hook::Btf("cgroup_attach_task")),
            ],
        }],
    },
    // fork comes with exec: it hands on the mark that exec drops.
    Capability {
        name: "exec",
        observed: 5,
        needs: &[Group::Identity, Group::Namespaces, Group::Process],
        rungs: &[Rung {
            name: "btf_tracepoint",
            hooks: &[
                ("btf_sched_process_fork", Hook::Btf("sched_process_fork")),
                ("btf_sched_process_exec", Hook::Btf("sched_process_exec")),
            ],
        }],
    },
    Capability {
        name: "exit",
        observed: 6,
        needs: &[Group::Identity, Group::Process],
        rungs: &[Rung {
            name: "btf_tracepoint",
            hooks: &[("btf_sched_process_exit", Hook::Btf("sched_process_exit"))],
        }],
    },
];

#[cfg(target_arch = "x86_64")]
const NATIVE: &str = "__x64_sys_";
#[cfg(target_arch = "aarch64")]
const NATIVE: &str = "__arm64_sys_";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE: &str = "__se_sys_";
const COMPAT: &str = "__ia32_sys_";

impl Hook {
    /// The kernel function of a syscall hook.
    pub(crate) fn function(self) -> Option<String> {
        match self {
            Self::Fentry(call) | Self::Fexit(call) => Some(format!("{NATIVE}{call}")),
            Self::FentryCompat(call) | Self::FexitCompat(call) => Some(format!("{COMPAT}{call}")),
            Self::Btf(_) | Self::Tracepoint(..) => None,
        }
    }

    pub(crate) fn is_syscall_exit(self) -> bool {
        matches!(self, Self::Tracepoint("syscalls", name) if name.starts_with("sys_exit_"))
    }

    /// Whether a kernel may lack the hook without the rung failing.
    pub(crate) fn left_out(self, types: &KernelTypes) -> bool {
        matches!(self, Self::FentryCompat(_) | Self::FexitCompat(_))
            && !self
                .function()
                .is_some_and(|name| types.has_function(&name))
    }

    /// What the kernel's types already say against the hook.
    pub(crate) fn objection(self, types: &KernelTypes) -> Option<String> {
        let Self::Btf(name) = self else { return None };
        let Some(passed) = types.tracepoint(name) else {
            return Some(format!("the kernel has no tracepoint {name}"));
        };
        // A pid on older kernels; the victim's task is what this rung is for.
        (name == "mark_victim" && passed.first().is_none_or(|first| first != "task_struct"))
            .then(|| "mark_victim passes a pid, not a task, on this kernel".to_owned())
    }
}
