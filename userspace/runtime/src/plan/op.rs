//! Carrying out one step in the child: no allocation, no lock, an errno at worst.
//!
//! Every target is opened below the container's root by openat2 `RESOLVE_IN_ROOT` (5.6), so no
//! symlink of a hostile rootfs leads out of it; /proc, /dev and /sys may not be symlinks at all.
#![forbid(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::Signal,
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::{Mode, SFlag, fstat, makedev, mkdirat, stat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
    unistd::{
        AccessFlags, Gid, Uid, chdir, faccessat, fchdir, fchownat, pivot_root, sethostname, setsid,
        write,
    },
};

use super::{
    Op, Plan,
    run::{Channels, install_filter},
};
use crate::sys::{
    mount::{self as sys_mount, Attributes, NODEV, NOEXEC, NOSUID, Param, RDONLY},
    task::{self, CapabilitySets},
};

/// The kernel's `PATH_MAX`: the longest working directory it tells.
const PATH_MAX: usize = 4096;

impl Op {
    pub(super) fn run(&self, plan: &Plan, channels: &Channels) -> nix::Result<()> {
        match self {
            Self::UnshareCgroup => unshare(CloneFlags::CLONE_NEWCGROUP),
            Self::Join { pidfd, flags } => setns(pidfd, *flags),
            Self::PrivateMounts => private_mounts(),
            Self::AttachRoot { at, propagation } => attach_root(root(plan)?, at, *propagation),
            Self::HostDirectory { path } => chdir(path.as_c_str()),
            Self::MakeDirectory {
                parent,
                name,
                owner,
            } => make_directory(&directory(root(plan)?, parent)?, name, *owner),
            Self::MakeFile { parent, name } => make_file(&directory(root(plan)?, parent)?, name),
            Self::Attach {
                mount,
                at,
                attributes,
                follow,
            } => {
                let target = open(root(plan)?, at, *follow)?;
                attach(mount, &target, *attributes)
            }
            Self::AttachToFile {
                mount,
                at,
                attributes,
            } => attach_to_file(root(plan)?, mount, at, *attributes),
            Self::NewFilesystem {
                kind,
                params,
                attributes,
                at,
                follow,
                fallback,
            } => {
                let target = open(root(plan)?, at, *follow)?;
                match sys_mount::new_filesystem(kind, params, attributes.set) {
                    Ok(mount) => sys_mount::attach(mount.as_fd(), target.as_fd()),
                    Err(Errno::EPERM) => match fallback {
                        Some(mount) => attach(mount, &target, *attributes),
                        None => Err(Errno::EPERM),
                    },
                    Err(errno) => Err(errno),
                }
            }
            Self::Bind { from, at } => {
                let from = open(root(plan)?, from, false)?;
                bind(&from, &open(root(plan)?, at, false)?)
            }
            Self::Mask { at } => mask(plan, at),
            Self::ReadOnly { at } => read_only(root(plan)?, at),
            Self::ReadOnlyRoot => {
                let attributes = Attributes {
                    propagation: 0,
                    ..Attributes::private(RDONLY)
                };
                sys_mount::change(root(plan)?.as_fd(), attributes)
            }
            Self::Sysctl { at, value } => sysctl(root(plan)?, at, value),
            Self::PivotRoot => pivot(root(plan)?),
            Self::Hostname { name } => sethostname(name),
            Self::Domainname { name } => task::set_domainname(name),
            Self::Loopback => loopback(),
            Self::Session => setsid().map(drop),
            Self::ControllingTerminal => task::set_controlling_terminal(plan.stdio[0].as_fd()),
            Self::Stdio => plan
                .stdio
                .iter()
                .zip(0..)
                .try_for_each(|(fd, number)| task::place(fd.as_fd(), number)),
            Self::Keyring => task::new_session_keyring(),
            Self::BecomeRoot => {
                task::set_groups(&[])?;
                task::set_ids(0, 0)
            }
            Self::Rlimit {
                resource,
                soft,
                hard,
            } => task::set_rlimit(*resource, *soft, *hard),
            Self::WorkingDirectory { path } => enter(path),
            Self::Bounding { keep, last } => (0..=*last)
                .filter(|capability| keep & (1 << capability) == 0)
                .try_for_each(task::drop_bounding),
            Self::User { uid, gid, groups } => {
                task::set_groups(groups)?;
                task::keep_capabilities()?;
                task::set_ids(*uid, *gid)
            }
            Self::Capabilities { sets, ambient } => set_capabilities(*sets, *ambient),
            Self::Seccomp { program } => install_filter(program, channels),
            Self::MemoryPolicy { mode, nodes } => task::set_memory_policy(*mode, nodes),
            Self::NoNewPrivileges => prctl::set_no_new_privs(),
            Self::ParentDeath => die_with_parent(channels.gate.as_fd()),
            Self::Hook(hook) => hook.run(plan.hook_state.as_ref().ok_or(Errno::EBADF)?.as_raw_fd()),
            Self::Propagation { flags, recursive } => {
                sys_mount::propagate(root(plan)?.as_fd(), *flags, *recursive)
            }
            Self::ExecLabel { at, label } => exec_label(at, label),
            Self::FindProgram => find_program(&plan.exec.candidates),
        }
    }
}

fn set_capabilities(sets: CapabilitySets, ambient: u64) -> nix::Result<()> {
    task::clear_ambient()?;
    task::set_capabilities(sets)?;
    (0..64)
        .filter(|capability| ambient >> capability & 1 != 0)
        .try_for_each(task::raise_ambient)
}

fn make_directory(parent: &OwnedFd, name: &CStr, owner: Option<(u32, u32)>) -> nix::Result<()> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => Ok(()),
        Ok(()) if let Some((uid, gid)) = owner => {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(parent, name, Some(uid), Some(gid), flags)
        }
        other => other,
    }
}

fn root(plan: &Plan) -> nix::Result<&OwnedFd> {
    plan.root.as_ref().ok_or(Errno::EBADF)
}

fn private_mounts() -> nix::Result<()> {
    let none = None::<&CStr>;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, c"/", none, flags, none)
}

fn make_file(parent: &OwnedFd, name: &CStr) -> nix::Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, flags, Mode::from_bits_truncate(0o644)) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn open(root: &OwnedFd, path: &CStr, follow: bool) -> nix::Result<OwnedFd> {
    let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    resolve.set(ResolveFlag::RESOLVE_NO_SYMLINKS, !follow);
    openat2(
        root,
        path,
        OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(resolve),
    )
}

fn directory(root: &OwnedFd, path: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(root, path, OpenHow::new().flags(flags).resolve(resolve))
}

/// A bound directory must leave the host's peer group, or become a slave of it, before anything
/// is mounted in it.
fn attach_root(root: &OwnedFd, at: &CStr, propagation: u64) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let old = openat(AT_FDCWD, at, flags, Mode::empty())?;
    let attributes = Attributes {
        propagation,
        ..Attributes::private(0)
    };
    attach(root, &old, attributes)
}

fn attach(mount: &OwnedFd, target: &OwnedFd, attributes: Attributes) -> nix::Result<()> {
    sys_mount::attach(mount.as_fd(), target.as_fd())?;
    sys_mount::change(mount.as_fd(), attributes)
}

fn attach_to_file(
    root: &OwnedFd,
    mount: &OwnedFd,
    at: &CStr,
    attributes: Attributes,
) -> nix::Result<()> {
    match open(root, at, true) {
        Ok(target) if is(&target, SFlag::S_IFREG)? => attach(mount, &target, attributes),
        Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// pivot_root(2): with "." twice the old root ends up stacked on the new one, and detaching
/// "." takes it away, so no directory for it is needed.
fn pivot(root: &OwnedFd) -> nix::Result<()> {
    fchdir(root)?;
    pivot_root(c".", c".")?;
    umount2(c".", MntFlags::MNT_DETACH)?;
    chdir(c"/")
}

fn bind(from: &OwnedFd, target: &OwnedFd) -> nix::Result<()> {
    let mount = sys_mount::clone_tree(from.as_fd(), c"", false)?;
    sys_mount::attach(mount.as_fd(), target.as_fd())
}

fn mask(plan: &Plan, at: &CStr) -> nix::Result<()> {
    let root = root(plan)?;
    let target = match open(root, at, false) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let masks = &plan.masks;
    if !is(&target, SFlag::S_IFDIR)? {
        if masks.null.get().is_none() {
            let _ = masks.null.set(own_null(root)?);
        }
        return bind(masks.null.get().ok_or(Errno::EBADF)?, &target);
    }
    let Some(empty) = masks.empty.get() else {
        let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
        let params = [
            Param::String(c"mode", c"0555"),
            Param::String(c"nr_inodes", c"1"),
        ];
        let empty = sys_mount::new_filesystem(c"tmpfs", &params, attributes)?;
        sys_mount::attach(empty.as_fd(), target.as_fd())?;
        let _ = masks.empty.set(empty);
        return Ok(());
    };
    // Another mount of the one that is there already.
    bind(empty, &target)
}

/// The container's own, made by the monitor; CVE-2025-31133 is a runtime that took another.
fn own_null(root: &OwnedFd) -> nix::Result<OwnedFd> {
    let null = open(root, c"/dev/null", false)?;
    if !is(&null, SFlag::S_IFCHR)? || fstat(&null)?.st_rdev != makedev(1, 3) {
        return Err(Errno::ENODEV);
    }
    Ok(null)
}

fn read_only(root: &OwnedFd, at: &CStr) -> nix::Result<()> {
    let target = match open(root, at, false) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let mount = sys_mount::clone_tree(target.as_fd(), c"", true)?;
    let attributes = Attributes {
        recursive: true,
        ..Attributes::private(RDONLY | NOSUID | NODEV | NOEXEC)
    };
    attach(&mount, &target, attributes)
}

/// No symlink leads to it and nothing but a procfs is written to: a file in the way could be
/// any of the host's (CVE-2025-52881).
fn sysctl(root: &OwnedFd, at: &CStr, value: &CStr) -> nix::Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_IN_ROOT
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_SYMLINKS,
        );
    let file = openat2(root, at, how)?;
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::EXDEV);
    }
    write(&file, value.to_bytes()).map(drop)
}

fn is(fd: &OwnedFd, kind: SFlag) -> nix::Result<bool> {
    Ok(fstat(fd)?.st_mode & SFlag::S_IFMT.bits() == kind.bits())
}

/// A kernel without IPv4 has no loopback to bring up.
fn loopback() -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    match socket(AddressFamily::Inet, SockType::Datagram, flags, None) {
        Err(Errno::EAFNOSUPPORT) => Ok(()),
        other => task::loopback_up(other?.as_fd()),
    }
}

/// Before the pivot: the host's own procfs, which no container has had its hands on.
fn exec_label(at: &CStr, label: &CStr) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = openat(AT_FDCWD, at, flags, Mode::empty())?;
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::EXDEV);
    }
    write(&file, label.to_bytes()).map(drop)
}

/// As execvp will look for it, a moment later.
fn find_program(candidates: &[CString]) -> nix::Result<()> {
    let mut found = Errno::ENOENT;
    for path in candidates {
        let path = path.as_c_str();
        match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
            Ok(()) if stat(path)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() => {
                found = Errno::EACCES;
            }
            Ok(()) => return Ok(()),
            Err(Errno::EACCES) => found = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(found)
}

/// A directory that the root does not contain is no place to start in: CVE-2024-21626 was a
/// working directory behind a leaked descriptor.
fn enter(path: &CStr) -> nix::Result<()> {
    let mut buffer = [0; PATH_MAX];
    chdir(path)?;
    if task::working_directory(&mut buffer)?
        .to_bytes()
        .starts_with(b"/")
    {
        Ok(())
    } else {
        Err(Errno::EXDEV)
    }
}

/// The signal is only sent for deaths after this; an earlier one shows as the gate's hang-up.
fn die_with_parent(gate: BorrowedFd<'_>) -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut fds = [PollFd::new(gate, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let hung_up = fds[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLHUP));
    if hung_up { Err(Errno::ESRCH) } else { Ok(()) }
}
