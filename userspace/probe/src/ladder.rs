//! Which hooks can serve each capability, best rung first.
//!
//! A rung serves when every hook of it loads and attaches; deciding is trying (`load`).

mod wanted;

pub(crate) use self::wanted::{ENFORCE, GUARD, PATHS, QUESTION, QUESTION_PROGRAM};
use crate::{hook::Hook, offsets::Group};

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
                    ("kretprobe_setns", Hook::ReturnBeside("setns")),
                    ("kprobe_setns", Hook::EntryBeside("setns")),
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
                    ("kretprobe_unshare", Hook::ReturnBeside("unshare")),
                    ("kprobe_unshare", Hook::EntryBeside("unshare")),
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
                name: "fentry",
                hooks: &[
                    (
                        "fexit_oom_kill_process",
                        Hook::FexitFunction("oom_kill_process"),
                    ),
                    (
                        "fentry_oom_kill_process",
                        Hook::FentryFunction("oom_kill_process"),
                    ),
                    (
                        "fentry_mark_oom_victim",
                        Hook::FentryFunction("mark_oom_victim"),
                    ),
                ],
            },
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
        needs: &[
            Group::Identity,
            Group::Namespaces,
            Group::Descriptors,
            Group::Mounts,
            Group::Process,
        ],
        rungs: &[Rung {
            name: "btf_tracepoint",
            hooks: &[
                ("btf_sched_process_fork", Hook::Btf("sched_process_fork")),
                ("btf_sched_process_exec", Hook::Btf("sched_process_exec")),
                (
                    "kprobe_wake_up_new_task",
                    Hook::ProbeBeside("wake_up_new_task"),
                ),
                (
                    "kprobe_bprm_committed_creds",
                    Hook::ProbeBeside("security_bprm_committed_creds"),
                ),
            ],
        }],
    },
    Capability {
        name: "exit",
        observed: 6,
        needs: &[Group::Identity, Group::Process],
        rungs: &[Rung {
            name: "btf_tracepoint",
            hooks: &[
                ("btf_sched_process_exit", Hook::Btf("sched_process_exit")),
                ("kprobe_taskstats_exit", Hook::ProbeBeside("taskstats_exit")),
            ],
        }],
    },
    Capability {
        name: "mount",
        observed: 7,
        needs: &[
            Group::Identity,
            Group::Namespaces,
            Group::Descriptors,
            Group::Mounts,
        ],
        rungs: &[
            Rung {
                name: "fentry",
                hooks: &[
                    ("fexit_mount", Hook::FexitIfThere("mount")),
                    ("fexit_move_mount", Hook::FexitIfThere("move_mount")),
                    ("fexit_open_tree", Hook::FexitIfThere("open_tree")),
                    ("fexit_fsopen", Hook::FexitIfThere("fsopen")),
                    ("fexit_pivot_root", Hook::FexitIfThere("pivot_root")),
                    ("fexit_chroot", Hook::FexitIfThere("chroot")),
                    ("fexit_chdir", Hook::FexitIfThere("chdir")),
                    ("fexit_fchdir", Hook::FexitIfThere("fchdir")),
                ],
            },
            Rung {
                name: "tracepoint",
                hooks: &[
                    ("sys_exit_mount", Hook::ExitIfThere("sys_exit_mount")),
                    (
                        "sys_exit_move_mount",
                        Hook::ExitIfThere("sys_exit_move_mount"),
                    ),
                    (
                        "sys_exit_open_tree",
                        Hook::ExitIfThere("sys_exit_open_tree"),
                    ),
                    ("sys_exit_fsopen", Hook::ExitIfThere("sys_exit_fsopen")),
                    (
                        "sys_exit_pivot_root",
                        Hook::ExitIfThere("sys_exit_pivot_root"),
                    ),
                    ("sys_exit_chroot", Hook::ExitIfThere("sys_exit_chroot")),
                    ("sys_exit_chdir", Hook::ExitIfThere("sys_exit_chdir")),
                    ("sys_exit_fchdir", Hook::ExitIfThere("sys_exit_fchdir")),
                ],
            },
        ],
    },
    Capability {
        name: "process",
        observed: 8,
        needs: &[
            Group::Identity,
            Group::Namespaces,
            Group::Descriptors,
            Group::Processes,
        ],
        rungs: &[
            Rung {
                name: "fentry",
                hooks: &[
                    ("fexit_ptrace", Hook::FexitIfThere("ptrace")),
                    (
                        "fexit_process_vm_readv",
                        Hook::FexitIfThere("process_vm_readv"),
                    ),
                    (
                        "fexit_process_vm_writev",
                        Hook::FexitIfThere("process_vm_writev"),
                    ),
                    ("fexit_pidfd_getfd", Hook::FexitIfThere("pidfd_getfd")),
                ],
            },
            Rung {
                name: "tracepoint",
                hooks: &[
                    ("sys_exit_ptrace", Hook::ExitIfThere("sys_exit_ptrace")),
                    (
                        "sys_exit_process_vm_readv",
                        Hook::ExitIfThere("sys_exit_process_vm_readv"),
                    ),
                    (
                        "sys_exit_process_vm_writev",
                        Hook::ExitIfThere("sys_exit_process_vm_writev"),
                    ),
                    (
                        "sys_exit_pidfd_getfd",
                        Hook::ExitIfThere("sys_exit_pidfd_getfd"),
                    ),
                ],
            },
        ],
    },
    // Its hook has no self-test: a signal of the loader's to itself would be its own.
    Capability {
        name: "signal",
        observed: 12,
        needs: &[Group::Identity, Group::Namespaces, Group::Signals],
        rungs: &[Rung {
            name: "btf_tracepoint",
            hooks: &[("btf_signal_generate", Hook::Btf("signal_generate"))],
        }],
    },
    // Its hook only remembers what the one of exec compares with.
    Capability {
        name: "privilege",
        observed: 13,
        needs: &[Group::Identity, Group::Process],
        rungs: &[
            Rung {
                name: "fentry",
                hooks: &[
                    (
                        "fentry_begin_new_exec",
                        Hook::FentryFunction("begin_new_exec"),
                    ),
                    ("kprobe_begin_new_exec", Hook::ProbeBeside("begin_new_exec")),
                ],
            },
            Rung {
                name: "btf_tracepoint",
                hooks: &[("btf_sched_prepare_exec", Hook::Btf("sched_prepare_exec"))],
            },
        ],
    },
    Capability {
        name: "kernel",
        observed: 9,
        needs: &[
            Group::Identity,
            Group::Namespaces,
            Group::Descriptors,
            Group::Processes,
        ],
        rungs: &[
            Rung {
                name: "fentry",
                hooks: &[
                    ("fexit_bpf", Hook::FexitIfThere("bpf")),
                    ("fexit_init_module", Hook::FexitIfThere("init_module")),
                    ("fexit_finit_module", Hook::FexitIfThere("finit_module")),
                    ("fexit_delete_module", Hook::FexitIfThere("delete_module")),
                    ("fexit_kexec_load", Hook::FexitIfThere("kexec_load")),
                    (
                        "fexit_kexec_file_load",
                        Hook::FexitIfThere("kexec_file_load"),
                    ),
                    (
                        "fexit_perf_event_open",
                        Hook::FexitIfThere("perf_event_open"),
                    ),
                    ("fexit_io_uring_setup", Hook::FexitIfThere("io_uring_setup")),
                    ("fexit_keyctl", Hook::FexitIfThere("keyctl")),
                    ("fexit_add_key", Hook::FexitIfThere("add_key")),
                    ("fexit_request_key", Hook::FexitIfThere("request_key")),
                    ("fexit_userfaultfd", Hook::FexitIfThere("userfaultfd")),
                    ("fexit_iopl", Hook::FexitIfThere("iopl")),
                    ("fexit_ioperm", Hook::FexitIfThere("ioperm")),
                ],
            },
            Rung {
                name: "tracepoint",
                hooks: &[
                    ("sys_exit_bpf", Hook::ExitIfThere("sys_exit_bpf")),
                    (
                        "sys_exit_init_module",
                        Hook::ExitIfThere("sys_exit_init_module"),
                    ),
                    (
                        "sys_exit_finit_module",
                        Hook::ExitIfThere("sys_exit_finit_module"),
                    ),
                    (
                        "sys_exit_delete_module",
                        Hook::ExitIfThere("sys_exit_delete_module"),
                    ),
                    (
                        "sys_exit_kexec_load",
                        Hook::ExitIfThere("sys_exit_kexec_load"),
                    ),
                    (
                        "sys_exit_kexec_file_load",
                        Hook::ExitIfThere("sys_exit_kexec_file_load"),
                    ),
                    (
                        "sys_exit_perf_event_open",
                        Hook::ExitIfThere("sys_exit_perf_event_open"),
                    ),
                    (
                        "sys_exit_io_uring_setup",
                        Hook::ExitIfThere("sys_exit_io_uring_setup"),
                    ),
                    ("sys_exit_keyctl", Hook::ExitIfThere("sys_exit_keyctl")),
                    ("sys_exit_add_key", Hook::ExitIfThere("sys_exit_add_key")),
                    (
                        "sys_exit_request_key",
                        Hook::ExitIfThere("sys_exit_request_key"),
                    ),
                    (
                        "sys_exit_userfaultfd",
                        Hook::ExitIfThere("sys_exit_userfaultfd"),
                    ),
                    ("sys_exit_iopl", Hook::ExitIfThere("sys_exit_iopl")),
                    ("sys_exit_ioperm", Hook::ExitIfThere("sys_exit_ioperm")),
                ],
            },
        ],
    },
    Capability {
        name: "open",
        observed: 10,
        needs: &[
            Group::Identity,
            Group::Namespaces,
            Group::Descriptors,
            Group::Mounts,
            Group::Files,
        ],
        rungs: &[
            Rung {
                name: "fentry",
                hooks: &[
                    (
                        "fexit_security_file_open",
                        Hook::FexitFunction("security_file_open"),
                    ),
                    ("fexit_mknod", Hook::FexitIfThere("mknod")),
                    ("fexit_mknodat", Hook::FexitIfThere("mknodat")),
                    (
                        "fexit_open_by_handle_at",
                        Hook::FexitIfThere("open_by_handle_at"),
                    ),
                ],
            },
            Rung {
                name: "tracepoint",
                hooks: &[
                    ("sys_exit_open", Hook::ExitIfThere("sys_exit_open")),
                    ("sys_exit_openat", Hook::ExitIfThere("sys_exit_openat")),
                    ("sys_exit_openat2", Hook::ExitIfThere("sys_exit_openat2")),
                    ("sys_exit_creat", Hook::ExitIfThere("sys_exit_creat")),
                    ("sys_exit_mknod", Hook::ExitIfThere("sys_exit_mknod")),
                    ("sys_exit_mknodat", Hook::ExitIfThere("sys_exit_mknodat")),
                    (
                        "sys_exit_open_by_handle_at",
                        Hook::ExitIfThere("sys_exit_open_by_handle_at"),
                    ),
                ],
            },
        ],
    },
    Capability {
        name: "connect",
        observed: 11,
        needs: &[
            Group::Identity,
            Group::Descriptors,
            Group::Mounts,
            Group::Sockets,
        ],
        rungs: &[
            Rung {
                name: "fentry",
                hooks: &[("fexit_connect", Hook::FexitIfThere("connect"))],
            },
            Rung {
                name: "tracepoint",
                hooks: &[("sys_exit_connect", Hook::ExitIfThere("sys_exit_connect"))],
            },
        ],
    },
    GUARD,
    ENFORCE,
    PATHS,
    QUESTION,
    // Whom policy lets containers talk to: asked at the root of the v2 hierarchy.
    Capability {
        name: "network",
        observed: 15,
        needs: &[Group::Identity, Group::Process],
        rungs: &[Rung {
            name: "cgroup",
            hooks: &[
                ("cgroup_connect4", Hook::SockAddr),
                ("cgroup_connect6", Hook::SockAddr),
                ("cgroup_sendmsg4", Hook::SockAddr),
                ("cgroup_sendmsg6", Hook::SockAddr),
            ],
        }],
    },
    // What policy lets them do to devices, likewise.
    Capability {
        name: "device",
        observed: 17,
        needs: &[Group::Identity, Group::Namespaces, Group::Process],
        rungs: &[Rung {
            name: "cgroup",
            hooks: &[("cgroup_device", Hook::Device)],
        }],
    },
    // Which parameters of the kernel they write, likewise.
    Capability {
        name: "sysctl",
        observed: 21,
        needs: &[Group::Identity, Group::Namespaces, Group::Process],
        rungs: &[Rung {
            name: "cgroup",
            hooks: &[("cgroup_sysctl", Hook::Sysctl)],
        }],
    },
    // How much the network carries for them, likewise.
    Capability {
        name: "traffic",
        observed: 20,
        needs: &[],
        rungs: &[Rung {
            name: "cgroup",
            hooks: &[
                ("cgroup_ingress", Hook::Ingress),
                ("cgroup_egress", Hook::Egress),
            ],
        }],
    },
];
