//! Whom a policy lets containers talk to. Witnesses are listeners of this process: what they
//! accepted and received.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, TcpListener, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Files;
use crate::{
    context::{Context, Output, eventually},
    runner::Scenario,
    scenarios::kernel::equal,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::network::one_way_out", one_way_out),
    Scenario::new("policy::network::killed_for_it", killed),
    Scenario::new("policy::network::swapped_meanwhile", swapped),
];

/// Answers connections with a byte until it is dropped, and knows how many there were.
pub(super) struct Listener {
    pub(super) port: u16,
    tcp: Vec<TcpListener>,
    udp: UdpSocket,
}

/// The only one that policies here allow, and two that they do not.
pub(super) const GOOD: &str = "127.0.0.2";
pub(super) const BAD: &str = "127.0.0.3";
const SIX: &str = "::1";

impl Listener {
    pub(super) fn new() -> Result<Self> {
        let first = TcpListener::bind((GOOD, 0))?;
        let port = first.local_addr()?.port();
        let mut tcp = vec![first];
        for address in [BAD, SIX, "127.0.0.1"] {
            tcp.push(TcpListener::bind((address, port))?);
        }
        let udp = UdpSocket::bind((BAD, port))?;
        for one in &tcp {
            one.set_nonblocking(true)?;
        }
        udp.set_nonblocking(true)?;
        Ok(Self { port, tcp, udp })
    }

    /// Connections that each address has had since the last look; all of them are answered.
    pub(super) fn accepted(&self) -> Result<Vec<(IpAddr, u32)>> {
        let mut all = Vec::new();
        for listener in &self.tcp {
            let mut count = 0;
            while let Ok((mut stream, _)) = listener.accept() {
                // Who has gone reads nothing.
                let _ = stream.write_all(b"x");
                count += 1;
            }
            if count > 0 {
                all.push((listener.local_addr()?.ip(), count));
            }
        }
        Ok(all)
    }

    fn received(&self) -> u32 {
        let mut count = 0;
        while self.udp.recv_from(&mut [0; 8]).is_ok() {
            count += 1;
        }
        count
    }
}

/// By what protocol, to whom, how often.
type Talk<'a> = (&'a str, &'a str, u32);

/// Runs `talk` in a container on the host's network, one after the other; what the listeners saw
/// meanwhile.
fn talk(
    context: &Context,
    listener: &Listener,
    name: &str,
    talks: &[Talk<'_>],
) -> Result<(Output, Vec<(IpAddr, u32)>)> {
    let volume = context.workload_volume();
    let port = listener.port;
    let one = |(protocol, address, count): &Talk<'_>| {
        format!("/run/workload talk {protocol} {address} {port} {count}")
    };
    let script = talks.iter().map(one).collect::<Vec<_>>().join(" && ");
    let args = [
        "run",
        "--name",
        name,
        "--network",
        "host",
        "-v",
        &volume,
        "host",
        "sh",
        "-c",
        &script,
    ];
    let mut seen: Vec<(IpAddr, u32)> = Vec::new();
    let mut add = |new: Vec<(IpAddr, u32)>| {
        for (address, count) in new {
            match seen.iter_mut().find(|(known, _)| *known == address) {
                Some((_, sum)) => *sum += count,
                None => seen.push((address, count)),
            }
        }
    };
    let output = thread::scope(|scope| {
        let running = scope.spawn(|| context.paddock(&args));
        while !running.is_finished() {
            add(listener.accepted()?);
            thread::sleep(Duration::from_millis(2));
        }
        running.join().ok().context("the thread panicked")?
    })?;
    add(listener.accepted()?);
    Ok((output, seen))
}

pub(super) fn policy(port: u16, more: &str) -> String {
    format!(
        "name = \"ways\"\nmode = \"enforce\"\ndefault = {{ network = \"deny\" }}\n\
         [[rule]]\nname = \"in\"\neffect = \"allow\"\nnetwork = {{ direction = \"ingress\" }}\n\
         [[rule]]\nname = \"out\"\neffect = \"allow\"\n\
         network = {{ direction = \"egress\", net = \"{GOOD}\", port = {port}, protocol = \"tcp\" }}\n\
         {more}"
    )
}

fn hits(context: &Context, container: &str, action: &str) -> Result<f64> {
    let labels = [
        ("container", container),
        ("rule", "default-network"),
        ("action", action),
    ];
    super::hits(context, &labels)
}

/// Whatever form an address has; in audit all get through, and are counted.
fn one_way_out(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (files, listener) = (Files::new()?, Listener::new()?);
    let file = files.write("ways.toml", policy(listener.port, ""))?;
    context.ok(&["policy", "apply", &file])?;
    let good: IpAddr = GOOD.parse()?;
    let talks = [
        ("tcp", GOOD, 3),
        ("tcp", "::ffff:127.0.0.2", 5),
        ("tcp", BAD, 7),
        ("tcp", "::ffff:127.0.0.3", 11),
        ("tcp", SIX, 13),
        ("tcp", "0.0.0.0", 17),
        ("tcp", "::", 19),
        ("udp", BAD, 23),
        ("udp", "::ffff:127.0.0.3", 29),
        ("udp", SIX, 31),
        ("udp", GOOD, 37),
    ];
    let (output, seen) = talk(context, &listener, "walled", &talks)?;
    let refused = |index: usize, count: u32| if index < 2 { 0 } else { count };
    let said = |(index, (_, _, count)): (usize, &Talk<'_>)| {
        format!("{count} calls, {} refused\n", refused(index, *count))
    };
    let want: String = talks.iter().enumerate().map(said).collect();
    ensure!(output.stdout == want, "{output:?}");
    ensure!(seen == [(good, 3 + 5)], "connections {seen:?}");
    let all = talks.iter().enumerate();
    let tries: u32 = all
        .map(|(index, (_, _, count))| refused(index, *count))
        .sum();
    equal("deny", hits(context, "walled", "deny")?, tries)?;
    equal("datagrams", listener.received().into(), 0)?;
    let rules: Value = context.json(&["policy", "list", "ways", "--format", "json"])?;
    let rule = &rules["rules"][0];
    ensure!(
        rule["denied"] == tries && rule["means"]["cgroup"] == serde_json::json!(["network egress"]),
        "{rules}"
    );
    let events = context.events()?;
    let recorded = files.write("events.jsonl", &events)?;
    let report: Value = context.json(&[
        "policy", "test", &file, "--events", &recorded, "--format", "json",
    ])?;
    let again = &report["rules"][0];
    ensure!(
        again["rule"] == "default-network" && again["attempts"] == tries && again["succeeded"] == 0,
        "{report}"
    );
    let peer = serde_json::json!({
        "direction": "egress", "protocol": "udp", "address": SIX, "port": listener.port,
    });
    let denials: Vec<Value> = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "denial")
        .collect();
    let to_six = denials.iter().filter(|event| event["peer"] == peer);
    equal("events", to_six.count().try_into().map(u32::into)?, 31)?;
    let is_bad =
        |event: &&Value| event["peer"]["address"] == BAD && event["peer"]["protocol"] == "udp";
    advised(context, &files, &listener, denials.iter().find(is_bad))?;
    context.ok(&["policy", "apply", &file])?;

    context.ok(&["policy", "mode", "ways", "audit"])?;
    let talks = [("tcp", BAD, 7), ("tcp", "::", 11), ("udp", BAD, 5)];
    let (output, seen) = talk(context, &listener, "audited", &talks)?;
    ensure!(
        output.stdout == "7 calls, 0 refused\n11 calls, 0 refused\n5 calls, 0 refused\n",
        "{output:?}"
    );
    ensure!(seen == [(BAD.parse()?, 7), (SIX.parse()?, 11)], "{seen:?}");
    equal("datagrams", listener.received().into(), 5)?;
    equal("audit", hits(context, "audited", "audit")?, 7 + 11 + 5)?;
    context.ok(&["policy", "rm", "ways"]).map(drop)
}

/// What `policy explain` says to write lets this peer pass, and no other.
fn advised(
    context: &Context,
    files: &Files,
    listener: &Listener,
    denial: Option<&Value>,
) -> Result<()> {
    let id = denial.context("no denial")?["id"].to_string();
    let told: Value = context.json(&["policy", "explain", &id, "--format", "json"])?;
    let first = &told["rules"][0];
    ensure!(
        told["same"] == true && first["rule"] == "default-network" && first["why"] == "decides",
        "{told}"
    );
    let lines = told["allow"][0]["lines"].as_str().context("no advice")?;
    let more = files.write("more.toml", policy(listener.port, lines))?;
    context.ok(&["policy", "apply", &more])?;
    let talks = [("udp", BAD, 3), ("udp", SIX, 5), ("tcp", BAD, 7)];
    let (output, _) = talk(context, listener, "advised", &talks)?;
    ensure!(
        output.stdout == "3 calls, 0 refused\n5 calls, 5 refused\n7 calls, 7 refused\n",
        "{output:?}"
    );
    equal("advised", listener.received().into(), 3)
}

fn killed(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (files, listener) = (Files::new()?, Listener::new()?);
    let text = format!(
        "name = \"ways\"\nmode = \"enforce\"\n[[rule]]\nname = \"default-network\"\n\
         reaction = \"kill\"\nnetwork = {{ direction = \"egress\", net = \"{BAD}\" }}\n"
    );
    let file = files.write("ways.toml", text)?;
    context.ok(&["policy", "apply", &file])?;
    // It goes on until it is dead.
    let (output, seen) = talk(context, &listener, "doomed", &[("tcp", BAD, u32::MAX)])?;
    ensure!(
        output.code == Some(137) && output.stdout.is_empty() && seen.is_empty(),
        "{output:?} {seen:?}"
    );
    ensure!(hits(context, "doomed", "kill")? > 0.5);
    let (output, _) = talk(context, &listener, "spared", &[("tcp", GOOD, 3)])?;
    ensure!(output.stdout == "3 calls, 0 refused\n", "{output:?}");
    context.ok(&["policy", "rm", "ways"]).map(drop)
}

/// Both forbid it, whichever holds, with a thousand nets and with one.
fn swapped(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (files, listener) = (Files::new()?, Listener::new()?);
    let few = files.write("few.toml", policy(listener.port, ""))?;
    let allow = |index: u32| {
        format!(
            "[[rule]]\neffect = \"allow\"\nnetwork = {{ direction = \"egress\", \
             net = \"10.{}.{}.0/24\" }}\n",
            index / 256,
            index % 256
        )
    };
    let more: String = (0..1000).map(allow).collect();
    let many = files.write("many.toml", policy(listener.port, &more))?;
    context.ok(&["policy", "apply", &few])?;
    let flags = context.state.with_extension("flags");
    fs::create_dir(&flags)?;
    let (volume, flag) = (
        context.workload_volume(),
        format!("{}:/flags", flags.display()),
    );
    let script = format!(
        "while ! test -e /flags/end; do /run/workload talk tcp {BAD} {} 50; done",
        listener.port
    );
    context.ok(&[
        "run",
        "-d",
        "--name",
        "attacker",
        "--network",
        "host",
        "-v",
        &volume,
        "-v",
        &flag,
        "host",
        "sh",
        "-c",
        &script,
    ])?;
    // More nets than there is room for at once: those of before make room.
    for round in 0..24 {
        let next = if round % 2 == 0 { &many } else { &few };
        context.ok(&["policy", "apply", next])?;
    }
    fs::write(flags.join("end"), "")?;
    eventually("it has ended", || {
        Ok(context.inspect("attacker")?["state"] == "exited")
    })?;
    let log = context.ok(&["logs", "attacker"])?;
    let tries = u32::try_from(log.lines().count())?;
    ensure!(
        tries > 20 && log.lines().all(|line| line == "50 calls, 50 refused"),
        "{log}"
    );
    ensure!(listener.accepted()?.is_empty());
    equal("deny", hits(context, "attacker", "deny")?, 50 * tries)?;
    fs::remove_dir_all(&flags)?;
    context.ok(&["policy", "rm", "ways"]).map(drop)
}
