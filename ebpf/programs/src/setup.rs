//! Who sets a container up, told by where a process comes from, not by its name.
//!
//! A process that somebody outside of all containers puts into a container's cgroup, or forks
//! into it, is the runtime's or the operator's doing until it executes a program there; so is
//! the one that joins a cgroup in which nothing has run yet. Nobody within a container can give
//! the mark. Runtimes execute themselves again on the way, from a file without a name (a memfd),
//! from their own by a descriptor (runc's bind mount of itself), once as /proc/self/exe or, forked
//! into the cgroup, by name: that does not end it while they are among the mounts of who brought
//! them, which are the host's or, of a runtime that systemd or a snap gave its own, that one's. A
//! program of many names, such as busybox, executes its other names by name.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use paddock_abi::{key::SetUp, namespace::NsType};

use crate::{
    maps::{EXEMPT, FRESH, NS_OWNER, STATE},
    offsets::*,
    read::{field, pointer},
    task::{self, identity, namespaces, own_identity},
    word::{kernel_word, word},
};

/// How the next exec may name the same program and keep the mark; 0 is by a descriptor alone.
const BY_NAME: u32 = 1;
const AS_ITSELF: u32 = 2;

const MNT: usize = NsType::Mnt as usize;

/// `moved` has just been put into a cgroup of `slot`.
#[inline(always)]
pub(crate) fn attached(moved: u64, slot: u32) {
    let tgid: u32 = field(moved, &OFF_TASK_TGID);
    let by_itself = (bpf_get_current_pid_tgid() >> 32) as u32 == tgid;
    let from_outside = if by_itself {
        // Where it was before is not to be seen any more.
        is_fresh(slot)
    } else {
        outside()
    };
    if from_outside && !has_a_container(moved) {
        // runc's child may be moved before it starts as runc anew; busybox' shell, which starts
        // its other names so, joins by itself.
        let (mounts, once) = if by_itself {
            (host_mounts(), 0)
        } else {
            (mounts_outside(), AS_ITSELF)
        };
        mark(tgid, program(moved), mounts, once);
    }
}

/// `child`, a process, was forked by the current task, perhaps into another cgroup.
#[inline(always)]
pub(crate) fn forked(child: u64, tgid: u32) {
    let task = task::current();
    if pointer(task, &OFF_TASK_CGROUPS) == pointer(child, &OFF_TASK_CGROUPS) {
        return;
    }
    if identity(child).slot != 0 && outside() {
        mark(tgid, program(task), mounts_outside(), BY_NAME);
    }
}

/// Whether the current task is of no container.
#[inline(always)]
pub(crate) fn outside() -> bool {
    is_outside(own_identity().slot, task::current())
}

/// Whether a task of cgroups of `slot` is of no container. A cgroup that nobody has named yet may
/// turn out to be one of the host's, such as podman's for conmon: it is taken for that while the
/// task is among the host's mounts, where no container's processes are but those of systemd's units.
#[inline(always)]
pub(crate) fn is_outside(slot: u32, task: u64) -> bool {
    slot == 0 || (task::settled(slot) == 0 && among_host_mounts(task))
}

#[inline(always)]
fn among_host_mounts(task: u64) -> bool {
    let host = host_mounts();
    host != 0 && namespaces(task)[MNT] == host
}

#[inline(always)]
fn host_mounts() -> u32 {
    STATE.get(0).map_or(0, |state| state.host[MNT])
}

/// The mount namespace of the current task, who is of no container; the host's where it has gone
/// into a container's, as an operator's nsenter has.
#[inline(always)]
fn mounts_outside() -> u32 {
    let mounts = namespaces(task::current())[MNT];
    if is_a_containers(mounts) {
        host_mounts()
    } else {
        mounts
    }
}

/// Whether the mark outlives the program that `binprm` says.
#[inline(always)]
pub(crate) fn goes_on(tgid: u32, task: u64, binprm: u64) -> bool {
    let Some(mark) = EXEMPT.get_ptr_mut(tgid) else {
        return false;
    };
    // SAFETY: a live entry; only this process, in an exec, changes it.
    let mark = unsafe { &mut *mark };
    let file = pointer(binprm, &OFF_BINPRM_FILE);
    let links: u32 = field(pointer(file, &OFF_FILE_INODE), &OFF_INODE_NLINK);
    let by_descriptor = pointer(binprm, &OFF_BINPRM_FDPATH) != 0;
    let itself = kernel_word(pointer(binprm, &OFF_BINPRM_FILENAME)) == word(b"/proc/self/exe");
    let again = mark.own != 0
        && mark.own == inode_number(file)
        && (by_descriptor || mark.once == BY_NAME || (mark.once == AS_ITSELF && itself));
    mark.once = 0;
    mark.mounts != 0 && mark.mounts == namespaces(task)[MNT] && file != 0 && (links == 0 || again)
}

/// Whether no program has run in it since its birth outside of all containers.
#[inline(always)]
pub(crate) fn is_fresh(slot: u32) -> bool {
    FRESH.get(slot).is_some_and(|fresh| *fresh != 0)
}

/// A program runs in the slot: what joins by itself from now on is not setting it up.
#[inline(always)]
pub(crate) fn over(slot: u32) {
    if let Some(fresh) = FRESH.get_ptr_mut(slot) {
        // SAFETY: a live array element, one aligned word.
        unsafe { fresh.write_volatile(0) };
    }
}

#[inline(always)]
fn mark(tgid: u32, own: u64, mounts: u32, once: u32) {
    /// `BPF_NOEXIST`: paddock's own have theirs.
    const KEEP: u64 = 1;
    let mark = SetUp { mounts, once, own };
    // Full (8,192 processes): it is judged as one of the container's.
    let _ = EXEMPT.insert(tgid, mark, KEEP);
}

/// Whether the mount namespace is a container's: a process that runs inside is moved, not set up.
#[inline(always)]
fn has_a_container(task: u64) -> bool {
    is_a_containers(namespaces(task)[MNT])
}

#[inline(always)]
fn is_a_containers(mounts: u32) -> bool {
    // SAFETY: only whether there is one.
    unsafe { NS_OWNER.get(mounts) }.is_some()
}

/// Inode number of a process' program.
#[inline(always)]
fn program(task: u64) -> u64 {
    inode_number(pointer(pointer(task, &OFF_TASK_MM), &OFF_MM_EXE_FILE))
}

#[inline(always)]
fn inode_number(file: u64) -> u64 {
    field(pointer(file, &OFF_FILE_INODE), &OFF_INODE_NUMBER)
}
