//! The calling conventions a filter can tell apart, and their syscalls' numbers.
//!
//! The numbers are the `syscalls` crate's, generated from the kernel's tables. It lacks two
//! short and frozen lists, which are here: x32's own numbers (`syscall_64.tbl`: "do not add new
//! entries") and arm's private calls.

use std::{collections::HashMap, sync::LazyLock};

use serde::{Deserialize, Serialize};
use syscalls::{aarch64, arm, x86, x86_64};

/// Linux's on the machines that paddock is built for, and their 32-bit companions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arch {
    X86_64,
    X86,
    /// x86_64's pointers cut to 32 bits: same audit number, syscall numbers with [`X32_BIT`].
    X32,
    Aarch64,
    Arm,
}

/// `__X32_SYSCALL_BIT`.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// `__ARM_NR_BASE`: from here on the numbers are arm's own.
pub(crate) const ARM_PRIVATE: u32 = 0x000f_0000;

type Table = HashMap<&'static str, u32>;

impl Arch {
    pub(crate) const ALL: [Self; 5] =
        [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm];

    /// This program's own; `None` on a machine that paddock has no tables for.
    pub const fn native() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else if cfg!(target_arch = "x86") {
            Some(Self::X86)
        } else if cfg!(target_arch = "arm") {
            Some(Self::Arm)
        } else {
            None
        }
    }

    /// What a kernel for this one can run.
    pub(crate) const fn family(self) -> &'static [Self] {
        match self {
            Self::X86_64 | Self::X32 => &[Self::X86_64, Self::X86, Self::X32],
            Self::Aarch64 => &[Self::Aarch64, Self::Arm],
            Self::X86 => &[Self::X86],
            Self::Arm => &[Self::Arm],
        }
    }

    /// As `includes` and `excludes` of Docker's profiles say it.
    pub(crate) const fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// `AUDIT_ARCH_*` of linux/audit.h: ELF machine, 64 bits, little endian.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The number that the kernel sees, x32's with its bit.
    pub fn number(self, name: &str) -> Option<u32> {
        self.table().get(name).copied()
    }

    /// Every name with its number, in no order.
    pub fn syscalls(self) -> impl Iterator<Item = (&'static str, u32)> {
        self.table().iter().map(|(name, number)| (*name, *number))
    }

    fn table(self) -> &'static Table {
        static X86_64: LazyLock<Table> =
            LazyLock::new(|| table(x86_64::Sysno::last().id(), x86_64_name));
        static X86: LazyLock<Table> = LazyLock::new(|| {
            table(x86::Sysno::last().id(), |id| {
                Some(x86::Sysno::new(id)?.name())
            })
        });
        static X32: LazyLock<Table> = LazyLock::new(x32);
        static AARCH64: LazyLock<Table> = LazyLock::new(|| {
            table(aarch64::Sysno::last().id(), |id| {
                Some(aarch64::Sysno::new(id)?.name())
            })
        });
        static ARM: LazyLock<Table> = LazyLock::new(|| {
            let mut table = table(arm::Sysno::last().id(), |id| {
                Some(arm::Sysno::new(id)?.name())
            });
            let private = |(name, number)| (name, ARM_PRIVATE + number);
            table.extend(ARM_ONLY.into_iter().map(private));
            table
        });
        match self {
            Self::X86_64 => &X86_64,
            Self::X86 => &X86,
            Self::X32 => &X32,
            Self::Aarch64 => &AARCH64,
            Self::Arm => &ARM,
        }
    }
}

fn x86_64_name(id: usize) -> Option<&'static str> {
    Some(x86_64::Sysno::new(id)?.name())
}

/// By number: the crate's own iterator leaves out the last one.
fn table(last: i32, name: impl Fn(usize) -> Option<&'static str>) -> Table {
    let last = usize::try_from(last).unwrap_or_default();
    (0..=last)
        .zip(0..)
        .filter_map(|(id, number)| Some((name(id)?, number)))
        .collect()
}

fn x32() -> Table {
    let common = table(x86_64::Sysno::last().id(), x86_64_name);
    common
        .into_iter()
        .filter(|(name, _)| !NOT_X32.contains(name))
        .chain(X32_OWN.into_iter().zip(512..))
        .map(|(name, number)| (name, X32_BIT | number))
        .collect()
}

/// From 512 on, in order.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// In x86_64's table marked as 64-bit only, beside those above, which replace theirs.
const NOT_X32: [&str; 14] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "map_shadow_stack",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uprobe",
    "uretprobe",
    "uselib",
    "vserver",
];

/// Counted from [`ARM_PRIVATE`].
const ARM_ONLY: [(&str, u32); 5] = [
    ("breakpoint", 1),
    ("cacheflush", 2),
    ("usr26", 3),
    ("usr32", 4),
    ("set_tls", 5),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (arch, name, number) in [
            (Arch::X86_64, "read", 0),
            (Arch::X86_64, "file_setattr", 469),
            (Arch::X86_64, "ioctl", 16),
            (Arch::X86, "socket", 359),
            (Arch::X86, "umount", 22),
            (Arch::X32, "read", X32_BIT),
            (Arch::X32, "ioctl", X32_BIT + 514),
            (Arch::X32, "pwritev2", X32_BIT + 547),
            (Arch::Aarch64, "openat", 56),
            (Arch::Arm, "cacheflush", 0xf_0002),
        ] {
            assert_eq!(arch.number(name), Some(number), "{arch:?} {name}");
        }
        assert_eq!(Arch::Aarch64.number("open"), None);
        assert_eq!(Arch::X32.number("uselib"), None);
        assert!(Arch::ALL.iter().all(|arch| arch.syscalls().count() > 300));
    }
}
