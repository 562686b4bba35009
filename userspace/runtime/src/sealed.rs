//! This executable as a sealed memfd, so that nothing a container reaches through
//! /proc/PID/exe is the file on disk (CVE-2019-5736). The seals used are 5.1's.
#![forbid(unsafe_code)]

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

const EXECUTABLE: &str = "/proc/self/exe";

fn seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL
}

/// A copy of the running executable that nobody can write to.
pub(crate) fn copy() -> io::Result<File> {
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

/// Goes on as that copy with the same words, or returns because this process is one already.
/// What is open without close-on-exec stays open.
pub fn ensure<S: AsRef<OsStr>>(argv0: &OsStr, args: &[S]) -> io::Result<()> {
    // A file system without seals answers EINVAL: no memfd.
    let present = fcntl(File::open(EXECUTABLE)?, FcntlArg::F_GET_SEALS).unwrap_or(0);
    if SealFlag::from_bits_retain(present).contains(seals()) {
        return Ok(());
    }
    let program = copy()?;
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    Err(Command::new(path).arg0(argv0).args(args).exec())
}
