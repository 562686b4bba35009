//! A case's system calls as a program: a static x86_64 executable, made to the byte.
//!
//! One call a line, `NAME ARG…`, with the kernel's own names. The program makes them in turn and
//! writes for each a line of its name and `ok` or the errno, as the kernel gave it to it: that
//! is the case's own witness. No library stands between, and none is needed where it runs.
//!
//! Arguments, separated by spaces:
//!
//! - `17`, `-1`, `0x1f`, `0755`: a number;
//! - `'text'`: the address of these bytes and a NUL;
//! - `[1,2w,'text',[…]]`: the address of a structure, numbers as 8 bytes, with `w` as 4;
//! - `@name:64`: the address of so many zero bytes, known as `@name` from there on;
//! - `@name=[…]`: a structure's, likewise;
//! - `$fd`: what the call returned that is written `fd=NAME ARG…`.
//!
//! `-NAME` writes no line, `32:NAME` goes by `int 0x80` as i386's calls do, `high:NAME` has bits
//! in the number that the kernel does not look at. A child that a call
//! makes ends at once. `show 'PATH'` writes what a symbolic link says.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use paddock_seccomp::Arch;

use crate::raw::{BASE, HEADERS, headers};

/// Of the table's entries: ` EPERM\n`, filled with spaces on the left.
const WIDTH: u8 = 18;
/// One past the highest errno; its entry stands for all that are above.
const ERRNOS: i32 = 134;
/// The kernel takes a call's number as an `int`, and keeps the register as it was.
/// <https://github.com/torvalds/linux/blob/v6.18/arch/x86/entry/entry_64.S>
const HIGH: u64 = 0x1234_5678 << 32;

/// Writes the program to `path`.
pub(crate) fn write(path: &Path, calls: &[String]) -> Result<()> {
    let program = assemble(calls)?;
    fs::write(path, program).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn assemble(calls: &[String]) -> Result<Vec<u8>> {
    let mut data = Data::default();
    let table = data.put(&errnos())?;
    let mut names = Vec::new();
    let calls: Vec<_> = calls
        .iter()
        .flat_map(|line| shown(line))
        .map(|line| Call::parse(&line, &mut data, &mut names).context(line.clone()))
        .collect::<Result<_>>()?;
    let results = calls.iter().map(|_| data.put(&[0; 8]));
    let results: Vec<_> = results.collect::<Result<_>>()?;
    let mut code = Vec::new();
    for (call, result) in calls.iter().zip(&results) {
        call.enter(&mut code, &results)?;
        // mov [result], rax
        code.extend([0x48, 0x89, 0x04, 0x25]);
        code.extend(result.to_le_bytes());
        if call.forks {
            // test eax, eax; jnz over; mov eax, SYS_exit; xor edi, edi; syscall
            code.extend([0x85, 0xc0, 0x75, 0x09, 0xb8, 0x3c, 0, 0, 0, 0x31, 0xff]);
            code.extend([0x0f, 0x05]);
        }
        if let Some((label, length)) = call.label {
            print(&mut code, label, length);
            outcome(&mut code, *result, table);
        }
    }
    // mov eax, SYS_exit_group; xor edi, edi; syscall
    code.extend([0xb8, 0xe7, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
    let start = BASE + HEADERS + u32::try_from(data.bytes.len())?;
    let mut file = headers(start, (data.bytes.len() + code.len()) as u64);
    file.extend(data.bytes);
    file.extend(code);
    Ok(file)
}

/// A line's calls: of `show` three.
fn shown(line: &str) -> Vec<String> {
    match line.strip_prefix("show ") {
        Some(path) => vec![
            format!("-shown=readlink {path} @shown:256 256"),
            "-write 1 @shown $shown".to_owned(),
            "-write 1 '\n' 1".to_owned(),
        ],
        None => vec![line.to_owned()],
    }
}

fn errnos() -> Vec<u8> {
    (0..=ERRNOS)
        .flat_map(|number| {
            let name = match number {
                0 => "ok".to_owned(),
                ERRNOS => "unknown".to_owned(),
                _ => format!("{:?}", Errno::from_raw(number)),
            };
            format!("{name:>width$}\n", width = usize::from(WIDTH) - 1).into_bytes()
        })
        .collect()
}

/// `write(1, text, length)`.
fn print(code: &mut Vec<u8>, text: u32, length: u32) {
    // mov eax, SYS_write; mov edi, 1; mov esi, text; mov edx, length; syscall
    code.extend([0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe]);
    code.extend(text.to_le_bytes());
    code.push(0xba);
    code.extend(length.to_le_bytes());
    code.extend([0x0f, 0x05]);
}

/// Writes the table's entry of a result.
fn outcome(code: &mut Vec<u8>, result: u32, table: u32) {
    // mov rax, [result]; neg rax; xor ecx, ecx; test rax, rax; cmovs rax, rcx
    code.extend([0x48, 0x8b, 0x04, 0x25]);
    code.extend(result.to_le_bytes());
    code.extend([0x48, 0xf7, 0xd8, 0x31, 0xc9, 0x48, 0x85, 0xc0, 0x48, 0x0f]);
    code.extend([0x48, 0xc1]);
    // mov ecx, ERRNOS; cmp eax, ecx; cmova eax, ecx
    code.push(0xb9);
    code.extend(ERRNOS.to_le_bytes());
    code.extend([0x39, 0xc8, 0x0f, 0x47, 0xc1]);
    // imul eax, eax, WIDTH; add eax, table; mov esi, eax
    code.extend([0x6b, 0xc0, WIDTH, 0x05]);
    code.extend(table.to_le_bytes());
    code.extend([0x89, 0xc6]);
    // mov eax, SYS_write; mov edi, 1; mov edx, WIDTH; syscall
    code.extend([0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xba]);
    code.extend(u32::from(WIDTH).to_le_bytes());
    code.extend([0x0f, 0x05]);
}

/// What lies before the code, and where each piece of it is.
#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
    buffers: Vec<(String, u32)>,
}

impl Data {
    fn put(&mut self, bytes: &[u8]) -> Result<u32> {
        // Aligned for any structure.
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let place = BASE + HEADERS + u32::try_from(self.bytes.len())?;
        self.bytes.extend(bytes);
        Ok(place)
    }

    fn buffer(&mut self, text: &str) -> Result<u32> {
        let (name, size) = text.split_once(':').unwrap_or((text, ""));
        if let Some((_, place)) = self.buffers.iter().find(|(known, _)| known == name) {
            return Ok(*place);
        }
        let size: usize = size.parse().with_context(|| format!("@{text}: no size"))?;
        let place = self.put(&vec![0; size])?;
        self.buffers.push((name.to_owned(), place));
        Ok(place)
    }
}

#[derive(Clone, Copy)]
enum Arg {
    Number(u64),
    Result(usize),
}

struct Call {
    number: u64,
    args: Vec<Arg>,
    compat: bool,
    forks: bool,
    /// Address and length of what stands before the outcome.
    label: Option<(u32, u32)>,
}

impl Call {
    /// `names` are those of the calls before it.
    fn parse(line: &str, data: &mut Data, names: &mut Vec<String>) -> Result<Self> {
        let (name, mut rest) = line.split_once(' ').unwrap_or((line, ""));
        let (silent, name) = match name.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, name),
        };
        let (result, name) = name.split_once('=').unwrap_or(("", name));
        let (arch, name) = match name.strip_prefix("32:") {
            Some(name) => (Arch::X86, name),
            None => (Arch::X86_64, name),
        };
        let (high, name) = match name.strip_prefix("high:") {
            Some(name) => (HIGH, name),
            None => (0, name),
        };
        let number = arch
            .number(name)
            .with_context(|| format!("no system call is called {name}"))?;
        let mut args = Vec::new();
        while !rest.trim_start().is_empty() {
            args.push(argument(&mut rest, data, names)?);
        }
        names.push(result.to_owned());
        ensure!(args.len() <= 6, "more than six arguments");
        let label = if silent {
            None
        } else {
            Some((data.put(name.as_bytes())?, u32::try_from(name.len())?))
        };
        Ok(Self {
            number: u64::from(number) | high,
            args,
            compat: arch == Arch::X86,
            forks: ["clone", "clone3", "fork", "vfork"].contains(&name),
            label,
        })
    }

    fn enter(&self, code: &mut Vec<u8>, results: &[u32]) -> Result<()> {
        // By register: rdi rsi rdx r10 r8 r9, or ebx ecx edx esi edi; an immediate, a load.
        const WIDE: [(&[u8], &[u8]); 6] = [
            (&[0x48, 0xbf], &[0x48, 0x8b, 0x3c, 0x25]),
            (&[0x48, 0xbe], &[0x48, 0x8b, 0x34, 0x25]),
            (&[0x48, 0xba], &[0x48, 0x8b, 0x14, 0x25]),
            (&[0x49, 0xba], &[0x4c, 0x8b, 0x14, 0x25]),
            (&[0x49, 0xb8], &[0x4c, 0x8b, 0x04, 0x25]),
            (&[0x49, 0xb9], &[0x4c, 0x8b, 0x0c, 0x25]),
        ];
        const NARROW: [(&[u8], &[u8]); 5] = [
            (&[0xbb], &[0x8b, 0x1c, 0x25]),
            (&[0xb9], &[0x8b, 0x0c, 0x25]),
            (&[0xba], &[0x8b, 0x14, 0x25]),
            (&[0xbe], &[0x8b, 0x34, 0x25]),
            (&[0xbf], &[0x8b, 0x3c, 0x25]),
        ];
        let registers: &[_] = if self.compat { &NARROW } else { &WIDE };
        for (index, (immediate, load)) in registers.iter().enumerate() {
            match self.args.get(index).copied().unwrap_or(Arg::Number(0)) {
                Arg::Number(number) => {
                    code.extend(*immediate);
                    let bytes = number.to_le_bytes();
                    code.extend(&bytes[..if self.compat { 4 } else { 8 }]);
                }
                Arg::Result(from) => {
                    code.extend(*load);
                    let from = results.get(from).context("no such result")?;
                    code.extend(from.to_le_bytes());
                }
            }
        }
        // mov rax, number
        code.extend([0x48, 0xb8]);
        code.extend(self.number.to_le_bytes());
        if self.compat {
            // int 0x80; cdqe
            code.extend([0xcd, 0x80, 0x48, 0x98]);
        } else {
            code.extend([0x0f, 0x05]);
        }
        Ok(())
    }
}

/// Takes one argument off the front.
fn argument(rest: &mut &str, data: &mut Data, names: &[String]) -> Result<Arg> {
    *rest = rest.trim_start();
    if let Some(name) = rest.strip_prefix('$') {
        let end = name.find(' ').unwrap_or(name.len());
        *rest = &name[end..];
        let known = names.iter().rposition(|known| *known == name[..end]);
        return Ok(Arg::Result(known.context("no call has that name")?));
    }
    Ok(Arg::Number(value(rest, data)?.0))
}

/// Takes one value off the front: itself, and its size inside of a structure.
fn value(rest: &mut &str, data: &mut Data) -> Result<(u64, usize)> {
    if let Some(text) = rest.strip_prefix('\'') {
        let (text, after) = text.split_once('\'').context("no closing quote")?;
        *rest = after;
        let place = data.put(&[text.as_bytes(), &[0]].concat())?;
        return Ok((place.into(), 8));
    }
    if let Some(inner) = rest.strip_prefix('[') {
        *rest = inner;
        let mut bytes = Vec::new();
        while !rest.starts_with(']') {
            let (number, size) = value(rest, data)?;
            bytes.extend(&number.to_le_bytes()[..size]);
            *rest = rest.strip_prefix(',').unwrap_or(rest);
            ensure!(!rest.is_empty(), "no closing bracket");
        }
        *rest = &rest[1..];
        return Ok((data.put(&bytes)?.into(), 8));
    }
    let end = rest.find([' ', ',', ']', '=']).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    if let Some(name) = word.strip_prefix('@') {
        if let Some(after) = rest.strip_prefix('=') {
            *rest = after;
            let place = value(rest, data)?.0;
            data.buffers.push((name.to_owned(), u32::try_from(place)?));
            return Ok((place, 8));
        }
        return Ok((data.buffer(name)?.into(), 8));
    }
    let (word, size) = match word.strip_suffix('w') {
        Some(word) => (word, 4),
        None => (word, 8),
    };
    let number = if let Some(digits) = word.strip_prefix("0x") {
        u64::from_str_radix(digits, 16)
    } else if word.len() > 1 && word.starts_with('0') {
        u64::from_str_radix(word, 8)
    } else if word.starts_with('-') {
        word.parse().map(i64::cast_unsigned)
    } else {
        word.parse()
    };
    match number {
        Ok(number) => Ok((number, size)),
        Err(_) => bail!("{word} is no argument"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(name: &str, calls: &[&str]) -> String {
        let path = std::env::temp_dir().join(format!("paddock-{name}-{}", std::process::id()));
        let calls: Vec<_> = calls.iter().map(|&call| call.to_owned()).collect();
        write(&path, &calls).unwrap();
        let output = Command::new(&path).output().unwrap();
        fs::remove_file(&path).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn words(text: &str) -> Vec<Vec<&str>> {
        let lines = text.lines();
        lines
            .map(|line| line.split_whitespace().collect())
            .collect()
    }

    #[test]
    fn says_what_the_kernel_said() {
        let said = run(
            "said",
            &[
                "getpid",
                "close 999",
                "openat -100 '/no/such/file' 0",
                "32:close 999",
                "read -1 @buffer:16 16",
            ],
        );
        let want: [&[&str]; 5] = [
            &["getpid", "ok"],
            &["close", "EBADF"],
            &["openat", "ENOENT"],
            &["close", "EBADF"],
            &["read", "EBADF"],
        ];
        assert_eq!(words(&said), want);
    }

    #[test]
    fn results_and_buffers_go_on_to_later_calls() {
        let said = run(
            "passed",
            &[
                "-file=memfd_create 'name' 0",
                "write $file 'hello' 5",
                "lseek $file 0 0",
                "-length=read $file @text:16 16",
                "-write 1 @text $length",
                "writev 1 @vector=[' world\n',7] 1",
                "-child=clone3 [0,0,0,0,17,0,0,0] 64",
                "wait4 $child",
                "show '/proc/self/fd/3'",
            ],
        );
        let want: [&[&str]; 6] = [
            &["write", "ok"],
            &["lseek", "ok"],
            &["hello", "world"],
            &["writev", "ok"],
            &["wait4", "ok"],
            &["/memfd:name", "(deleted)"],
        ];
        assert_eq!(words(&said), want);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "no_such_call",
            "close x",
            "close 'open",
            "close [1",
            "close @new",
            "close $new",
        ] {
            assert!(assemble(&[line.to_owned()]).is_err(), "{line}");
        }
    }
}
