//! This executable so that nothing a container reaches through /proc/PID/exe can be written
//! to (CVE-2019-5736): opened in a detached overlay without an upper layer, which no remount
//! makes writable and which costs no copy; or, where that is refused, copied into a sealed
//! memfd. The seals used are 5.1's.
#![forbid(unsafe_code)]

use std::{
    ffi::{CStr, CString, OsStr},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SealFlag, fcntl, openat},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::Mode,
        statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs},
        statvfs::FsFlags,
    },
};

use crate::sys::mount;

const EXECUTABLE: &str = "/proc/self/exe";
const ROOT_ONLY: u64 = mount::RDONLY | mount::NOSUID | mount::NODEV;

fn seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL
}

/// The running executable as nobody can write to it.
pub(crate) fn program() -> io::Result<File> {
    overlaid().or_else(|_| copy())
}

/// The file itself, seen through an overlay of nothing but lower layers.
fn overlaid() -> io::Result<File> {
    let path = fs::read_link(EXECUTABLE)?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::ENOENT.into());
    };
    let directory = File::open(directory)?;
    // An overlay without an upper layer has to have two lower ones.
    let empty = mount::new_filesystem::<&CStr>(c"tmpfs", &[], ROOT_ONLY)?;
    let lower = format!(
        "/proc/self/fd/{}:/proc/self/fd/{}",
        directory.as_raw_fd(),
        empty.as_raw_fd()
    );
    let lower = CString::new(lower)?;
    let overlay = mount::new_filesystem(
        c"overlay",
        &[mount::Param::String(c"lowerdir", lower.as_c_str())],
        ROOT_ONLY,
    )?;
    let open = |directory: BorrowedFd<'_>| -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(directory, name, flags, Mode::empty())?.into())
    };
    let (running, found) = (
        File::open(EXECUTABLE)?.metadata()?,
        open(directory.as_fd())?,
    );
    let found = found.metadata()?;
    // Replaced since: what is there now was not executed.
    if (running.dev(), running.ino()) != (found.dev(), found.ino()) {
        return Err(Errno::ESTALE.into());
    }
    let program = open(overlay.as_fd())?;
    if program.metadata()?.len() == found.len() {
        Ok(program)
    } else {
        Err(Errno::ESTALE.into())
    }
}

/// Whether this is what [`overlaid`] made: a read-only overlay that is mounted nowhere.
fn is_overlaid() -> io::Result<bool> {
    let program = File::open(EXECUTABLE)?;
    let filesystem = fstatfs(&program)?;
    if filesystem.filesystem_type() != OVERLAYFS_SUPER_MAGIC
        || !filesystem.flags().contains(FsFlags::ST_RDONLY)
    {
        return Ok(false);
    }
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let id = id.ok_or(Errno::ENODATA)?.trim();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(!mounts
        .lines()
        .any(|line| line.split(' ').next() == Some(id)))
}

/// A copy of the running executable that nobody can write to.
fn copy() -> io::Result<File> {
    /// Linux 6.3: says that it is to be executed, whatever `vm.memfd_noexec` is. Older kernels
    /// refuse the unknown flag (EINVAL).
    const MFD_EXEC: u32 = 0x10;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let name = c"paddock";
    let memfd =
        memfd_create(name, flags | MFdFlags::from_bits_retain(MFD_EXEC)).or_else(|errno| {
            if errno == Errno::EINVAL {
                memfd_create(name, flags)
            } else {
                Err(errno)
            }
        })?;
    let mut copy = File::from(memfd);
    io::copy(&mut File::open(EXECUTABLE)?, &mut copy)?;
    seal(&copy)?;
    Ok(copy)
}

/// A page of the copy that the kernel is busy with for a moment, on a host short of memory or
/// CPUs, looks like one that somebody could still write to, and the seals are refused (EBUSY).
fn seal(copy: &File) -> nix::Result<()> {
    const TRIES: u32 = 50;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 1..TRIES {
        match fcntl(copy, FcntlArg::F_ADD_SEALS(seals())) {
            Err(Errno::EBUSY) => thread::sleep(PAUSE),
            other => return other.map(drop),
        }
    }
    fcntl(copy, FcntlArg::F_ADD_SEALS(seals())).map(drop)
}

/// Goes on as that program with the same words, or returns because this process is one already.
/// What is open without close-on-exec stays open.
pub fn ensure<S: AsRef<OsStr>>(argv0: &OsStr, args: &[S]) -> io::Result<()> {
    // A file system without seals answers EINVAL: no memfd.
    let present = fcntl(File::open(EXECUTABLE)?, FcntlArg::F_GET_SEALS).unwrap_or(0);
    if SealFlag::from_bits_retain(present).contains(seals()) || is_overlaid()? {
        return Ok(());
    }
    let program = program()?;
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    Err(Command::new(path).arg0(argv0).args(args).exec())
}
