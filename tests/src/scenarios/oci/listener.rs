//! A profile that asks a listener (`SCMP_ACT_NOTIFY`): who gets which descriptor with what words,
//! and that calls wait for it. One that goes away leaves them ENOSYS, as the kernel has it.

use std::{
    fs,
    io::{ErrorKind, IoSliceMut, Read as _},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::{Bundle, config};
use crate::{
    context::{Context, TIMEOUT, eventually},
    process::Running,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("oci::seccomp_listener", seccomp_listener),
    Scenario::new("oci::seccomp_listener_refused", seccomp_listener_refused),
];

/// mkdir and mkdirat, by x86_64's numbers.
const ASKED: [&str; 2] = ["83 ", "258 "];
const MADE: [&str; 3] = ["busybox", "mkdir", "/tmp/made"];
const METADATA: &str = "of no concern: \"\u{e4}\"";

fn profile(socket: &Path, call: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": socket,
        "listenerMetadata": METADATA,
        "syscalls": [{"names": [call, "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    })
}

/// One connection: the words, the descriptor, and nothing more.
fn told(agent: &UnixListener) -> Result<(Value, OwnedFd)> {
    let mut stream = None;
    eventually("the listener is connected to", || {
        match agent.accept() {
            Ok((one, _)) => stream = Some(one),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(stream.is_some())
    })?;
    let mut stream: UnixStream = stream.context("no connection")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut words = vec![0; 1 << 20];
    let got = recvmsg(
        &stream,
        &mut [IoSliceMut::new(&mut words)],
        &mut rights,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    words.truncate(got.bytes);
    stream.read_to_end(&mut words)?;
    let mut fds = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let Ok([fd]) = <[OwnedFd; 1]>::try_from(fds) else {
        bail!("not one descriptor")
    };
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    ensure!(
        link.display().to_string() == "anon_inode:seccomp notify",
        "{}",
        link.display()
    );
    Ok((serde_json::from_slice(&words)?, fd))
}

/// It is in one of the calls that are asked about.
fn waits(pid: i64) -> Result<()> {
    eventually("it waits for an answer", || {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall"))?;
        Ok(ASKED.iter().any(|number| call.starts_with(number)))
    })
}

fn seccomp_listener(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &config(&MADE))?;
    let socket = bundle.path.join("agent");
    let agent = UnixListener::bind(&socket)?;
    agent.set_nonblocking(true)?;
    let mut wanted = config(&MADE);
    wanted["linux"]["seccomp"] = profile(&socket, "mkdir");
    wanted["annotations"] = json!({"a.long.one": "x".repeat(50_000)});
    // The filter comes last, or early, while the privileges for it are there.
    for (id, without_privileges) in [("last", true), ("early", false)] {
        wanted["process"]["noNewPrivileges"] = json!(without_privileges);
        bundle.write(&wanted)?;
        bundle.create(id)?;
        let (words, fd) = told(&agent)?;
        let pid = bundle.pid(id)?;
        let state = &words["state"];
        ensure!(
            words["pid"] == pid
                && words["fds"] == json!(["seccompFd"])
                && words["metadata"] == METADATA
                && words["ociVersion"] == "1.0.2"
                && state["id"] == id
                && state["status"] == "creating"
                && state["pid"] == pid
                && state["bundle"] == bundle.path.display().to_string()
                && state["annotations"] == wanted["annotations"],
            "{words}"
        );
        bundle.ok(&["start", id])?;
        waits(pid)?;
        drop(fd);
        eventually("it ends", || bundle.is(id, "stopped"))?;
        let said = bundle.read("err")?;
        ensure!(said.contains("Function not implemented"), "{said}");
        bundle.ok(&["delete", id])?;
    }
    execs_are_asked_too(&bundle, &agent, wanted)?;
    ensure!(agent.accept().is_err(), "it was told of more");
    bundle.empty()
}

/// Each has a filter of its own, with a descriptor of its own.
fn execs_are_asked_too(bundle: &Bundle<'_>, agent: &UnixListener, mut wanted: Value) -> Result<()> {
    wanted["process"]["args"] = json!(["sleep", "60"]);
    wanted["linux"]["seccomp"]
        .as_object_mut()
        .context("no profile")?
        .remove("listenerMetadata");
    bundle.write(&wanted)?;
    bundle.start("box")?;
    let (first, kept) = told(agent)?;
    ensure!(first.get("metadata").is_none(), "{first}");
    let exec = Running::start(&mut bundle.command(&[&["exec", "box"][..], &MADE].concat()))?;
    let (words, fd) = told(agent)?;
    let pid = words["pid"].as_i64().context("no pid")?;
    ensure!(
        words["state"]["status"] == "running"
            && words["state"]["pid"] == first["pid"]
            && words["pid"] != first["pid"],
        "{words}"
    );
    waits(pid)?;
    drop(fd);
    let output = exec.wait(TIMEOUT)?;
    ensure!(
        output.code == 1 && output.stderr.contains("Function not implemented"),
        "{output:?}"
    );
    drop(kept);
    bundle.ok(&["delete", "--force", "box"]).map(drop)
}

fn seccomp_listener_refused(context: &Context) -> Result<()> {
    let mut wanted = config(&MADE);
    let bundle = Bundle::new(context, &wanted)?;
    let socket = bundle.path.join("agent");
    let mut refused = |seccomp: Value, words: &[&str]| {
        wanted["linux"]["seccomp"] = seccomp;
        bundle.write(&wanted)?;
        bundle.refused(&["run", "none"], words)
    };
    let path = socket.display().to_string();
    refused(
        profile(&socket, "mkdir"),
        &["seccomp listener", &path, "no such file"],
    )?;
    refused(profile(&socket, "write"), &["SCMP_ACT_NOTIFY on write"])?;
    let mut all = profile(&socket, "mkdir");
    all["defaultAction"] = json!("SCMP_ACT_NOTIFY");
    refused(all, &["linux.seccomp", "SCMP_ACT_NOTIFY"])?;
    refused(
        profile(Path::new("agent"), "mkdir"),
        &["linux.seccomp.listenerPath", "absolute"],
    )?;
    let mut alone = profile(&socket, "mkdir");
    let words = alone.as_object_mut().context("no profile")?;
    words.remove("listenerPath");
    refused(alone, &["linux.seccomp.listenerPath"])?;
    // Whom nobody asks about anything, nobody is asked for.
    let mut silent = profile(&socket, "mkdir");
    silent["syscalls"] = json!([]);
    wanted["linux"]["seccomp"] = silent;
    bundle.write(&wanted)?;
    bundle.ok(&["run", "free"]).map(drop)
}
