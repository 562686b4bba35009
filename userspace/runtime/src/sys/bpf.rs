//! bpf(2), for two programs: one that says who may use which device in a v2 cgroup (4.15), made
//! here, which lives with the cgroup once it is attached and goes with it; and one of the kernel
//! half's that is asked before a setns goes on.
#![expect(unsafe_code, reason = "bpf has no safe wrapper")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;

use super::{check, task::with_memory_lock};

const PROG_LOAD: libc::c_int = 5;
const OBJ_GET: libc::c_int = 7;
const PROG_ATTACH: libc::c_int = 8;
const TEST_RUN: libc::c_int = 10;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`, `BPF_CGROUP_DEVICE`.
const PROGRAM_TYPE: u32 = 15;
const ATTACH_TYPE: u32 = 6;
/// Beside programs of others', above or below.
const ALLOW_MULTI: u32 = 2;

/// The kernel's union in whole: some kernels (6.17 to 7.1) write past a shorter one.
type Attributes = [u64; 20];

/// Two 32-bit fields of the union, as little-endian machines have them.
const fn pair(first: u32, second: u32) -> u64 {
    (second as u64) << 32 | first as u64
}

/// Loads the program and attaches it to the cgroup.
pub(crate) fn limit_devices(cgroup: BorrowedFd<'_>, program: &[[u8; 8]]) -> nix::Result<()> {
    let length = u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let mut attributes: Attributes = [0; 20];
    attributes[0] = pair(PROGRAM_TYPE, length);
    attributes[1] = program.as_ptr().expose_provenance() as u64;
    attributes[2] = c"Apache-2.0".as_ptr().expose_provenance() as u64;
    // prog_name, for bpftool.
    attributes[6] = u64::from_le_bytes(*b"paddock_");
    attributes[7] = u64::from_le_bytes(*b"devices\0");
    attributes[8] = pair(0, ATTACH_TYPE);
    let mut load = || bpf(PROG_LOAD, &mut attributes);
    // Before 5.11 programs are charged against a limit that is mostly used up by the kernel half.
    let loaded = match load() {
        Err(Errno::EPERM) => with_memory_lock(load),
        other => other,
    };
    let fd = RawFd::try_from(loaded?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd) };
    let number = |fd: RawFd| fd.cast_unsigned();
    let mut attributes: Attributes = [0; 20];
    attributes[0] = pair(number(cgroup.as_raw_fd()), number(loaded.as_raw_fd()));
    attributes[1] = pair(ATTACH_TYPE, ALLOW_MULTI);
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// A program by its pin.
pub(crate) fn pinned(path: &CStr) -> nix::Result<OwnedFd> {
    let mut attributes: Attributes = [0; 20];
    attributes[0] = path.as_ptr().expose_provenance() as u64;
    let fd = bpf(OBJ_GET, &mut attributes)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs a raw tracepoint's program on these words (5.10); what it returns.
pub(crate) fn ask(program: BorrowedFd<'_>, words: &[u64]) -> nix::Result<u32> {
    let mut attributes: Attributes = [0; 20];
    attributes[0] = u64::from(program.as_raw_fd().cast_unsigned());
    let size = u32::try_from(size_of_val(words)).map_err(|_| Errno::E2BIG)?;
    // ctx_size_in, and where it is.
    attributes[5] = u64::from(size);
    attributes[6] = words.as_ptr().expose_provenance() as u64;
    bpf(TEST_RUN, &mut attributes)?;
    // retval, behind prog_fd.
    Ok((attributes[0] >> 32) as u32)
}

fn bpf(command: libc::c_int, attributes: &mut Attributes) -> nix::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most the size given, which is the array's; the
    // addresses in it, of instructions and licence, are only read and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of::<Attributes>(),
        )
    })
}
