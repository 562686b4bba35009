//! setns refused before it happens, whoever asks first: the kernel its security modules, or the
//! container's seccomp filter its monitor. Witnesses are the errnos that the callers were given,
//! and the namespaces that procfs says they are in.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::{
    Files,
    enforced::{WALLS, asks, hits, refuses},
};
use crate::{
    context::{Context, eventually},
    corpus::program,
    runner::Scenario,
    scenarios::kernel::{able, equal, host_way},
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::setns::of_every_type_by_every_door", every),
    Scenario::new("policy::setns::a_swapped_descriptor_leads_nowhere", swapped),
    Scenario::new("policy::setns::killed_before_it", killed),
    Scenario::new("policy::setns::what_an_exec_leaves_is_judged", left_behind).alone(),
    Scenario::new("policy::setns::said_of_whom_it_is_true", said).alone(),
    Scenario::new("policy::setns::closed_where_nobody_listens", unheard).alone(),
];

/// All types with their flags, the one last that every container here shares with the host.
const TYPES: [(&str, u32); 8] = [
    ("cgroup", 0x0200_0000),
    ("ipc", 0x0800_0000),
    ("mnt", 0x0002_0000),
    ("net", 0x4000_0000),
    ("time", 0x0000_0080),
    ("uts", 0x0400_0000),
    ("pid", 0x2000_0000),
    ("user", 0x1000_0000),
];
/// Of the host's the first are not the container's own.
const OF_HOST: usize = 6;
/// ipc, net and uts.
const THREE: u32 = 0x4c00_0000;

/// Calls, and the errno or `ok` that each is to get.
#[derive(Default)]
struct Calls {
    lines: Vec<String>,
    wanted: Vec<String>,
    descriptors: usize,
}

impl Calls {
    fn add(&mut self, line: String, wanted: &str) {
        let call = line.split(' ').next().unwrap_or_default();
        let call = call.rsplit(['=', ':']).next().unwrap_or_default();
        self.wanted.push(format!("{call} {wanted}"));
        self.lines.push(line);
    }

    fn descriptor(&mut self, call: &str) -> String {
        self.descriptors += 1;
        let name = format!("fd{}", self.descriptors);
        self.add(format!("{name}={call}"), "ok");
        format!("${name}")
    }

    fn open(&mut self, process: &str, namespace: &str) -> String {
        self.descriptor(&format!("openat -100 '/proc/{process}/ns/{namespace}' 0"))
    }

    fn setns(&mut self, descriptor: &str, flags: u32, wanted: &str) {
        self.add(format!("setns {descriptor} {flags:#x}"), wanted);
    }

    /// Where the caller is now.
    fn show(&mut self) {
        for (namespace, _) in TYPES {
            self.lines.push(format!("show '/proc/self/ns/{namespace}'"));
        }
    }

    fn write(&self, files: &Files) -> Result<String> {
        let path = files.0.join("calls");
        program::write(&path, &self.lines)?;
        Ok(format!("{}:/run/calls:ro", path.display()))
    }
}

/// One that sees the host's processes and may reach for all that they have.
fn reaches<'a>(name: &'a str, volumes: &[&'a str]) -> Vec<&'a str> {
    let mut args = able(name, volumes);
    args.splice(1..1, ["--pid", "host", "--timens", "private"]);
    args.splice(1..1, ["--cap-add", "SYS_PTRACE"]);
    args
}

fn every(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let policy = files.write("walls.toml", WALLS)?;
    context.ok(&["policy", "apply", &policy])?;
    context.ok(&[
        "run", "-d", "--name", "peer", "--timens", "private", "host", "sleep", "600",
    ])?;
    let peer = context.inspect("peer")?["pid"].to_string();
    let host = std::process::id().to_string();

    let mut calls = Calls::default();
    calls.show();
    let mut attempts = 0;
    for (process, types) in [(&host, &TYPES[..OF_HOST]), (&peer, &TYPES)] {
        for (namespace, flag) in types {
            let file = calls.open(process, namespace);
            calls.setns(&file, *flag, "EPERM");
            attempts += 1;
        }
        let pidfd = calls.descriptor(&format!("pidfd_open {process} 0"));
        for flags in types.iter().map(|(_, flag)| *flag).chain([THREE]) {
            calls.setns(&pidfd, flags, "EPERM");
            attempts += 1;
        }
    }
    let file = calls.open(&host, "uts");
    calls.setns(&file, 0, "EPERM");
    calls.add(format!("32:setns {file} 0"), "EPERM");
    // 5.10 by itself has no such call; who has a filter is in the one of the lower half.
    calls.add(format!("high:setns {file} 0"), "EPERM");
    attempts += 3;
    // Refused by the kernel itself, whatever policy says, and nothing to count.
    calls.setns(&file, THREE, "EINVAL");
    calls.setns("-1", 0, "EBADF");
    calls.show();
    for (namespace, flag) in TYPES {
        let own = calls.open("self", namespace);
        // Who is in a user namespace may not join it again.
        let wanted = if namespace == "user" { "EINVAL" } else { "ok" };
        calls.setns(&own, flag, wanted);
    }
    let own = calls.descriptor("getpid");
    let own = calls.descriptor(&format!("pidfd_open {own} 0"));
    calls.setns(&own, THREE, "ok");
    calls.show();
    // A filter of its own with a listener, of one instruction that allows everything: the kernel
    // lets a process have one.
    let wanted = if asks(context)? { "ok" } else { "EBUSY" };
    calls.add("seccomp 1 8 [1,[0x7fff000000000006]]".to_owned(), wanted);

    let volume = calls.write(&files)?;
    let mut args = reaches("reacher", &[&volume]);
    args.push("/run/calls");
    let output = context.paddock(&args)?;
    let lines = output.stdout.lines().map(words);
    let (said, places): (Vec<String>, Vec<String>) = lines.partition(|line| !line.contains(":["));
    ensure!(said == calls.wanted, "{said:#?}");
    let places: Vec<_> = places.chunks(TYPES.len()).collect();
    ensure!(
        places.len() == 3 && places[0] == places[1] && places[0] == places[2],
        "{places:#?}"
    );
    equal("denied", hits(context, "reacher", "deny")?, attempts)?;
    equal("killed", hits(context, "reacher", "kill")?, 0)?;
    // Each is on record as the attempt that it was, with the one that only the kernel refused.
    let events = context.ok(&["events", "--container", "reacher", "--format", "json"])?;
    let events = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for event in events.filter(|event| event["event"] != "namespace_call" || attempted(event)) {
        let kind = event["event"].as_str().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    ensure!(
        kinds.get("denial") == Some(&attempts)
            && kinds.get("namespace_call") == Some(&(attempts + 1)),
        "{kinds:?}, {attempts} attempts"
    );

    // The host's pid namespace, for one that has its own.
    let (workload, way) = (context.workload_volume(), host_way("pid"));
    let mut args = able("descender", &[&workload, &way]);
    args.extend(["/run/workload", "setns-loop", "/run/ns", "pid", "7"]);
    let output = context.ok(&args)?;
    ensure!(output == "7 calls, 7 refused\n", "{output}");
    equal("denied", hits(context, "descender", "deny")?, 7)?;
    context.ok(&["rm", "-f", "peer"])?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

fn attempted(event: &Value) -> bool {
    event["syscall"] == "setns" && event["verdict"] == "escape_attempt"
}

/// Another thread swaps the descriptor all the time. In audit that leads into the host's
/// namespace; in enforce nobody is there to tell of it.
fn swapped(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let policy = files.write("walls.toml", WALLS)?;
    context.ok(&["policy", "apply", "--mode", "audit", &policy])?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let flags = format!("{}:/flags", files.0.display());
    let races = |name: &str| {
        let mut args = able(name, &[&volume, &way, &flags]);
        let mark = format!("/flags/{name}");
        args.extend(["/run/workload", "setns-race", "/run/ns", &mark, "2"]);
        context.paddock(&args)
    };
    let audited = races("audited")?;
    ensure!(
        files.0.join("audited").exists() && audited.code == Some(0),
        "it never got there: {audited:?}"
    );
    context.ok(&["policy", "mode", "walls", "enforce"])?;
    for name in ["one", "two", "three"] {
        let output = races(name)?;
        ensure!(!files.0.join(name).exists(), "it was there: {output:?}");
        let (denied, killed) = (hits(context, name, "deny")?, hits(context, name, "kill")?);
        let end = if killed > 0.0 { 137 } else { 0 };
        ensure!(
            denied + killed > 0.0 && output.code == Some(end),
            "{denied} denied, {killed} killed: {output:?}"
        );
    }
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

/// `reaction = "kill"`: the first attempt is the last, and did not happen.
fn killed(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let policy = files.write("walls.toml", format!("{WALLS}reaction = \"kill\"\n"))?;
    context.ok(&["policy", "apply", &policy])?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let mut args = able("caught", &[&volume, &way]);
    args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", "7"]);
    let output = context.paddock(&args)?;
    ensure!(
        output.code == Some(137) && output.stdout.is_empty(),
        "{output:?}"
    );
    equal("killed", hits(context, "caught", "kill")?, 1)?;
    equal("denied", hits(context, "caught", "deny")?, 0)?;
    if refuses(context)? {
        let events = context.ok(&["events", "--container", "caught", "--format", "json"])?;
        ensure!(
            !events.contains("\"verdict\":\"escape\""),
            "it was done: {events}"
        );
    }
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

/// Its monitor, the only one that is asked, stays as long as there is somebody to ask.
fn left_behind(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let policy = files.write("walls.toml", WALLS)?;
    context.ok(&["policy", "apply", &policy])?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let flags = format!("{}:/flags", files.0.display());
    let mut args = able("home", &[&volume, &way, &flags]);
    args.insert(1, "-d");
    args.extend(["sleep", "600"]);
    context.ok(&args)?;
    let script = "(while ! test -e /flags/go; do sleep 0.05; done; \
        /run/workload setns-loop /run/ns uts 7 >/flags/host; \
        /run/workload setns-loop /proc/self/ns/uts uts 7 >/flags/own) </dev/null >/dev/null 2>&1 &";
    context.ok(&["exec", "home", "sh", "-c", script])?;
    // The agent is no part of it.
    context.kill_agent()?;
    fs::write(files.0.join("go"), "")?;
    says(&files.0.join("own"), &["7 calls, 0 refused".to_owned()])?;
    says(&files.0.join("host"), &["7 calls, 7 refused".to_owned()])?;
    context.start_agent(&["--detach-on-exit"])?;
    equal("denied", hits(context, "home", "deny")?, 7)?;
    context.ok(&["rm", "-f", "home"])?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

fn says(path: &Path, wanted: &[String]) -> Result<()> {
    eventually(&format!("{} says {wanted:?}", path.display()), || {
        let said = fs::read_to_string(path).unwrap_or_default();
        Ok(said.lines().map(words).collect::<Vec<_>>() == wanted)
    })
}

/// One space between them.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// By what, as the agent says it, for policies that hold for these or those; and once it runs a
/// container that a build without this launched.
fn said(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let files = Files::new()?;
    let means = || -> Result<Vec<String>> {
        let all: Value = context.json(&["policy", "list", "walls", "--format", "json"])?;
        let means = all["rules"][0]["means"].as_object().cloned();
        Ok(means
            .unwrap_or_default()
            .into_iter()
            .map(|one| one.0)
            .collect())
    };
    let asks = asks(context)?;
    let is = |wanted: &[&str]| -> Result<()> {
        let (means, wanted) = (means()?, if asks { &["lsm"] } else { wanted });
        ensure!(means == wanted, "{means:?} instead of {wanted:?}");
        Ok(())
    };
    for (select, wanted) in [
        ("", &["seccomp", "sigkill"][..]),
        ("select = { origin = \"found\" }\n", &["sigkill"]),
        ("select = { origin = \"launched\" }\n", &["seccomp"]),
    ] {
        let text = WALLS.replace("[[rule]]", &format!("{select}[[rule]]"));
        context.ok(&["policy", "apply", &files.write("walls.toml", text)?])?;
        is(wanted)?;
    }
    for (name, flags) in [("plain", &[][..]), ("able", &["--cap-add", "SYS_ADMIN"])] {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(flags);
        args.extend(["host", "sleep", "600"]);
        context.ok(&args)?;
    }
    is(&["seccomp"])?;
    let id = context.inspect("able")?["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    context.kill_agent()?;
    let path = context
        .state
        .join("containers")
        .join(id)
        .join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let known = config
        .as_object_mut()
        .and_then(|all| all.remove("setns_before"));
    ensure!(known == Some((!asks).into()), "{known:?}");
    fs::write(&path, config.to_string())?;
    context.start_agent(&[])?;
    is(&["seccomp", "sigkill"])?;
    context.ok(&["rm", "-f", "able"])?;
    is(&["seccomp"])?;
    context.ok(&["rm", "-f", "plain"])?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

/// Agent and monitor are killed, and what outlives its first process may join nothing.
fn unheard(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let listened = !asks(context)?;
    let files = Files::new()?;
    let policy = files.write("walls.toml", WALLS)?;
    context.ok(&["policy", "apply", &policy])?;
    let mut calls = Calls::default();
    let file = calls.descriptor("openat -100 '/run/ns' 0");
    calls.setns(&file, 0, if listened { "ENOSYS" } else { "EPERM" });
    let (program, way) = (calls.write(&files)?, host_way("uts"));
    let flags = format!("{}:/flags", files.0.display());
    let mut args = able("orphan", &[&program, &way, &flags]);
    args.splice(1..1, ["-d", "--pid", "host"]);
    let script = "(: >/flags/up; while ! test -e /flags/go; do sleep 0.05; done; \
        /run/calls >/flags/said) </dev/null >/dev/null 2>&1 & exec sleep 600";
    args.extend(["sh", "-c", script]);
    context.ok(&args)?;
    eventually("it outlives its parent", || Ok(files.0.join("up").exists()))?;
    let monitor = context.monitor_of("orphan")?;
    let main = context.inspect("orphan")?["pid"].to_string();
    context.kill_agent()?;
    kill(monitor, Signal::SIGKILL)?;
    let main = PathBuf::from(format!("/proc/{main}/exe"));
    eventually("its first process has ended", || {
        Ok(fs::read_link(&main).is_err())
    })?;
    fs::write(files.0.join("go"), "")?;
    says(&files.0.join("said"), &calls.wanted)?;
    context.start_agent(&[])?;
    eventually("the agent knows that it has ended", || {
        Ok(context.inspect("orphan")?["state"] == "exited")
    })?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}
