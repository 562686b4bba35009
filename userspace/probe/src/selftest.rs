//! Does the kernel half read what is there? The loader makes harmless calls and compares what
//! the hooks saw of it with procfs. A capability that reads wrong is switched off, by name:
//! better blind than lying.

use std::{
    fmt, fs,
    io::{self, IoSliceMut, Write},
    net::{Ipv4Addr, UdpSocket},
    os::{fd::AsRawFd, unix::net::UnixStream},
    process::{self, Command, Stdio},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{Program, RawTracePointRunOptions, TestRun as _},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::{Mode, fchmod},
        uio::{RemoteIoVec, process_vm_readv},
    },
    unistd::{Pid, gettid},
};
use paddock_abi::{
    key::{Observation, SELFTEST_PACKET, State},
    namespace::{NS_TYPES, NsType, Target},
    question::Question,
};

use crate::{
    CapabilityStatus, Error, NsInums, Refusal,
    kernel_types::KernelTypes,
    ladder::QUESTION_PROGRAM,
    load::Attached,
    maps::Maps,
    probe::state,
    procfs::{self, OwnCgroup},
};

/// `"nsfs"`: <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/magic.h>
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// The loader's own last call under the tests is a look into a map.
const BPF_MAP_LOOKUP_ELEM: i64 = 1;
/// Who is asked before a call sees the one that ends the tests, too.
const BPF_MAP_UPDATE_ELEM: i64 = 2;
/// Major 1, minor 3, as the kernel keeps it.
const NULL_DEVICE: i64 = 1 << 20 | 3;
const AF_UNIX: i64 = 1;
/// Of a file without a name.
const MODE: i64 = 0o400;
/// Nothing is sent there.
const DISCARD: u16 = 9;
/// What the test's child exits with.
const CHILD_CODE: i32 = 42;

/// What procfs says.
struct Truth {
    tgid: u32,
    comm: Vec<u8>,
    namespaces: NsInums,
    unified: Option<OwnCgroup>,
    memory: Option<OwnCgroup>,
    pids: Option<OwnCgroup>,
    /// The child's process id, where one could be made; the id of the cgroup likewise.
    child: Option<u32>,
    cgroup: Option<u64>,
    /// Whether a packet could be sent.
    sent: bool,
}

/// Tests every attached rung; returns those that read right, and the first namespaces.
pub(crate) fn run(
    ebpf: &Ebpf,
    maps: &mut Maps,
    observed: &Array<MapData, Observation>,
    attached: Vec<Attached>,
    statuses: &mut [CapabilityStatus],
    types: &KernelTypes,
) -> Result<(Vec<Attached>, NsInums), Error> {
    // Programs that are there already go on judging by what they know.
    let testing = State {
        selftest_tid: gettid().as_raw().cast_unsigned(),
        selftest_child: 0,
        ..maps.state.get(&0, 0).unwrap_or_default()
    };
    set_state(maps, testing)?;
    let truth = act(ebpf);
    let host = first_namespaces(&observation(observed, 0));
    // Before 6.9 a pidfd is an anonymous inode and only its operations tell it from others.
    let pidfd_fops = match types.offset("pid", "stashed") {
        Some(_) => 0,
        None => procfs::symbol("pidfd_fops").unwrap_or(0),
    };
    set_state(maps, state(host, pidfd_fops))?;
    let mut good = Vec::new();
    for rung in attached {
        let seen = observation(observed, rung.capability.observed);
        match judge(rung.capability.name, &seen, &truth) {
            Ok(()) => good.push(rung),
            Err(reason) => switch_off(statuses, rung.capability.name, &reason),
        }
    }
    Ok((good, host))
}

fn switch_off(statuses: &mut [CapabilityStatus], name: &str, reason: &str) {
    if let Some(status) = statuses.iter_mut().find(|status| status.capability == name) {
        let rung = status.rung.take().unwrap_or_default();
        let reason = format!("self-test: {reason}");
        status.refused.push(Refusal {
            rung,
            errno: None,
            reason,
        });
    }
}

fn set_state(maps: &mut Maps, state: State) -> Result<(), Error> {
    maps.state
        .set(0, state, 0)
        .map_err(|source| Error::map("write", "STATE", source))
}

fn observation(observed: &Array<MapData, Observation>, place: u32) -> Observation {
    observed.get(&place, 0).unwrap_or_default()
}

/// The harmless calls. Their own failures show as hooks that saw nothing.
fn act(ebpf: &Ebpf) -> Truth {
    if let Ok(own) = fs::File::open("/proc/self/ns/net") {
        ask(ebpf, &own);
        report(
            "setns to the own network namespace",
            setns(own, CloneFlags::CLONE_NEWNET),
        );
    }
    report("unshare of nothing", unshare(CloneFlags::empty()));
    reach();
    let sent = send().inspect_err(|error| log::debug!("self-test's packet: {error}"));
    let unified = procfs::own_cgroup(None);
    let memory = procfs::own_cgroup(Some("memory"));
    let child = child()
        .inspect_err(|error| log::debug!("self-test's child: {error}"))
        .ok();
    let cgroup = unified
        .as_ref()
        .or(memory.as_ref())
        .and_then(|own| make_cgroup(own).ok());
    let mut comm = fs::read("/proc/thread-self/comm").unwrap_or_default();
    comm.pop();
    Truth {
        tgid: process::id(),
        comm,
        namespaces: procfs::namespaces("thread-self"),
        unified,
        memory,
        pids: procfs::own_cgroup(Some("pids")),
        child,
        cgroup,
        sent: sent.is_ok(),
    }
}

/// What a monitor asks, about the loader itself.
fn ask(ebpf: &Ebpf, own: &fs::File) {
    let Some(Program::RawTracePoint(program)) = ebpf.program(QUESTION_PROGRAM) else {
        return;
    };
    let question = Question {
        tid: gettid().as_raw().cast_unsigned(),
        fd: own.as_raw_fd(),
        flags: 0,
    };
    let mut options = RawTracePointRunOptions::new();
    for (place, word) in options.args.iter_mut().zip(question.words()) {
        *place = word;
    }
    let answer = program.test_run(options);
    log::debug!("self-test's question: {answer:?}");
}

/// What the activities' hooks are to see; what fails does so after they looked.
fn reach() {
    let nowhere = "/proc/self/paddock-selftest";
    let refused = mount(
        Some("none"),
        nowhere,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    );
    if refused.is_ok() {
        log::warn!("self-test: a mount on {nowhere}, which is not there, succeeded");
    }
    let mut byte = [0];
    let own = RemoteIoVec { base: 0, len: 0 };
    let nothing = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut byte)], &[own]);
    log::debug!("self-test's reading of nothing: {nothing:?}");
    if let Err(error) = fs::File::open("/dev/null") {
        log::debug!("self-test's open: {error}");
    }
    let nameless = memfd_create(c"paddock-selftest", MFdFlags::MFD_CLOEXEC);
    let changed = nameless.and_then(|file| fchmod(file, Mode::S_IRUSR));
    report("change of a mode", changed);
    if let Err(error) = fs::read_to_string("/proc/sys/kernel/ostype") {
        log::debug!("self-test's look at a parameter: {error}");
    }
    // Before the one that is told apart by its family.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    if let Err(error) = socket.and_then(|one| one.connect((Ipv4Addr::LOCALHOST, DISCARD))) {
        log::debug!("self-test's choice of a peer: {error}");
    }
    if UnixStream::connect(nowhere).is_ok() {
        log::warn!("self-test: a connection to {nowhere}, which is not there");
    }
}

/// To itself.
fn send() -> io::Result<usize> {
    const BESIDE: usize = 20 + 8;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let packet = [0; SELFTEST_PACKET as usize - BESIDE];
    socket.send_to(&packet, socket.local_addr()?)
}

fn report(what: &str, result: nix::Result<()>) {
    if let Err(errno) = result {
        log::debug!("self-test's {what}: {errno}");
    }
}

/// Runs a program of two instructions from memory: no file of the host's is needed.
fn child() -> io::Result<u32> {
    let memory = memfd_create(c"paddock-selftest", MFdFlags::MFD_CLOEXEC)?;
    let mut file = fs::File::from(memory);
    file.write_all(&tiny_elf())?;
    // The kernel refuses to run what is open for writing, so the child gets a reading descriptor.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let readable = fs::File::open(&path)?;
    drop(file);
    let path = format!("/proc/self/fd/{}", readable.as_raw_fd());
    let mut child = Command::new(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let id = child.id();
    child.wait()?;
    Ok(id)
}

/// `exit(42)` as a static ELF: one header, one segment.
fn tiny_elf() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    #[cfg(target_arch = "x86_64")]
    let (machine, code): (u16, Vec<u8>) = (62, {
        // mov edi, 42; mov eax, 60 (exit); syscall
        vec![0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]
    });
    #[cfg(not(target_arch = "x86_64"))]
    let (machine, code): (u16, Vec<u8>) = (183, {
        // mov x0, #42; mov x8, #93 (exit); svc #0
        [0xd280_0540_u32, 0xd280_0ba8, 0xd400_0001]
            .iter()
            .flat_map(|op| op.to_le_bytes())
            .collect()
    });
    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Type EXEC, machine, version; entry, program headers, section headers; flags; sizes and counts.
    elf.extend(2_u16.to_le_bytes());
    elf.extend(machine.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // LOAD, read and execute; offset, address twice, size twice, alignment.
    elf.extend(1_u32.to_le_bytes());
    elf.extend(5_u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// Makes and removes a cgroup below the own one.
fn make_cgroup(own: &OwnCgroup) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let directory = own
        .directory
        .join(format!("paddock-selftest-{}", process::id()));
    fs::create_dir(&directory)?;
    let id = fs::metadata(&directory).map(|found| found.ino());
    fs::remove_dir(&directory)?;
    id
}

/// What the hook saw against what procfs says.
fn judge(capability: &str, seen: &Observation, truth: &Truth) -> Result<(), String> {
    match capability {
        // Only a real kill could test it; its walks start with the same identity.
        "oom" | "signal" | "privilege" => return Ok(()),
        "cgroup" => {
            let Some(made) = truth.cgroup else {
                return Ok(());
            };
            is("a cgroup's id", seen.ret, made.cast_signed())?;
        }
        "exec" | "exit" if truth.child.is_none() => return Ok(()),
        "traffic" if !truth.sent => return Ok(()),
        _ => {}
    }
    if seen.hits == 0 {
        return Err("the hook saw nothing of a call that was made".to_owned());
    }
    if capability == "traffic" {
        is("the packet's length", seen.ret, i64::from(SELFTEST_PACKET))?;
        // Of the socket, which the loader made; no other identity is read.
        let unified = truth.unified.as_ref();
        return unified.map_or(Ok(()), |own| {
            is("the cgroup v2 id", seen.unified_id, own.id)
        });
    }
    if let ("exec" | "exit", Some(child)) = (capability, truth.child) {
        is("the child's process id", seen.tgid, child)?;
        is("the parent's process id", seen.parent_tgid, truth.tgid)?;
    } else {
        is("the process id", seen.tgid, truth.tgid)?;
        is(
            "the command's name",
            text(&seen.comm),
            truth.comm.as_slice(),
        )?;
    }
    if capability == "exit" {
        // Its namespaces are gone by then on some kernels.
        is("the exit status", seen.ret, i64::from(CHILD_CODE) << 8)?;
    } else {
        for ty in NsType::ALL {
            let (seen, truth) = (seen.inums[ty.index()], truth.namespaces[ty.index()]);
            if truth != 0 {
                is(ty.name(), seen, truth)?;
            }
        }
    }
    // What its arguments, or the kernel's structures, say of the call that was made.
    match capability {
        "mount" => is("the file system's class", seen.ret, Target::New as i64)?,
        "process" => is("the process found", seen.ret, i64::from(truth.tgid))?,
        "kernel" => is("bpf's command", seen.ret, BPF_MAP_LOOKUP_ELEM)?,
        "guard" => is("bpf's command", seen.ret, BPF_MAP_UPDATE_ELEM)?,
        "open" | "enforce" | "device" => is("the device's number", seen.ret, NULL_DEVICE)?,
        "paths" => is("the mode", seen.ret, MODE)?,
        "sysctl" => is("that it was written", seen.ret, 0)?,
        "network" => is("the peer's port", seen.ret, i64::from(DISCARD))?,
        "connect" => is("the socket's family", seen.ret, AF_UNIX)?,
        _ => {}
    }
    if matches!(capability, "setns" | "question") {
        is("the descriptor's file system", seen.magic, NSFS_MAGIC)?;
        is("the descriptor's type", seen.target_mask, NsType::Net.bit())?;
        is(
            "the descriptor's namespace",
            seen.target_inum,
            truth.namespaces[NsType::Net.index()],
        )?;
    }
    cgroups(seen, truth)
}

fn cgroups(seen: &Observation, truth: &Truth) -> Result<(), String> {
    if let Some(own) = &truth.unified {
        is("the cgroup v2 id", seen.unified_id, own.id)?;
    }
    if let Some(own) = &truth.memory {
        is(
            "the v1 memory cgroup's id",
            seen.memory_id,
            if own.is_root { 0 } else { own.id },
        )?;
    }
    if let Some(own) = &truth.pids {
        is(
            "the v1 pids cgroup's id",
            seen.pids_id,
            if own.is_root { 0 } else { own.id },
        )?;
    }
    Ok(())
}

fn is<T: PartialEq + fmt::Debug + Copy>(what: &str, seen: T, truth: T) -> Result<(), String> {
    if seen == truth {
        Ok(())
    } else {
        Err(format!("{what} reads {seen:?}, procfs says {truth:?}"))
    }
}

fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// As the first task has them, else as pid 1 does; a fixed number where the kernel promises one.
fn first_namespaces(seen: &Observation) -> NsInums {
    /// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/nsfs.h>: cgroup, ipc, mnt,
    /// net, pid, time, user, uts. mnt and net have no fixed number before 6.18.
    const FIXED: NsInums = [
        0xEFFF_FFFB,
        0xEFFF_FFFF,
        0,
        0,
        0xEFFF_FFFC,
        0xEFFF_FFFA,
        0xEFFF_FFFD,
        0xEFFF_FFFE,
    ];
    let init = procfs::namespaces("1");
    let mut host = [0; NS_TYPES];
    for ty in NsType::ALL {
        let place = ty.index();
        let candidates = match ty {
            // Where kernel threads are kept apart, pid 1's mounts are the host's.
            NsType::Mnt => [init[place], seen.first[place], FIXED[place]],
            _ => [seen.first[place], init[place], FIXED[place]],
        };
        host[place] = candidates.into_iter().find(|inum| *inum != 0).unwrap_or(0);
    }
    host
}
