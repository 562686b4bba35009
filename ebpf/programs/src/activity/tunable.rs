//! Parameters of the kernel: whose a file below /proc/sys or in sysfs is.

use paddock_abi::namespace::{NS_TYPES, NsType, Target};

use crate::{
    maps::STATE,
    offsets::*,
    read::pointer,
    task::{self, namespaces, own_namespaces},
    word::{kernel_word, word},
};

const PREFIX: u128 = word(b"\xff\xff\xff");

/// Whose a file below /proc/sys is, by what procfs knows of its inode; nothing where it is none.
///
/// A namespace that the task shares with the host has the host's.
#[inline(always)]
pub(super) fn sysctl(of_procfs: u64, name: u128) -> Option<Target> {
    let header = pointer(of_procfs, &OFF_PROC_INODE_SYSCTL);
    if header == 0 {
        return None;
    }
    let own = differing(STATE.get(0)?.host, own_namespaces());
    Some(whose(own, holder(pointer(header, &OFF_SYSCTL_SET), name)))
}

/// The same where there is no inode: by the beginning of its path below /proc/sys, and its name.
#[inline(always)]
pub(crate) fn by_name(task: u64, path: u128, name: u128) -> Target {
    const NET: u128 = word(b"net/");
    const USER: u128 = word(b"user/");
    const KERNEL: u128 = word(b"kernel/");
    /// POSIX message queues.
    const QUEUES: u128 = word(b"fs/mqueue/");
    let Some(state) = STATE.get(0) else {
        return Target::Host;
    };
    let below = |directory: u128| path & mask(directory) == directory;
    let holder = if below(NET) {
        NsType::Net.bit()
    } else if below(USER) {
        NsType::User.bit()
    } else if below(QUEUES) {
        NsType::Ipc.bit()
    } else if below(KERNEL) {
        named(name, HAS_PID_MAX.load() != 0)
    } else {
        0
    };
    whose(differing(state.host, namespaces(task)), holder)
}

/// The bytes that a word has.
const fn mask(word: u128) -> u128 {
    u128::MAX >> (word.leading_zeros() / u8::BITS * u8::BITS)
}

#[inline(always)]
fn whose(own: u32, holder: u32) -> Target {
    if own & holder == 0 {
        Target::Host
    } else {
        Target::Own
    }
}

/// The bit of the namespace type that holds a parameter; 0 is the kernel.
///
/// Tables that namespaces have of their own are told by a question that only theirs answer. Some
/// are one table for all, and who reads or writes tells which value is meant: by their names.
#[inline(always)]
fn holder(set: u64, name: u128) -> u32 {
    let of_a_namespace = pointer(set, &OFF_SYSCTL_IS_SEEN) != 0;
    if of_a_namespace {
        let proxy = pointer(task::current(), &OFF_TASK_NSPROXY);
        let network = pointer(proxy, &OFF_NSPROXY_NET);
        if set == network.wrapping_add(u64::from(OFF_NET_SYSCTLS.load())) {
            return NsType::Net.bit();
        }
    }
    let named = named(name, of_a_namespace);
    if named == 0 && of_a_namespace {
        NsType::User.bit()
    } else {
        named
    }
}

/// By its name; `pid_max` where namespaces have one of their own.
#[inline(always)]
fn named(name: u128, pid_max: bool) -> u32 {
    if name == word(b"hostname") || name == word(b"domainname") {
        return NsType::Uts.bit();
    }
    let prefix = name & PREFIX;
    if prefix == word(b"shm")
        || prefix == word(b"msg")
        || name == word(b"sem")
        || name == word(b"sem_next_id")
        || name == word(b"auto_msgmni")
        || name == word(b"queues_max")
    {
        return NsType::Ipc.bit();
    }
    if name == word(b"ns_last_pid") || (pid_max && name == word(b"pid_max")) {
        NsType::Pid.bit()
    } else {
        0
    }
}

/// The types of which the task has another one than the host.
#[inline(always)]
fn differing(host: [u32; NS_TYPES], own: [u32; NS_TYPES]) -> u32 {
    let mut types = 0;
    for index in 0..NS_TYPES {
        // 1 where they differ; without a branch, which the verifier would follow both ways.
        let difference = u64::from(host[index] ^ own[index]);
        types |= ((difference.wrapping_neg() >> 63) as u32) << index;
    }
    types
}

/// Whether a file of sysfs lies below /sys/kernel or /sys/module. Network devices are a
/// namespace's own there, these are nobody's.
#[inline(always)]
pub(super) fn of_the_kernel(dentry: u64) -> bool {
    const DEEPEST: u32 = 8;
    let mut below = dentry;
    let mut directory = pointer(below, &OFF_DENTRY_PARENT);
    for _ in 0..DEEPEST {
        let above = pointer(directory, &OFF_DENTRY_PARENT);
        // The root is its own parent.
        if above == directory {
            break;
        }
        below = directory;
        directory = above;
    }
    let top = kernel_word(pointer(below, &OFF_DENTRY_NAME));
    top == word(b"kernel") || top == word(b"module")
}
