//! How a program hangs in the kernel, and what a kernel's types say of that.

use crate::{kernel_types::KernelTypes, offsets::OOM_CONTROL};

/// How a program hangs in the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    /// The body of a syscall, native entry.
    Fentry(&'static str),
    Fexit(&'static str),
    /// The 32-bit entry's body; left out where the kernel has none.
    FentryCompat(&'static str),
    FexitCompat(&'static str),
    /// Any function of the kernel, by its name.
    FentryFunction(&'static str),
    Btf(&'static str),
    Tracepoint(&'static str, &'static str),
    /// A function of the kernel's by its own name.
    FexitFunction(&'static str),
    /// A system call that a kernel may be built without, by its body or by its tracepoint.
    FexitIfThere(&'static str),
    ExitIfThere(&'static str),
    /// A probe of a function, by its name; a kernel may refuse it.
    ProbeBeside(&'static str),
    /// Probes of a syscall's body, likewise.
    EntryBeside(&'static str),
    ReturnBeside(&'static str),
    /// A question that the kernel asks its security modules.
    Lsm(&'static str),
    /// One that older kernels do not ask.
    LsmIfThere(&'static str),
    /// One that takes a structure by its value, where kernels before 5.11 take no program.
    LsmIfTaken(&'static str),
    /// What the kernel asks the cgroups of a socket, by the program's own kind.
    SockAddr,
    /// What goes past the root cgroup's sockets, inwards or outwards.
    Ingress,
    Egress,
    /// Nowhere: whoever wants to know something runs the program by its pin.
    Called,
    /// What it asks them before a device is opened or its node is made.
    Device,
    /// And before a parameter of its own is read or written.
    Sysctl,
}

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
            Self::Fentry(call)
            | Self::Fexit(call)
            | Self::FexitIfThere(call)
            | Self::EntryBeside(call)
            | Self::ReturnBeside(call) => Some(format!("{NATIVE}{call}")),
            Self::FexitFunction(name) | Self::FentryFunction(name) | Self::ProbeBeside(name) => {
                Some(name.to_owned())
            }
            Self::FentryCompat(call) | Self::FexitCompat(call) => Some(format!("{COMPAT}{call}")),
            Self::Lsm(hook) | Self::LsmIfThere(hook) | Self::LsmIfTaken(hook) => {
                Some(format!("bpf_lsm_{hook}"))
            }
            Self::Btf(_)
            | Self::Tracepoint(..)
            | Self::ExitIfThere(_)
            | Self::SockAddr
            | Self::Ingress
            | Self::Egress
            | Self::Called
            | Self::Device
            | Self::Sysctl => None,
        }
    }

    /// The end of a call whose entry has a program, too.
    pub(crate) fn takes_up_what_entry_left(self) -> bool {
        matches!(
            self,
            Self::Tracepoint("syscalls", "sys_exit_setns" | "sys_exit_unshare")
        )
    }

    /// Whether a kernel may lack the hook without the rung failing.
    pub(crate) fn left_out(self, types: &KernelTypes) -> bool {
        matches!(
            self,
            Self::FentryCompat(_)
                | Self::FexitCompat(_)
                | Self::FexitIfThere(_)
                | Self::LsmIfThere(_)
        ) && !self
            .function()
            .is_some_and(|name| types.has_function(&name))
    }

    /// The system call that the rung does without where a kernel is.
    pub(crate) fn optional_call(self) -> Option<&'static str> {
        match self {
            Self::FexitIfThere(call) => Some(call),
            _ => None,
        }
    }

    /// Whether it is for what another hook misses where the kernel preempts itself; no rung needs
    /// it.
    pub(crate) fn is_beside(self) -> bool {
        matches!(
            self,
            Self::EntryBeside(_) | Self::ReturnBeside(_) | Self::ProbeBeside(_)
        )
    }

    /// Whether such an error says that the kernel was built without the call, or takes no program
    /// there: the rung serves without it.
    pub(crate) fn may_lack(self, errno: Option<&str>) -> bool {
        match self {
            Self::ExitIfThere(_) => errno == Some("ENOENT"),
            Self::LsmIfTaken(_) => errno == Some("EINVAL"),
            _ => false,
        }
    }

    /// What the kernel's types already say against the hook.
    pub(crate) fn objection(self, types: &KernelTypes) -> Option<String> {
        if let Self::FentryFunction("oom_kill_process") = self {
            let mut needed = OOM_CONTROL.into_iter();
            return needed
                .find(|(_, field)| types.offset("oom_control", field).is_none())
                .map(|(_, field)| format!("the kernel's types have no oom_control.{field}"));
        }
        let Self::Btf(name) = self else { return None };
        let Some(passed) = types.tracepoint(name) else {
            return Some(format!("the kernel has no tracepoint {name}"));
        };
        // A pid on older kernels; the victim's task is what this rung is for.
        (name == "mark_victim" && passed.first().is_none_or(|first| first != "task_struct"))
            .then(|| "mark_victim passes a pid, not a task, on this kernel".to_owned())
    }
}
