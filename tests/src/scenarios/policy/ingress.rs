//! Who a policy lets begin something with containers. Witnesses are what the container heard, by
//! its own count, and what this process was answered.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketType, bind, connect, socket,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use serde_json::Value;

use super::{
    Files, Flags,
    found::Found,
    network::{BAD, GOOD},
};
use crate::{
    context::{Context, eventually, pure_v2},
    process::Running,
    runner::Scenario,
    scenarios::kernel::equal,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::ingress::who_may_begin", who_may_begin),
    Scenario::new("policy::ingress::answers_are_not_begun", answers),
    Scenario::new("policy::ingress::found", found),
];

/// Shorter than what TCP waits before it tries again, so that a try is one packet.
const PATIENCE: Duration = Duration::from_millis(300);

fn run(context: &Context, flags: &Flags, args: &[&str], command: &[&str]) -> Result<String> {
    let (volume, flag) = (context.workload_volume(), flags.volume());
    let common = [
        "--network",
        "host",
        "-v",
        &volume,
        "-v",
        &flag,
        "host",
        "/run/workload",
    ];
    context.ok(&[&["run"], args, &common, command].concat())
}

/// The port that a container listens at.
fn hearing(context: &Context, flags: &Flags, name: &str) -> Result<u16> {
    run(
        context,
        flags,
        &["-d", "--name", name],
        &["hear", "/flags/end"],
    )?;
    let mut port = String::new();
    eventually("it listens", || {
        port = context.ok(&["logs", name])?;
        Ok(port.ends_with('\n'))
    })?;
    Ok(port.trim().parse()?)
}

/// Whom a container heard, how often.
fn heard(text: &str) -> BTreeMap<&str, u32> {
    let mut lines = text.lines().skip(1);
    let counted = lines.by_ref().filter_map(|line| line.rsplit_once(' '));
    counted
        .filter_map(|(whom, count)| Some((whom, count.parse().ok()?)))
        .collect()
}

fn local(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Connects from an address of this machine; none where nobody answers.
fn connected(from: &str, port: u16) -> Result<Option<TcpStream>> {
    let from: IpAddr = from.parse()?;
    let family = if from.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket(family, SocketType::STREAM, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(5)))?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    match connect(&socket, &SocketAddr::new(local(from), port)) {
        Ok(()) => Ok(Some(TcpStream::from(socket))),
        // As the kernel says it where such a wait has passed.
        Err(Errno::INPROGRESS) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("connect from {from}")),
    }
}

/// How many of so many connections were answered.
fn answered(from: &str, port: u16, tries: u32) -> Result<u32> {
    let mut count = 0;
    for _ in 0..tries {
        if let Some(mut stream) = connected(from, port)? {
            stream.read_exact(&mut [0])?;
            count += 1;
        }
    }
    Ok(count)
}

fn send(from: &str, port: u16, count: u32) -> Result<()> {
    let from: IpAddr = from.parse()?;
    let socket = UdpSocket::bind((from, 0))?;
    for _ in 0..count {
        socket.send_to(b"x", (local(from), port))?;
    }
    Ok(())
}

fn policy(port: u16, origin: &str) -> String {
    format!(
        "name = \"doors\"\nmode = \"enforce\"\nselect = {{ origin = \"{origin}\" }}\n\
         [[rule]]\nname = \"closed\"\nnetwork = {{ direction = \"ingress\" }}\n\
         [[rule]]\nname = \"friends\"\neffect = \"allow\"\n\
         network = {{ direction = \"ingress\", net = \"{GOOD}\", port = {port}, protocol = \"tcp\" }}\n"
    )
}

fn hits(context: &Context, container: &str, action: &str) -> Result<f64> {
    let labels = [
        ("container", container),
        ("rule", "closed"),
        ("action", action),
    ];
    super::hits(context, &labels)
}

/// What was begun before goes on; in audit all get through, and each beginning is counted once.
fn who_may_begin(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (files, flags) = (Files::new()?, Flags::new(context)?);
    let port = hearing(context, &flags, "hearing")?;
    let mut before = connected(BAD, port)?.context("nothing is in force yet")?;
    before.read_exact(&mut [0])?;
    let file = files.write("doors.toml", policy(port, "launched"))?;
    context.ok(&["policy", "apply", &file])?;
    let rules: Value = context.json(&["policy", "list", "doors", "--format", "json"])?;
    ensure!(
        rules["rules"][0]["means"] == serde_json::json!({"cgroup": ["network ingress"]}),
        "{rules}"
    );

    for (from, tries, want) in [(GOOD, 3, 3), (BAD, 2, 0), ("::1", 1, 0)] {
        let count = answered(from, port, tries)?;
        ensure!(
            count == want,
            "of {tries} from {from} {count} were answered"
        );
    }
    for (from, count) in [(BAD, 5), (GOOD, 7), ("::1", 11)] {
        send(from, port, count)?;
    }
    before.write_all(b"x")?;
    before.read_exact(&mut [0])?;
    equal(
        "deny",
        hits(context, "hearing", "deny")?,
        2 + 1 + 5 + 7 + 11,
    )?;
    told(context, port)?;

    context.ok(&["policy", "mode", "doors", "audit"])?;
    ensure!(answered(BAD, port, 3)? == 3);
    send(BAD, port, 2)?;
    equal("audit", hits(context, "hearing", "audit")?, 3 + 2)?;
    fs::write(flags.end(), "")?;
    eventually("it has ended", || {
        Ok(context.inspect("hearing")?["state"] == "exited")
    })?;
    let log = context.ok(&["logs", "hearing"])?;
    let want = BTreeMap::from([
        ("tcp 127.0.0.2", 3),
        ("tcp 127.0.0.3", 1 + 3),
        ("udp 127.0.0.3", 2),
    ]);
    ensure!(heard(&log) == want, "{log}");
    context.ok(&["policy", "rm", "doors"]).map(drop)
}

/// Nobody's doing, and explained by the rule that holds.
fn told(context: &Context, port: u16) -> Result<()> {
    let events = context.events()?;
    let begun: Vec<Value> = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "denial" && event["peer"]["protocol"] == "tcp")
        .collect();
    let peers: Vec<_> = begun.iter().map(|event| &event["peer"]).collect();
    let peer = |address: &str| {
        serde_json::json!({
            "direction": "ingress", "protocol": "tcp", "address": address, "port": port,
        })
    };
    ensure!(peers == [&peer(BAD), &peer(BAD), &peer("::1")], "{peers:?}");
    let first = begun.first().context("no denial")?;
    ensure!(
        first.get("actor").is_none() && first["container"] == "hearing",
        "{first}"
    );
    let id = first["id"].to_string();
    let explained: Value = context.json(&["policy", "explain", &id, "--format", "json"])?;
    let decides = &explained["rules"][0];
    ensure!(
        explained["same"] == true && decides["rule"] == "closed" && decides["why"] == "decides",
        "{explained}"
    );
    Ok(())
}

/// To a socket that is not connected, from where it sent to, and from nowhere else.
fn answers(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (files, flags) = (Files::new()?, Flags::new(context)?);
    let file = files.write("doors.toml", policy(1, "launched"))?;
    context.ok(&["policy", "apply", &file])?;
    let (asked, other) = (UdpSocket::bind((BAD, 0))?, UdpSocket::bind((BAD, 0))?);
    asked.set_read_timeout(Some(Duration::from_millis(50)))?;
    let port = asked.local_addr()?.port().to_string();
    for (name, by, answered) in [("asking", &asked, 13), ("misled", &other, 0)] {
        let tries = if answered == 0 { 3 } else { answered };
        let said = thread::scope(|scope| {
            let running = scope.spawn(|| {
                let command = ["ask", BAD, &port, &tries.to_string()];
                run(context, &flags, &["--name", name], &command)
            });
            while !running.is_finished() {
                if let Ok((_, peer)) = asked.recv_from(&mut [0; 8]) {
                    by.send_to(b"x", peer)?;
                }
            }
            running.join().ok().context("the thread panicked")?
        })?;
        ensure!(
            said == format!("{tries} asked, {answered} answered\n"),
            "{said}"
        );
        equal(name, hits(context, name, "deny")?, tries - answered)?;
    }
    context.ok(&["policy", "rm", "doors"]).map(drop)
}

/// Where every container has a v2 cgroup; elsewhere the policy is refused.
fn found(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (files, flags) = (Files::new()?, Flags::new(context)?);
    let file = files.write("doors.toml", policy(1, "found"))?;
    if !pure_v2() {
        let output = context.paddock(&["policy", "apply", &file])?;
        let want = format!(
            "paddock: {file}: not in force: doors: closed: network ingress cannot be seen here; \
             leave the rule out\n"
        );
        ensure!(
            output.code == Some(1) && output.stderr == want,
            "{output:?} instead of {want}"
        );
        let everybody = fs::read_to_string(Path::new(&file))?.replace("select", "#");
        let file = files.write("everybody.toml", everybody)?;
        let output = context.paddock(&["policy", "apply", &file])?;
        let end = "leave the rule out or let the policy select origin = \"launched\": sockets of \
                   others say whose they are where cgroup v2 is alone\n";
        return ensure_refused(&output.stderr, end);
    }
    let one = Found::new(3)?;
    eventually("it is found", || {
        Ok(context.ok(&["ps", "-a"])?.contains(&one.name))
    })?;
    context.ok(&["policy", "apply", &file])?;
    let script = format!(
        "{}exec {} hear {}",
        one.joins(),
        context.workload.display(),
        flags.end().display()
    );
    let running = Running::start(Command::new("sh").args(["-c", &script]))?;
    eventually("it listens", || Ok(running.stdout().ends_with('\n')))?;
    let port: u16 = running.stdout().trim().parse()?;
    ensure!(answered(GOOD, port, 2)? == 0);
    send(BAD, port, 5)?;
    equal("deny", hits(context, &one.name, "deny")?, 2 + 5)?;
    context.ok(&["policy", "rm", "doors"])?;
    ensure!(answered(GOOD, port, 3)? == 3);
    fs::write(flags.end(), "")?;
    let output = running.wait(Duration::from_secs(10))?.ok()?;
    let want = BTreeMap::from([("tcp 127.0.0.2", 3)]);
    ensure!(heard(&output.stdout) == want, "{}", output.stdout);
    Ok(())
}

fn ensure_refused(said: &str, end: &str) -> Result<()> {
    ensure!(said.ends_with(end), "{said} instead of {end}");
    Ok(())
}
