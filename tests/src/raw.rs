//! Programs of raw system calls, made to the byte: no C library between a test and the kernel.
//!
//! A static x86_64 executable that makes a list of calls and writes one byte for each to
//! standard output: 0 when it succeeded, else its errno. Calls may enter the kernel by
//! `int 0x80`, as i386's do, from the same program.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// By which door, which number, which arguments; the missing ones are 0.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub what: &'static str,
    pub door: Door,
    pub number: u32,
    pub args: [u64; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Syscall,
    Int80,
}

/// `number(args)` by the syscall instruction; x32's numbers have their bit.
pub const fn call(what: &'static str, number: u32, args: [u64; 4]) -> Call {
    Call {
        what,
        door: Door::Syscall,
        number,
        args,
    }
}

/// Likewise by `int 0x80`, i386's numbers.
pub const fn call32(what: &'static str, number: u32, args: [u64; 4]) -> Call {
    Call {
        door: Door::Int80,
        ..call(what, number, args)
    }
}

/// Writes the program and returns its path.
pub fn write(directory: &Path, name: &str, calls: &[Call]) -> Result<PathBuf> {
    write_with(directory, name, calls, &[])
}

/// The same with `data` at [`DATA`], for arguments that are pointers.
pub fn write_with(directory: &Path, name: &str, calls: &[Call], data: &[u8]) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, program(calls, data))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

pub(crate) const BASE: u32 = 0x40_0000;
pub(crate) const HEADERS: u32 = 64 + 56;
/// Where data are, above the code of any program here.
pub const DATA: u32 = BASE + 0x8000;
/// Where the results are, above both.
const RESULTS: u32 = BASE + 0x1_0000;

const SYS_WRITE: u32 = 1;
const SYS_EXIT_GROUP: u32 = 231;

fn program(calls: &[Call], data: &[u8]) -> Vec<u8> {
    let mut code = Vec::new();
    for (one, result) in calls.iter().zip(RESULTS..) {
        match one.door {
            Door::Syscall => enter(&mut code, one.number, one.args),
            Door::Int80 => enter_32(&mut code, one.number, one.args),
        }
        // neg eax; xor ecx, ecx; test eax, eax; cmovs eax, ecx; mov [result], al
        code.extend([
            0xf7, 0xd8, 0x31, 0xc9, 0x85, 0xc0, 0x0f, 0x48, 0xc1, 0x88, 0x04, 0x25,
        ]);
        code.extend(result.to_le_bytes());
    }
    enter(
        &mut code,
        SYS_WRITE,
        [1, RESULTS.into(), calls.len() as u64, 0],
    );
    enter(&mut code, SYS_EXIT_GROUP, [0; 4]);
    if !data.is_empty() {
        code.resize((DATA - BASE - HEADERS) as usize, 0);
        code.extend(data);
    }
    let mut file = headers(BASE + HEADERS, code.len() as u64);
    file.extend(code);
    file
}

/// mov eax, rdi, rsi, rdx, r10; syscall
fn enter(code: &mut Vec<u8>, number: u32, args: [u64; 4]) {
    code.push(0xb8);
    code.extend(number.to_le_bytes());
    for (register, arg) in [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba]]
        .iter()
        .zip(args)
    {
        code.extend(register);
        code.extend(arg.to_le_bytes());
    }
    code.extend([0x0f, 0x05]);
}

/// mov eax, ebx, ecx, edx, esi; int 0x80
fn enter_32(code: &mut Vec<u8>, number: u32, args: [u64; 4]) {
    code.push(0xb8);
    code.extend(number.to_le_bytes());
    for (register, arg) in [0xbb, 0xb9, 0xba, 0xbe].into_iter().zip(args) {
        code.push(register);
        code.extend(&arg.to_le_bytes()[..4]);
    }
    code.extend([0xcd, 0x80]);
}

/// elf(5): one segment, readable, writable, executable, from the file's first byte on; `start`
/// is where it begins to run, `length` what follows the headers.
pub(crate) fn headers(start: u32, length: u64) -> Vec<u8> {
    let mut all = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |all: &mut Vec<u8>, value: u16| all.extend(value.to_le_bytes());
    let word = |all: &mut Vec<u8>, value: u32| all.extend(value.to_le_bytes());
    let long = |all: &mut Vec<u8>, value: u64| all.extend(value.to_le_bytes());
    // An executable for x86_64, version 1.
    half(&mut all, 2);
    half(&mut all, 62);
    word(&mut all, 1);
    long(&mut all, u64::from(start));
    // Program headers at 64, no sections, no flags.
    long(&mut all, 64);
    long(&mut all, 0);
    word(&mut all, 0);
    for size in [64, 56, 1, 0, 0, 0] {
        half(&mut all, size);
    }
    word(&mut all, 1);
    word(&mut all, 7);
    for value in [
        0,
        BASE.into(),
        BASE.into(),
        u64::from(HEADERS) + length,
        0x2_0000,
        0x1000,
    ] {
        long(&mut all, value);
    }
    all
}
