//! A file's names from the root of a mount namespace down.
//!
//! The kernel leads upwards only: the climb keeps where each name is and how long, and the walk
//! reads them from the top as far as anything is said of them. They are kept by processor. Where
//! the kernel takes that from a task in between, another one may have used the room meanwhile:
//! who finds another's mark there in the end begins anew.

use core::arch::asm;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel};
use paddock_abi::{
    path::{NAME_KEYS, NAME_LEN, NameKey, PathNode, RULE_NAMES, both},
    record::PATH_LEN,
};

use crate::{
    maps::{NAME_SEED, NAMES, PATH_NODES},
    offsets::*,
    read::{Reader, Typed, at, pointer},
    task,
};

/// Names that are kept, the topmost of more; a power of two.
const KEPT: usize = 32;
/// Names that are climbed over in the first mount, mounts above it, and names in each of them.
const FIRST_NAMES: usize = 96;
const MOUNTS: usize = 6;
const MORE_NAMES: usize = 32;
/// Error pointers and `MNT_NS_INTERNAL`: no namespace at all.
const ERRORS: u64 = 0xffff_ffff_ffff_f000;
/// Bytes of a name that are read at once, as words of eight.
const CHUNK: usize = 32;
const WORDS: usize = CHUNK / 8;
const CHUNKS: usize = NAME_LEN / CHUNK;
/// What is kept of a name's length, which is at most that.
const LENGTH: u64 = 0xff;
/// The kernel's addresses begin so.
const KERNEL: u64 = 0xff << 56;

/// Where a climb ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Top {
    /// At a root of a mount namespace.
    Root,
    /// In a file system of the kernel's own, such as pipes and memory files are in.
    Nameless,
    /// In a tree that is attached nowhere, or too deep.
    Lost,
}

/// A processor's room.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// The thread that uses it.
    owner: u64,
    /// So many names there are, also those that are not kept.
    count: u64,
    /// Of each its address, shifted by a byte, and its length.
    names: [u64; KEPT],
}

/// What a climb has kept.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    room: *mut Room,
    owner: u64,
}

/// The mount that the task's namespace begins with, and its root.
#[derive(Clone, Copy)]
struct Beginning {
    mount: u64,
    root: u64,
}

impl Names {
    /// Nothing where there is no room, which cannot be.
    #[inline(always)]
    pub(crate) fn here() -> Option<Self> {
        Some(Self {
            room: NAMES.get_ptr_mut(0)?,
            owner: bpf_get_current_pid_tgid(),
        })
    }

    /// Whether nobody else has used the room since the climb.
    #[inline(always)]
    pub(crate) fn untouched(&self) -> bool {
        // SAFETY: a live element; another task of this processor may have written it.
        PREEMPTS.load() == 0
            || unsafe { (&raw const (*self.room).owner).read_volatile() } == self.owner
    }

    /// In turn: beyond what is kept the lowest goes.
    #[inline(always)]
    fn keep(&self, count: u64, name: u64) {
        let place = masked(count, KEPT as u64 - 1) as usize;
        // SAFETY: a live element, below the array's length.
        unsafe {
            let names = (&raw mut (*self.room).names).cast::<u64>();
            names.add(place).write_volatile(name);
        }
    }

    #[inline(always)]
    fn kept(&self, count: u64) -> u64 {
        let place = masked(count, KEPT as u64 - 1) as usize;
        // SAFETY: as above.
        unsafe {
            let names = (&raw const (*self.room).names).cast::<u64>();
            names.add(place).read_volatile()
        }
    }

    #[inline(always)]
    fn count(&self) -> u64 {
        // SAFETY: a live element.
        unsafe { (&raw const (*self.room).count).read_volatile() }
    }

    /// From a name in a mount.
    #[inline(always)]
    pub(crate) fn climb<R: Reader>(&self, vfsmount: u64, dentry: u64) -> Top {
        // SAFETY: a live element. Read back the count is one that the verifier does not know, so
        // that it does not follow each depth by itself.
        let mut count = unsafe {
            (&raw mut (*self.room).owner).write_volatile(self.owner);
            (&raw mut (*self.room).count).write_volatile(0);
            (&raw const (*self.room).count).read_volatile()
        };
        let beginning = beginning();
        let root = R::pointer(vfsmount, &OFF_VFSMOUNT_ROOT);
        let mut mount = vfsmount.wrapping_sub(u64::from(OFF_MOUNT_MNT.load()));
        let mut typed = dentry;
        for _ in 0..FIRST_NAMES {
            if typed == root {
                break;
            }
            let parent = R::pointer(typed, &OFF_DENTRY_PARENT);
            if parent == typed {
                return elsewhere(mount);
            }
            self.keep(count, name_of::<R>(typed));
            count += 1;
            typed = parent;
        }
        if typed != root {
            return Top::Lost;
        }
        // A loop in a loop of its own kind each: the verifier forgets what it has seen of one that
        // it comes to in too many ways.
        for _ in 0..MOUNTS {
            if mount == beginning.mount {
                return self.ends(count, Top::Root);
            }
            // `mnt_parent` and `mnt_mountpoint`.
            let [parent, mountpoint]: [u64; 2] =
                at(mount.wrapping_add(u64::from(OFF_MOUNT_PARENT.load())));
            if parent == mount || parent == 0 {
                return self.ends(count, elsewhere_at_root(mount));
            }
            if parent == beginning.mount && mountpoint == beginning.root {
                return self.ends(count, Top::Root);
            }
            mount = parent;
            let above = mount.wrapping_add(u64::from(OFF_MOUNT_MNT.load()));
            let root = pointer(above, &OFF_VFSMOUNT_ROOT);
            let mut dentry = mountpoint;
            for _ in 0..MORE_NAMES {
                if dentry == root {
                    break;
                }
                // `d_parent` and `d_name`, which lie side by side.
                let [parent, length, name]: [u64; 3] =
                    at(dentry.wrapping_add(u64::from(OFF_DENTRY_PARENT.load())));
                if parent == dentry || parent == 0 {
                    return Top::Lost;
                }
                self.keep(count, name << 8 | (length >> 32) & LENGTH);
                count += 1;
                dentry = parent;
            }
            if dentry != root {
                return Top::Lost;
            }
        }
        Top::Lost
    }

    #[inline(always)]
    fn ends(&self, count: u64, top: Top) -> Top {
        // SAFETY: a live element.
        unsafe { (&raw mut (*self.room).count).write_volatile(count) };
        top
    }

    /// The node that decides, and whether it is the path's own.
    #[inline(always)]
    pub(crate) fn walk(&self, ruleset: u32, root: *const PathNode) -> (*const PathNode, bool) {
        let mut left = self.count();
        let mut node = root;
        let mut whole = false;
        // No rule has more names, so that the last has none below it.
        for _ in 0..=RULE_NAMES {
            if left == 0 {
                whole = true;
                break;
            }
            left -= 1;
            let name = self.kept(left);
            // SAFETY: a live element of a map; user space writes none that is asked for.
            let (lengths, begins, number) = unsafe {
                (
                    (&raw const (*node).lengths).read_volatile(),
                    (&raw const (*node).begins).read_volatile(),
                    (&raw const (*node).number).read_volatile(),
                )
            };
            let length = name & LENGTH;
            let last = length.wrapping_sub(1);
            if last >= NAME_LEN as u64 || (lengths >> (last & 63)) & 1 == 0 {
                break;
            }
            let first = words(address(name), length as usize, 0);
            // As `paddock_abi::path::begin_bit`.
            if (begins >> (first[0] & 63)) & 1 == 0 {
                break;
            }
            let key = NameKey {
                ruleset,
                node: number,
                hash: hash(first, address(name), length as usize),
            };
            match PATH_NODES.get_ptr(key) {
                Some(next) => node = next,
                None => break,
            }
        }
        (node, whole)
    }

    /// A number for the deepest name, which it has as long as it is there.
    #[inline(always)]
    pub(crate) fn last(&self) -> u32 {
        (self.kept(0) >> 8) as u32
    }

    /// As text; what is longer than there is room for is cut behind a name.
    ///
    /// SAFETY: `to` has room for [`PATH_LEN`] and one name.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, to: *mut u8) {
        let mut left = self.count();
        // SAFETY: a live element. It is not a constant to the verifier, as above.
        let mut end = unsafe {
            let scratch = &raw mut (*self.room).count;
            scratch.write_volatile(0);
            scratch.read_volatile()
        };
        for _ in 0..KEPT {
            if left == 0 || end >= PATH_LEN as u64 {
                break;
            }
            left -= 1;
            let name = self.kept(left);
            let at = masked(end, PATH_LEN as u64 - 1) as usize;
            let length = masked(name, LENGTH);
            // SAFETY: as the caller vouches; the helper writes at most the length given.
            unsafe {
                to.add(at).write(b'/');
                let place = to.add(at + 1);
                bpf_probe_read_kernel(place.cast(), length as u32, address(name) as *const _);
            }
            end += 1 + length;
        }
        let at = masked(end, 2 * PATH_LEN as u64 - 1) as usize;
        // SAFETY: as above.
        unsafe { to.add(at).write(0) };
    }
}

/// At the root of a mount that is on none.
#[inline(always)]
fn elsewhere_at_root(mount: u64) -> Top {
    let namespace = pointer(mount, &OFF_MOUNT_NS);
    if namespace == 0 {
        Top::Lost
    } else if namespace >= ERRORS {
        Top::Nameless
    } else {
        // Another namespace's.
        Top::Root
    }
}

/// At a name without a parent that is no mount's root.
#[inline(always)]
fn elsewhere(mount: u64) -> Top {
    if pointer(mount, &OFF_MOUNT_NS) >= ERRORS {
        Top::Nameless
    } else {
        Top::Lost
    }
}

#[inline(always)]
fn beginning() -> Beginning {
    let namespace = task::own_mount_namespace();
    if HAS_TYPED_TASK.load() == 0 {
        let mount = pointer(namespace, &OFF_MNT_NS_ROOT);
        let vfsmount = mount.wrapping_add(u64::from(OFF_MOUNT_MNT.load()));
        Beginning {
            mount,
            root: pointer(vfsmount, &OFF_VFSMOUNT_ROOT),
        }
    } else {
        let mount = Typed::pointer(namespace, &OFF_MNT_NS_ROOT);
        let vfsmount = mount.wrapping_add(u64::from(OFF_MOUNT_MNT.load()));
        Beginning {
            mount,
            root: Typed::pointer(vfsmount, &OFF_VFSMOUNT_ROOT),
        }
    }
}

/// A typed one's.
#[inline(always)]
fn name_of<R: Reader>(dentry: u64) -> u64 {
    let name: u64 = R::field(dentry, &OFF_DENTRY_NAME);
    let length: u32 = R::field(dentry, &OFF_DENTRY_LENGTH);
    name << 8 | u64::from(length) & LENGTH
}

#[inline(always)]
const fn address(step: u64) -> u64 {
    step >> 8 | KERNEL
}

/// A piece of a name of `length`, from `begin` on: zeroes behind its end.
#[inline(always)]
fn words(name: u64, length: usize, begin: usize) -> [u64; WORDS] {
    let rest = length - begin;
    let size = if rest >= CHUNK {
        CHUNK as u64
    } else {
        masked(rest as u64, CHUNK as u64 - 1)
    };
    let mut words = [0_u64; WORDS];
    // SAFETY: the helper writes at most the length given, and never faults.
    unsafe {
        bpf_probe_read_kernel(
            words.as_mut_ptr().cast(),
            size as u32,
            name.wrapping_add(begin as u64) as *const _,
        );
    }
    words
}

/// As `paddock_abi::path::name_hash`; its first piece is read.
#[inline(always)]
fn hash(first: [u64; WORDS], name: u64, length: usize) -> u64 {
    let Some(keys) = NAME_SEED.get_ptr(0) else {
        return 0;
    };
    let keys = keys.cast::<u64>();
    let (mut high, mut low) = (0_u64, 0_u64);
    for chunk in 0..CHUNKS {
        let begin = chunk * CHUNK;
        if begin >= length {
            break;
        }
        let words = if chunk == 0 {
            first
        } else {
            words(name, length, begin)
        };
        for (index, word) in words.into_iter().enumerate() {
            // Two keys for each half of a word.
            let first = (chunk * WORDS + index) * 4;
            // SAFETY: below `NAME_KEYS`.
            let key = |place: usize| unsafe { keys.add(first + place).read_volatile() };
            let (left, right) = (word & 0xffff_ffff, word >> 32);
            high = high
                .wrapping_add(key(0).wrapping_mul(left))
                .wrapping_add(key(2).wrapping_mul(right));
            low = low
                .wrapping_add(key(1).wrapping_mul(left))
                .wrapping_add(key(3).wrapping_mul(right));
        }
    }
    both(high, low)
}

const _: () = assert!(CHUNKS * WORDS * 4 == NAME_KEYS);

/// In assembly: where the compiler can tell that it changes nothing it leaves the bound out, which
/// the verifier cannot tell.
#[inline(always)]
fn masked(mut value: u64, mask: u64) -> u64 {
    // SAFETY: one instruction on one register.
    unsafe {
        asm!("{value} &= {mask}", value = inout(reg) value, mask = in(reg) mask, options(pure, nomem, nostack));
    }
    value
}
