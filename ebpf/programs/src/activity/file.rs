//! Files that are doors: judged by inode, file system and device number once they are open.

use paddock_abi::{
    activity::Activity,
    key::{DeviceKey, FileKey, runtime_file},
    namespace::{NS_TYPES, Target},
    record::hierarchy,
};

use super::{
    Act, Text, judge,
    mount::{file_mount, through},
    process::other,
    syscalls::Call,
    tunable, watched,
};
use crate::{
    maps::{NS_OWNER, RUNTIME_FILES, SLOT_CONFIG, SLOT_DEVICES, STATE},
    member::is_around,
    offsets::*,
    read::{Anywhere, Reader, field, pointer},
    selftest,
    target::file_of,
    task::{
        self, Identity, hierarchy_of, in_setup, kernfs_id, own_identity, settled, slot_of,
        task_of_pid,
    },
    word::{kernel_word, word},
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/magic.h>
mod magic {
    pub(super) const PROC: u64 = 0x9fa0;
    pub(super) const SYSFS: u64 = 0x6265_6572;
    pub(super) const CGROUP: u64 = 0x0027_e0eb;
    pub(super) const CGROUP2: u64 = 0x6367_7270;
    pub(super) const DEBUGFS: u64 = 0x6462_6720;
    pub(super) const TRACEFS: u64 = 0x7472_6163;
    pub(super) const BINFMT: u64 = 0x4249_4e4d;
    pub(super) const NSFS: u64 = 0x6e73_6673;
}

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFCHR: u32 = 0o020_000;
/// In a file's flags.
const O_PATH: u32 = 0o10_000_000;
const FMODE_EXEC: u32 = 0x20;
/// `FMODE_WRITE`.
const WRITE: u32 = 2;
/// Minors of major 1 that are memory and ports: mem, kmem, port.
const MEMORY: u64 = 1 << 1 | 1 << 2 | 1 << 4;
/// Minors of major 1 that are nobody's: null, zero, full, random, urandom.
const HARMLESS: u64 = 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9;
/// Of the kernel's own device numbers.
const MINOR_BITS: u32 = 20;

/// An open that gave descriptor `fd`.
#[inline(always)]
pub(super) fn opened_as(fd: i64) {
    if fd < 0 {
        return;
    }
    let file = file_of(fd as i32);
    // By its path alone nothing of a file can be had; where it can be hooked, the kernel's own
    // check does not see these either.
    if field::<u32>(file, &OFF_FILE_FLAGS) & O_PATH == 0 {
        opened::<Anywhere>(file);
    }
}

#[inline(always)]
pub(super) fn opened<R: Reader>(file: u64) {
    let testing = selftest::on();
    let who = own_identity();
    // Most opens of the machine end here.
    if !testing && who.slot == 0 {
        return;
    }
    if testing {
        observed::<R>(selftest::OPEN, file);
        return;
    }
    let Some((door, opened)) = found::<R>(&who, file) else {
        return;
    };
    // Asked last: few are.
    if in_setup() {
        return;
    }
    let dentry = opened.dentry();
    let directory = pointer(dentry, &OFF_DENTRY_PARENT);
    let rdev: u32 = field(opened.inode, &OFF_INODE_RDEV);
    judge(
        &who,
        &Act {
            args: [u64::from(opened.written), u64::from(rdev), 0, 0],
            other_tgid: door.other_tgid,
            other_slot: door.other_slot,
            object: Text::Kernel(pointer(dentry, &OFF_DENTRY_NAME)),
            place: Text::Kernel(pointer(directory, &OFF_DENTRY_NAME)),
            ..Act::new(door.activity, door.target, 0)
        },
    );
}

/// Whether it is a layer's file that overlayfs opens to be read, for one of its own that is asked
/// about by itself: nothing is in it but where its file system is a door.
///
/// Opens of the kernel's own are told apart by what the count of open files leaves out
/// (`FMODE_NOACCOUNT`), and they see nobody's mounts.
#[inline(always)]
pub(crate) fn of_a_layer<R: Reader>(file: u64) -> bool {
    const NOACCOUNT: u32 = 1 << 29;
    let mode: u32 = R::field(file, &OFF_FILE_MODE);
    if mode & NOACCOUNT == 0 || mode & WRITE != 0 {
        return false;
    }
    let inode = R::pointer(file, &OFF_FILE_INODE);
    let magic: u64 = R::field(R::pointer(inode, &OFF_INODE_SB), &OFF_SB_MAGIC);
    let door = magic == magic::PROC
        || magic == magic::NSFS
        || magic == magic::DEBUGFS
        || magic == magic::TRACEFS;
    let kind = u32::from(R::field::<u16>(inode, &OFF_INODE_MODE)) & S_IFMT;
    kind == S_IFREG && !door
}

/// What the self-test opens of devices is /dev/null alone; it reads procfs as well.
#[inline(always)]
pub(crate) fn observed<R: Reader>(place: u32, file: u64) {
    let inode = R::pointer(file, &OFF_FILE_INODE);
    let kind = u32::from(R::field::<u16>(inode, &OFF_INODE_MODE)) & S_IFMT;
    if kind == S_IFCHR {
        let rdev: u32 = R::field(inode, &OFF_INODE_RDEV);
        selftest::observe(place, task::current(), i64::from(rdev));
    }
}

/// The door that a file is for `who`.
#[inline(always)]
pub(crate) fn door<R: Reader>(who: &Identity, file: u64) -> Option<Door> {
    found::<R>(who, file).map(|(door, _)| door)
}

#[inline(always)]
fn found<R: Reader>(who: &Identity, file: u64) -> Option<(Door, Opened)> {
    // A program to start is `exec`'s to judge.
    if R::field::<u32>(file, &OFF_FILE_FLAGS) & FMODE_EXEC != 0 {
        return None;
    }
    let inode = R::pointer(file, &OFF_FILE_INODE);
    let superblock = R::pointer(inode, &OFF_INODE_SB);
    let opened = Opened {
        file,
        inode,
        superblock,
        magic: R::field(superblock, &OFF_SB_MAGIC),
        written: R::field::<u32>(file, &OFF_FILE_MODE) & WRITE != 0,
    };
    let kind = u32::from(R::field::<u16>(inode, &OFF_INODE_MODE)) & S_IFMT;
    let door = match kind {
        S_IFBLK => block_device(who, &opened),
        S_IFCHR => character_device(&opened),
        S_IFREG => regular(who, &opened),
        _ => None,
    };
    // Whatever it is: through whose tree was it found?
    let door = door.or_else(
        #[inline(always)]
        || match through(who, file_mount::<R>(file)) {
            Target::None => None,
            foreign => Some(Door::new(Activity::ForeignFile, foreign)),
        },
    );
    door.map(|door| (door, opened))
}

struct Opened {
    file: u64,
    inode: u64,
    superblock: u64,
    magic: u64,
    written: bool,
}

impl Opened {
    #[inline(always)]
    fn dentry(&self) -> u64 {
        pointer(
            self.file.wrapping_add(u64::from(OFF_FILE_PATH.load())),
            &OFF_PATH_DENTRY,
        )
    }
}

impl Opened {
    /// What procfs knows of its inode.
    #[inline(always)]
    fn of_procfs(&self) -> u64 {
        self.inode
            .wrapping_sub(u64::from(OFF_PROC_INODE_VFS.load()))
    }
}

/// What the file turned out to be.
pub(crate) struct Door {
    pub(crate) activity: Activity,
    pub(crate) target: Target,
    pub(crate) other_tgid: u32,
    other_slot: u32,
}

impl Door {
    #[inline(always)]
    const fn new(activity: Activity, target: Target) -> Self {
        Self {
            activity,
            target,
            other_tgid: 0,
            other_slot: 0,
        }
    }

    #[inline(always)]
    const fn host(activity: Activity) -> Self {
        Self::new(activity, Target::Host)
    }
}

#[inline(always)]
fn block_device(who: &Identity, opened: &Opened) -> Option<Door> {
    let key = DeviceKey {
        slot: who.slot,
        device: field(opened.inode, &OFF_INODE_RDEV),
    };
    match SLOT_DEVICES.get_ptr(key) {
        Some(_) => None,
        None => Some(Door::host(Activity::BlockDevice)),
    }
}

#[inline(always)]
fn character_device(opened: &Opened) -> Option<Door> {
    let rdev: u32 = field(opened.inode, &OFF_INODE_RDEV);
    let minor = rdev & ((1 << MINOR_BITS) - 1);
    if rdev >> MINOR_BITS == 1 && minor < 64 && (MEMORY >> (minor & 63)) & 1 != 0 {
        Some(Door::host(Activity::RawMemory))
    } else {
        None
    }
}

#[inline(always)]
fn regular(who: &Identity, opened: &Opened) -> Option<Door> {
    let magic = opened.magic;
    if magic == magic::PROC {
        return proc(who, opened);
    }
    if magic == magic::NSFS {
        return namespace(who, opened);
    }
    if magic == magic::DEBUGFS || magic == magic::TRACEFS {
        return Some(Door::host(Activity::Debugfs));
    }
    if !opened.written {
        return None;
    }
    if magic == magic::CGROUP || magic == magic::CGROUP2 {
        return cgroup(who, opened);
    }
    if magic == magic::BINFMT {
        return Some(Door::host(Activity::BinfmtMisc));
    }
    if magic == magic::SYSFS {
        return if name(opened.dentry()) == word(b"uevent_helper") {
            Some(Door::host(Activity::UeventHelper))
        } else if tunable::of_the_kernel(opened.dentry()) {
            Some(Door::host(Activity::Tunable))
        } else {
            None
        };
    }
    let key = FileKey {
        inode: field(opened.inode, &OFF_INODE_NUMBER),
        device: field(opened.superblock, &OFF_SB_DEV),
        pad: 0,
    };
    // SAFETY: copied at once; only user space writes it.
    match unsafe { RUNTIME_FILES.get(key) } {
        Some(kind) if *kind == runtime_file::PROGRAM => Some(Door::host(Activity::RuntimeExe)),
        _ => None,
    }
}

#[inline(always)]
fn proc(who: &Identity, opened: &Opened) -> Option<Door> {
    let name = name(opened.dentry());
    let activity = if name == word(b"mem") {
        Activity::ProcMem
    } else if name == word(b"kcore") {
        return Some(Door::host(Activity::RawMemory));
    } else if !opened.written {
        return None;
    } else if name == word(b"uid_map") || name == word(b"gid_map") {
        Activity::IdMap
    } else if name == word(b"core_pattern") {
        return Some(Door::host(Activity::CorePattern));
    } else if name == word(b"modprobe") {
        return Some(Door::host(Activity::ModprobePath));
    } else if name == word(b"hotplug") {
        return Some(Door::host(Activity::UeventHelper));
    } else if name == word(b"sysrq-trigger") {
        return Some(Door::host(Activity::Sysrq));
    } else {
        let whose = tunable::sysctl(opened.of_procfs(), name)?;
        return Some(Door::new(Activity::Tunable, whose));
    };
    let pid = pointer(opened.of_procfs(), &OFF_PROC_INODE_PID);
    if pid == 0 {
        return None;
    }
    let other = other(who, task_of_pid(pid));
    Some(Door {
        activity,
        target: other.target,
        other_tgid: other.tgid,
        other_slot: other.slot,
    })
}

/// An nsfs file: its inode's number is the namespace's, whatever its type.
#[inline(always)]
fn namespace(who: &Identity, opened: &Opened) -> Option<Door> {
    let inum = field::<u64>(opened.inode, &OFF_INODE_NUMBER) as u32;
    let state = STATE.get(0)?;
    let config = SLOT_CONFIG.get(who.slot)?;
    let mut host = 0;
    let mut own = 0;
    for index in 0..NS_TYPES {
        let shared = (config.shared_with_host >> index) & 1;
        let first = same(state.host[index], inum);
        host |= first & (1 - shared);
        own |= (first & shared) | same(config.joined[index], inum);
    }
    // SAFETY: copied at once; a concurrent writer replaces it as a whole.
    let owner = unsafe { NS_OWNER.get(inum) }.copied().unwrap_or(0);
    if own != 0 || owner == who.slot {
        return None;
    }
    let target = if host == 0 {
        Target::Peer
    } else {
        Target::Host
    };
    Some(Door {
        other_slot: owner,
        ..Door::new(Activity::ProcNs, target)
    })
}

/// 1 where both are equal; without a branch, which the verifier would follow both ways.
#[inline(always)]
fn same(left: u32, right: u32) -> u32 {
    let difference = u64::from(left ^ right);
    (difference.wrapping_sub(1) >> 63) as u32
}

/// A cgroup's file, opened for writing.
#[inline(always)]
fn cgroup(who: &Identity, opened: &Opened) -> Option<Door> {
    let name = name(opened.dentry());
    if name == word(b"release_agent") {
        return Some(Door::host(Activity::ReleaseAgent));
    }
    let node = pointer(opened.inode, &OFF_INODE_PRIVATE);
    let cgroup = pointer(pointer(node, &OFF_KN_PARENT), &OFF_KN_PRIV);
    let hierarchy = hierarchy_of(cgroup);
    let (target, slot) = cgroup_target(who, cgroup);
    // Cut, as every longer name is.
    let activity = if name == word(b"notify_on_relea") {
        Activity::NotifyOnRelease
    } else if hierarchy == hierarchy::OTHER {
        // Nobody's cgroups are known apart there.
        return None;
    } else {
        Activity::CgroupLimit
    };
    Some(Door {
        other_slot: slot,
        ..Door::new(activity, target)
    })
}

/// Whose a cgroup is, and its slot.
#[inline(always)]
pub(crate) fn cgroup_target(who: &Identity, cgroup: u64) -> (Target, u32) {
    let raw = slot_of(hierarchy_of(cgroup), kernfs_id(cgroup));
    let slot = settled(raw);
    let target = if slot == who.slot || is_around(who.slot, raw) {
        Target::Own
    } else if slot == 0 {
        Target::Host
    } else {
        Target::Peer
    };
    (target, slot)
}

#[inline(always)]
pub(super) fn mknod(call: &Call) {
    made(call, call.arg0(), call.arg1(), call.arg2());
}

#[inline(always)]
pub(super) fn mknodat(call: &Call) {
    made(call, call.arg1(), call.arg2(), call.arg3());
}

/// `device` as user space writes it: twelve bits of major, twenty of minor, in three pieces.
#[inline(always)]
fn made(call: &Call, path: u64, mode: u64, device: u64) {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    let Some(target) = node_target(mode as u32, major, minor) else {
        return;
    };
    let Some((_, who)) = watched() else { return };
    let kind = mode as u32 & S_IFMT;
    judge(
        &who,
        &Act {
            args: [u64::from(kind), major, minor, 0],
            object: Text::User(path),
            ..Act::new(Activity::Mknod, target, call.ret)
        },
    );
}

/// Whose the device behind a node is; nothing where it is no node of a device.
#[inline(always)]
pub(crate) fn node_target(mode: u32, major: u64, minor: u64) -> Option<Target> {
    let kind = mode & S_IFMT;
    if kind != S_IFBLK && kind != S_IFCHR {
        return None;
    }
    // No driver's: overlay's whiteout, and what stands in for a file that is not to be read.
    let nothing = major == 0 && minor == 0;
    let nobodys = major == 1 && minor < 64 && (HARMLESS >> (minor & 63)) & 1 != 0;
    let terminal = major == 5 && (minor == 0 || minor == 2);
    // What each opener gets of its own: tun, fuse.
    let fresh = major == 10 && (minor == 200 || minor == 229);
    if nothing || (kind == S_IFCHR && (nobodys || terminal || fresh)) {
        Some(Target::Own)
    } else {
        Some(Target::Host)
    }
}

#[inline(always)]
pub(super) fn open_by_handle(call: &Call) {
    let Some((_, who)) = watched() else { return };
    judge(
        &who,
        &Act::new(Activity::OpenByHandle, Target::Own, call.ret),
    );
}

/// The first 15 bytes of an entry's name.
#[inline(always)]
fn name(dentry: u64) -> u128 {
    kernel_word(pointer(dentry, &OFF_DENTRY_NAME))
}
