//! What a task sets on itself: capabilities, signals, keyring, terminal, descriptors, loopback.
//!
//! Kernels from 5.10. All of it is for the child between clone and exec, nothing is undone.
#![expect(
    unsafe_code,
    reason = "capset, prctl, ioctl and sigaction have no safe wrapper"
)]

use std::{
    ffi::CStr,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::errno::Errno;

use super::check;
use crate::direct::Scheduler;

/// The three sets of capset(2), as the kernel's bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// capset(2), version 3.
pub(crate) fn set_capabilities(sets: CapabilitySets) -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| {
        let bits = |set: u64| u32::try_from(set >> shift & u64::from(u32::MAX)).unwrap_or_default();
        Data {
            effective: bits(sets.effective),
            permitted: bits(sets.permitted),
            inheritable: bits(sets.inheritable),
        }
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data structs, laid out as linux/capability.h says.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Takes one capability out of the bounding set for good.
pub(crate) fn drop_bounding(capability: u8) -> nix::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into())
}

pub(crate) fn clear_ambient() -> nix::Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned().into(),
    )
}

/// Into the ambient set; it must be permitted and inheritable already.
pub(crate) fn raise_ambient(capability: u8) -> nix::Result<()> {
    // SAFETY: this option takes two integers; the rest must be zero.
    Errno::result(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE,
            libc::c_ulong::from(capability),
            0,
            0,
        )
    })
    .map(drop)
}

/// The permitted set survives the next change from root to another user; exec ends that.
pub(crate) fn keep_capabilities() -> nix::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1)
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: the options used here take integers only; the rest must be zero.
    Errno::result(unsafe { libc::prctl(option, argument, 0, 0, 0) }).map(drop)
}

/// Every signal to its default and none blocked: the zygote ignores some, and that would
/// survive exec.
pub(crate) fn reset_signals() {
    // The kernel's struct, all zero: SIG_DFL, no flags, no mask. Not by libc: it refuses to
    // touch signals 32 and 33, which its own posix_spawn leaves ignored.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads 32 bytes (a handler, flags, a restorer, a mask of 8 bytes)
        // and writes nothing; for SIGKILL and SIGSTOP it fails and changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8_usize,
            )
        };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given, sigprocmask reads it.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Ignores a signal, here and in children until they reset it.
pub(crate) fn ignore_signal(signal: libc::c_int) {
    // SAFETY: SIG_IGN is no handler, nothing of ours runs.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Back to the default, so that children of this process can be waited for.
pub(crate) fn default_signal(signal: libc::c_int) {
    // SAFETY: SIG_DFL is no handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// An empty session keyring instead of the host's. A kernel without keyrings has none to hide.
pub(crate) fn new_session_keyring() -> nix::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    });
    match joined {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Makes the terminal `fd` the controlling one of this session.
pub(crate) fn set_controlling_terminal(fd: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// The other end of a pty master, by descriptor: no path that somebody could swap.
pub(crate) fn open_peer(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    Errno::result(unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)
    })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: that descriptor is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn set_window_size(
    terminal: BorrowedFd<'_>,
    rows: u16,
    columns: u16,
) -> nix::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
}

/// Rows and columns.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> nix::Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Brings `lo` up in this network namespace.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: SIOCGIFFLAGS fills the flags of the ifreq it is given.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)
    })?;
    let up = libc::c_short::try_from(libc::IFF_UP).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the call above has made `ifru_flags` the union's live field.
    unsafe { request.ifr_ifru.ifru_flags |= up };
    // SAFETY: SIOCSIFFLAGS reads the ifreq.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })
    .map(drop)
}

/// setrlimit(2) by the kernel's number of the resource.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: prlimit64 reads one rlimit64; a null old limit asks for none back.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}

/// Does `work` without RLIMIT_MEMLOCK, where this process may raise it. Not in a child between
/// clone and exec: the limit is put back after.
pub(crate) fn with_memory_lock<T>(work: impl FnOnce() -> T) -> T {
    let resource = libc::RLIMIT_MEMLOCK;
    let mut before = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: prlimit64 writes one rlimit64; a null new limit sets none.
    let known = check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut before,
        )
    });
    let raised =
        known.is_ok() && set_rlimit(resource, libc::RLIM64_INFINITY, libc::RLIM64_INFINITY).is_ok();
    let done = work();
    if raised {
        // Going down is always permitted.
        let _ = set_rlimit(resource, before.rlim_cur, before.rlim_max);
    }
    done
}

/// ioprio_set(2) for a process of the caller's: class and level in one number.
pub(crate) fn set_io_priority(pid: i32, value: i32) -> nix::Result<()> {
    /// One process, not a group or a user.
    const WHO_PROCESS: i32 = 1;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, value) }).map(drop)
}

/// sched_setattr(2) for a process of the caller's.
pub(crate) fn set_scheduler(pid: i32, wanted: Scheduler) -> nix::Result<()> {
    /// The first version's, which has all that is used here.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).map_err(|_| Errno::EINVAL)?,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    };
    // SAFETY: the kernel reads `size` bytes of a struct laid out as its own; no flags.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0) })
        .map(drop)
}

/// The calling thread's policy, `SCHED_RESET_ON_FORK` included.
pub(crate) fn policy() -> nix::Result<i32> {
    // SAFETY: integers only.
    Errno::result(unsafe { libc::sched_getscheduler(0) })
}

/// The calling thread's policy and, for one of real time, its priority. Its nice value stays.
pub(crate) fn set_policy(policy: i32, priority: i32) -> nix::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the kernel reads one struct.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

/// The working directory as the kernel tells it into `buffer`. A directory outside of the
/// root reads "(unreachable)…", so what comes back starts with a slash only if it is inside.
pub(crate) fn working_directory(buffer: &mut [u8]) -> nix::Result<&CStr> {
    // SAFETY: the kernel writes at most the buffer's length, with a final NUL.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::ERANGE)
}

/// Makes `fd` number `target`, without close-on-exec.
pub(crate) fn place(fd: BorrowedFd<'_>, target: RawFd) -> nix::Result<()> {
    place_number(fd.as_raw_fd(), target)
}

/// The same for one whose owner is gone.
pub(crate) fn place_number(fd: RawFd, target: RawFd) -> nix::Result<()> {
    // SAFETY: only for 0, 1 and 2 in a child that execs next and has no owner for them.
    Errno::result(unsafe { libc::dup2(fd, target) }).map(drop)
}

/// Back to the beginning of a file.
pub(crate) fn rewind(fd: RawFd) -> nix::Result<()> {
    // SAFETY: integers only.
    Errno::result(unsafe { libc::lseek(fd, 0, libc::SEEK_SET) }).map(drop)
}

/// The supplementary groups. The raw syscalls, here and below, are this task's only, without
/// glibc's broadcast to threads that a clone does not have.
pub(crate) fn set_groups(groups: &[libc::gid_t]) -> nix::Result<()> {
    // SAFETY: the kernel reads `len` numbers from the slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Real, effective and saved group and user, the group first while that is still allowed.
pub(crate) fn set_ids(uid: u32, gid: u32) -> nix::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// set_mempolicy(2); kernels without NUMA have none (ENOSYS).
pub(crate) fn set_memory_policy(mode: i32, nodes: &[usize]) -> nix::Result<()> {
    // The kernel takes one bit less than it is told.
    let bits = match nodes {
        [] => 0,
        nodes => nodes.len() * usize::BITS as usize + 1,
    };
    let mask = if bits == 0 {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: the kernel reads `bits` - 1 bits, which the slice has; unsigned long is usize.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// setdomainname(2).
pub(crate) fn set_domainname(name: &str) -> nix::Result<()> {
    // SAFETY: the kernel reads `len` bytes from the string.
    check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) }).map(drop)
}
