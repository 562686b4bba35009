//! Root on the host against what enforces: this process is not the agent, and is root.

use std::{
    error::Error as StdError,
    fs,
    io::{self, IoSliceMut},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::{ProgramInfo, loaded_links},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::{Files, text_of};
use crate::{
    context::{Context, eventually},
    raw::{self, DATA, call},
    runner::Scenario,
    scenarios::kernel::{able, equal, host_way, served},
};

pub const ALL: &[Scenario] = &[Scenario::new("policy::root_cannot_take_it_down", guarded).alone()];

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>, x86_64's number.
const SYS_BPF: u32 = 321;
const OBJ_GET: u64 = 7;
const LINK_UPDATE: u64 = 29;
const LINK_DETACH: u64 = 34;
const EPERM: u8 = 1;

const WALLS: &str = "name = \"walls\"\nmode = \"enforce\"\n\
    [[rule]]\nname = \"joining\"\nnamespace = { target = [\"host\", \"peer\"] }\n\
    [[rule]]\nname = \"away\"\nnetwork = { direction = \"egress\", net = \"127.9.9.9\" }\n\
    [[rule]]\nname = \"dice\"\ndevice = \"c 1:8\"\n";

/// Where the kernel asks, each act is refused and counted, agent or not; else what was done is
/// noticed, and put right where it can be.
fn guarded(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let asks = served(context, "guard", "lsm")?;
    let pins = context.state.join("bpf");
    // Until a policy is enforced nobody is kept from it.
    let map = MapInfo::from_pin(pins.join("map_SLOT_RULESET"))?.id();
    let files = Files::new()?;
    let policy = files.write("walls.toml", WALLS)?;
    context.ok(&["policy", "apply", &policy])?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    context.ok(&["run", "-d", "--name", "bound", "host", "sleep", "600"])?;
    if asks {
        refused(context, &pins, map)?;
        context.kill_agent()?;
        // Nobody is the agent now.
        refused_without_agent(context, &pins, map)?;
        context.start_agent(&[])?;
        refused(context, &pins, map)?;
        for (kind, count) in [
            ("map", 6),
            ("program", 3),
            ("pin", 6),
            ("mount", 6),
            ("process", 2),
        ] {
            counted(context, kind, "denied", count)?;
            counted(context, kind, "seen", 0)?;
        }
        let events = context.events()?;
        ensure!(
            events.contains("\"event\":\"tampering\""),
            "no event: {events}"
        );
    } else {
        done(context, &pins)?;
    }
    // What is in force still is.
    let mut args = able("joiner", &[&volume, &way]);
    args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", "7"]);
    let output = context.paddock(&args)?;
    let held = if asks {
        output.stdout == "7 calls, 7 refused\n"
    } else {
        output.code == Some(137)
    };
    ensure!(held, "{output:?}");
    // One asked of a socket, one of /dev/random.
    for way in ["busybox nc -w 1 127.9.9.9 9", "busybox cat /dev/random"] {
        let args = ["run", "--rm", "--network", "host", "host", "sh", "-c", way];
        let refused = context.paddock(&args)?;
        ensure!(
            refused.stderr.contains("Operation not permitted"),
            "{refused:?}"
        );
    }
    context.ok(&["rm", "-f", "bound"])?;
    context.ok(&["rm", "-f", "joiner"])?;
    context.ok(&["policy", "remove", "walls"])?;
    context.ok(&["unload"])?;
    ensure!(!pins.exists(), "unload left the pins");
    Ok(())
}

/// Two maps, a program, two pins, two mounts, three links.
fn refused_without_agent(context: &Context, pins: &Path, map: u32) -> Result<()> {
    not_permitted("a map by its id", MapData::from_id(map))?;
    let pinned = MapData::from_pin(pins.join("map_SLOT_RULESET"));
    not_permitted("a map by its pin", pinned)?;
    let program = ProgramInfo::from_pin(pins.join("prog_guard_bpf"));
    not_permitted("a program by its pin", program)?;
    let pin = pins.join("link_guard_bpf");
    not_permitted("removing a pin", fs::remove_file(&pin))?;
    not_permitted("renaming a pin", fs::rename(&pin, pins.join("other")))?;
    not_permitted("unmounting", umount2(pins, MntFlags::MNT_DETACH))?;
    let none: Option<&str> = None;
    let over = mount(Some("none"), pins, Some("tmpfs"), MsFlags::empty(), none);
    not_permitted("mounting over it", over)?;
    let links = ["link_fexit_setns", "link_guard_bpf", "link_cgroup_device"];
    for (what, errno) in by_descriptor(context, pins, &links)? {
        let want = if what.starts_with("opening") {
            0
        } else {
            EPERM
        };
        ensure!(errno == want, "{what}: errno {errno}");
    }
    // Listing links opens each by its id.
    ensure!(
        loaded_links().any(|link| link.is_err_and(|error| is_eperm(&error))),
        "every link was opened"
    );
    Ok(())
}

/// A link's pin may be opened by anybody, and that is all: the tracing one's of an observer, the
/// guard's own, a cgroup's. What each call comes to, an errno or 0.
fn by_descriptor(context: &Context, pins: &Path, names: &[&str]) -> Result<Vec<(String, u8)>> {
    let (mut calls, mut data, mut whats) = (Vec::new(), Vec::new(), Vec::new());
    // After the standard ones; a number that does not exist ends in EBADF.
    for (name, descriptor) in names.iter().zip(3_u32..) {
        let path = text_of(&pins.join(name))?;
        let mut attribute = |bytes: &[u8]| {
            data.resize(data.len().next_multiple_of(8), 0);
            let place = u64::from(DATA) + data.len() as u64;
            data.extend(bytes);
            place
        };
        let path = attribute(&[path.as_bytes(), &[0]].concat());
        let open = attribute(&[path.to_le_bytes(), [0; 8]].concat());
        let link = attribute(&[u64::from(descriptor).to_le_bytes(), [0; 8]].concat());
        for (what, command, place) in [
            ("opening", OBJ_GET, open),
            ("detaching", LINK_DETACH, link),
            ("replacing", LINK_UPDATE, link),
        ] {
            calls.push(call(what, SYS_BPF, [command, place, 16, 0]));
            whats.push(format!("{what} {name}"));
        }
    }
    let program = raw::write_with(&context.state, "descriptors", &calls, &data)?;
    let output = Command::new(&program).output()?;
    fs::remove_file(&program)?;
    ensure!(output.stdout.len() == whats.len(), "{output:?}");
    Ok(whats.into_iter().zip(output.stdout).collect())
}

/// The same, and the agent's memory.
fn refused(context: &Context, pins: &Path, map: u32) -> Result<()> {
    refused_without_agent(context, pins, map)?;
    let agent = Pid::from_raw(context.agent_pid()?);
    let base = fs::read_to_string(format!("/proc/{agent}/stat"))?;
    ensure!(!base.is_empty(), "it cannot be looked at");
    let mut byte = [0];
    let remote = [RemoteIoVec { base: 4096, len: 1 }];
    let read = process_vm_readv(agent, &mut [IoSliceMut::new(&mut byte)], &remote);
    not_permitted("reading the agent's memory", read)
}

fn not_permitted<T, E: StdError + 'static>(what: &str, result: Result<T, E>) -> Result<()> {
    let error = result
        .err()
        .with_context(|| format!("{what} was let through"))?;
    ensure!(is_eperm(&error), "{what}: {error:?}");
    Ok(())
}

fn is_eperm(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.and_then(io::Error::raw_os_error) == Some(nix::libc::EPERM)
            || error.downcast_ref::<nix::Error>() == Some(&nix::Error::EPERM)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Each is done, and each is noticed once.
fn done(context: &Context, pins: &Path) -> Result<()> {
    for kind in ["map", "program", "link", "pin", "mount", "process"] {
        counted(context, kind, "seen", 0)?;
        counted(context, kind, "denied", 0)?;
    }
    let map = MapData::from_pin(pins.join("map_SLOT_RULESET"))?;
    let mut rulesets: Array<_, u32> = Map::from_map_data(map)?.try_into()?;
    let bound = (1..rulesets.len())
        .find(|slot| rulesets.get(slot, 0).is_ok_and(|ruleset| ruleset != 0))
        .context("nobody is bound")?;
    let before = rulesets.get(&bound, 0)?;
    rulesets.set(bound, 0, 0)?;
    eventually("the word is put right", || {
        Ok(rulesets.get(&bound, 0)? == before)
    })?;
    let away = ["link_cgroup_connect4", "link_cgroup_device"];
    for (what, errno) in by_descriptor(context, pins, &away)? {
        ensure!(
            errno == 0 || what.starts_with("replacing"),
            "{what}: errno {errno}"
        );
    }
    eventually("both are noticed", || {
        Ok(count(context, "link", "seen")? > 1.0)
    })?;
    fs::remove_file(pins.join("link_sys_exit_bpf"))?;
    noticed(context, "pin")?;
    umount2(pins, MntFlags::MNT_DETACH)?;
    noticed(context, "mount")?;
    for (kind, count) in [("map", 1), ("pin", 1), ("mount", 1), ("link", 2)] {
        counted(context, kind, "seen", count)?;
    }
    let log = context.agent_log();
    ensure!(
        log.contains("somebody else has changed SLOT_RULESET"),
        "{log}"
    );
    Ok(())
}

fn noticed(context: &Context, kind: &str) -> Result<()> {
    eventually(kind, || Ok(count(context, kind, "seen")? > 0.0))
}

fn count(context: &Context, kind: &str, outcome: &str) -> Result<f64> {
    let labels = [("kind", kind), ("outcome", outcome)];
    let value = context.metrics()?.value("paddock_tampering_total", &labels);
    value.with_context(|| format!("no series {kind} {outcome}"))
}

fn counted(context: &Context, kind: &str, outcome: &str, want: u32) -> Result<()> {
    equal(kind, count(context, kind, outcome)?, want)
}
