//! `linux.netDevices`, with pairs of virtual devices in a network namespace that stands for the
//! host's.
//!
//! Witnesses are `ip` in each namespace and /sys/class/net inside. Devices have addresses of every
//! kind, so that those which are left behind are seen to be.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Bundle, config, entering};
use crate::{
    context::{Context, eventually, finish},
    process::Running,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("oci::net_devices", net_devices),
    Scenario::new("oci::net_devices_joined", net_devices_joined),
    Scenario::new("oci::net_devices_refused", net_devices_refused),
    Scenario::new("oci::net_devices_given_back", net_devices_given_back),
];

/// A network namespace with a process in it, and with this alone.
struct Space(Running);

impl Space {
    fn new() -> Result<Self> {
        let script = "busybox ip link set lo up && echo up && exec sleep 600";
        let holder = Running::start(Command::new("unshare").args(["-n", "sh", "-c", script]))?;
        eventually("loopback is up", || Ok(holder.stdout() == "up\n"))?;
        Ok(Self(holder))
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.pid())
    }

    fn sh(&self, script: &str) -> Result<String> {
        inside(&self.path(), script)
    }

    /// `name` has all kinds of addresses and is up; its peer, whose name is the kernel's choice,
    /// is up, too.
    fn add(&self, name: &str) -> Result<()> {
        let script = [
            "ip link add NAME type veth",
            "ip link set NAME mtu 1400 address 02:00:00:00:00:07",
            "ip addr add 10.77.9.1/24 brd 10.77.9.77 dev NAME",
            "ip addr add 10.77.9.2/24 dev NAME",
            "ip addr add 10.77.8.1/32 dev NAME label NAME:x",
            "ip addr add 10.77.7.1/24 valid_lft 3000 preferred_lft 3000 dev NAME",
            "ip addr add 127.0.0.33/8 scope host dev NAME",
            "ip addr add 169.254.3.3/16 scope link dev NAME",
            "ip addr add fd00:77::1/64 dev NAME",
            "for link in $(ip link | sed -n 's/^[0-9]*: \\([^:@]*\\)@NAME: .*/\\1/p') NAME; do ip link set $link up; done",
        ];
        self.sh(&script.join("\n").replace("NAME", name))?;
        eventually("its addresses are no duplicates", || {
            let shown = self.sh("ip addr")?;
            Ok(shown.contains("fe80::") && !shown.contains("tentative"))
        })
    }

    /// Every device with its addresses; not how long they are still valid.
    fn devices(&self) -> Result<String> {
        self.sh("ip addr | grep -v valid_lft")
    }

    fn has(&self, name: &str) -> Result<bool> {
        Ok(has(&self.devices()?, name))
    }
}

/// In a shell that stops at the first failure.
fn inside(namespace: &str, script: &str) -> Result<String> {
    let script = format!("set -e\nip() {{ busybox ip \"$@\"; }}\n{script}");
    let output = finish(entering(namespace, "sh").args(["-c", &script]))?;
    ensure!(output.code == Some(0), "{script}: {output:?}");
    Ok(output.stdout)
}

/// `ip` shows a pair's device with its peer's name or number.
fn has(shown: &str, name: &str) -> bool {
    shown.contains(&format!(": {name}@")) || shown.contains(&format!(": {name}:"))
}

/// One device's part of what `ip` shows.
fn part<'a>(shown: &'a str, name: &str) -> Result<&'a str> {
    let is_begin = |line: &&str| line.contains(&format!(": {name}@"));
    let begin = shown.lines().find(is_begin).context("not there")?;
    let at = shown.find(begin).context("not there")?;
    let rest = &shown[at..];
    let end = rest
        .match_indices('\n')
        .map(|(at, _)| at + 1)
        .find(|at| !rest[*at..].starts_with(' '));
    Ok(&rest[..end.unwrap_or(rest.len())])
}

/// As it must be in a container.
fn is_moved(shown: &str, name: &str) -> Result<()> {
    let device = part(shown, name)?;
    let label = format!("{name}:x");
    let own = [
        ",UP,",
        "mtu 1400 ",
        "02:00:00:00:00:07",
        &format!("inet 10.77.9.1/24 brd 10.77.9.77 scope global {name}\n"),
        "inet 10.77.9.2/24 scope global secondary ",
        &format!("inet 10.77.8.1/32 scope global {label}\n"),
        "inet6 fd00:77::1/64 scope global ",
    ];
    let left = ["10.77.7.1", "127.0.0.33", "169.254.3.3"];
    ensure!(
        own.iter().all(|word| device.contains(word))
            && left.iter().all(|word| !device.contains(word)),
        "{device}"
    );
    Ok(())
}

fn namespaces(wanted: &mut Value) -> Result<&mut Vec<Value>> {
    wanted["linux"]["namespaces"]
        .as_array_mut()
        .context("namespaces")
}

/// Puts the container into a namespace that is there.
fn join(wanted: &mut Value, path: &str) -> Result<()> {
    let all = namespaces(wanted)?;
    all.retain(|one| one["type"] != "network");
    all.push(json!({"type": "network", "path": path}));
    Ok(())
}

fn net_devices(context: &Context) -> Result<()> {
    let host = Space::new()?;
    let mut wanted = config(&["sleep", "100"]);
    let mut bundle = Bundle::new(context, &wanted)?;
    bundle.network = Some(host.path());
    let hook = bundle.path.join("hook");
    for user in [false, true] {
        host.add("pd0")?;
        host.sh("ip link add pd1 type veth")?;
        wanted["linux"]["netDevices"] = json!({"pd0": {"name": "net0"}, "pd1": {}});
        // The first hook after it is in the runtime's namespace, and finds them gone.
        let script = format!("busybox ip addr >{}", hook.display());
        wanted["hooks"] = json!({"prestart": [
            {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]},
        ]});
        if user {
            namespaces(&mut wanted)?.push(json!({"type": "user"}));
            let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
            wanted["linux"]["uidMappings"] = maps.clone();
            wanted["linux"]["gidMappings"] = maps;
        }
        bundle.write(&wanted)?;
        bundle.start("box")?;
        let own = format!("/proc/{}/ns/net", bundle.pid("box")?);
        let shown = inside(&own, "ip addr")?;
        is_moved(&shown, "net0")?;
        // It was down and without an address; the specification has it up.
        let second = part(&shown, "pd1")?;
        ensure!(
            second.contains(",UP,") && !second.contains("inet "),
            "{second}"
        );
        let text = bundle.read("hook")?;
        ensure!(has(&text, "veth0") && !has(&text, "pd0"), "{text}");
        ensure!(!host.has("pd0")? && !host.has("pd1")?);
        let exec = ["exec", "box", "cat", "/sys/class/net/net0/mtu"];
        ensure!(bundle.ok(&exec)? == "1400\n");
        bundle.ok(&["delete", "--force", "box"])?;
        // The kernel's part: a pair ends with the namespace of either.
        eventually("the pairs are gone", || {
            Ok(!host.devices()?.contains("veth"))
        })?;
    }
    bundle.empty()
}

/// Names that are taken there, templates for names that are not, and what becomes of a device
/// when the container goes and its namespace stays.
fn net_devices_joined(context: &Context) -> Result<()> {
    let (host, pod) = (Space::new()?, Space::new()?);
    host.add("pd0")?;
    // The same name and, as both namespaces count from 1, the same numbers.
    pod.sh("ip link add pd0 type veth && ip link add net0 type veth")?;
    let mut wanted = config(&["true"]);
    join(&mut wanted, &pod.path())?;
    wanted["linux"]["netDevices"] = json!({"pd0": {}});
    let mut bundle = Bundle::new(context, &wanted)?;
    bundle.network = Some(host.path());
    let (here, there) = (host.devices()?, pod.devices()?);
    for name in ["pd0", "net0", "lo"] {
        wanted["linux"]["netDevices"]["pd0"]["name"] = json!(name);
        bundle.write(&wanted)?;
        let words = [
            r#"network device "pd0""#,
            &format!("has a {name:?} already"),
        ];
        bundle.refused(&["run", "none"], &words)?;
        ensure!(host.devices()? == here && pod.devices()? == there);
    }
    wanted["linux"]["netDevices"]["pd0"]["name"] = json!("net%d");
    bundle.write(&wanted)?;
    bundle.ok(&["run", "box"])?;
    bundle.empty()?;
    ensure!(!host.has("pd0")?);
    // The kernel counts twice where the old name is taken, too.
    let shown = pod.devices()?;
    let mut made = ["net1", "net2"]
        .into_iter()
        .filter(|name| has(&shown, name));
    let name = made.next().context("no device of the template")?;
    ensure!(made.next().is_none(), "{shown}");
    is_moved(&shown, name)?;
    // Another container of the pod has it, and another device beside it.
    host.add("pd1")?;
    let long = "a23456789012345";
    wanted["linux"]["netDevices"] = json!({"pd1": {"name": long}});
    wanted["process"]["args"] = json!(["ls", "/sys/class/net"]);
    bundle.write(&wanted)?;
    let seen = bundle.ok(&["run", "box"])?;
    ensure!(
        [name, long]
            .iter()
            .all(|name| seen.lines().any(|seen| seen == *name)),
        "{seen}"
    );
    bundle.empty()
}

fn net_devices_refused(context: &Context) -> Result<()> {
    let host = Space::new()?;
    host.add("pd0")?;
    host.sh("ip link add name pd1 type veth")?;
    let mut wanted = config(&["true"]);
    let mut bundle = Bundle::new(context, &wanted)?;
    bundle.network = Some(host.path());
    let before = host.devices()?;
    for (devices, words) in [
        (json!({"nope": {}}), r#""nope": there is none"#),
        // The first one is back when the second one fails.
        (json!({"pd0": {}, "pd9": {}}), r#""pd9": there is none"#),
        (
            json!({"pd0": {}, "pd1": {"name": "lo"}}),
            r#"has a "lo" already"#,
        ),
        (json!({"lo": {"name": "lo9"}}), r#""lo": is the loopback"#),
        (json!({"lo": {}}), r#""lo": is the loopback"#),
        (json!({"pd0": {"name": "a/b"}}), r#"name "a/b""#),
        (
            json!({"pd0": {"name": "a234567890123456"}}),
            "at most 15 bytes",
        ),
        (json!({"../pd0": {}}), "is no device's name"),
        (json!({"pd%d": {}}), "is no device's name"),
        (
            json!({"pd0": {"name": "x"}, "pd1": {"name": "x"}}),
            r#"gets the name "x", too"#,
        ),
    ] {
        wanted["linux"]["netDevices"] = devices;
        bundle.write(&wanted)?;
        bundle.refused(&["run", "none"], &[words])?;
        eventually(&format!("{words}: all is as before"), || {
            Ok(host.devices()? == before)
        })?;
    }
    // The host's namespace by its path, and no namespace.
    wanted["linux"]["netDevices"] = json!({"pd0": {"name": "net0"}});
    join(&mut wanted, &host.path())?;
    bundle.write(&wanted)?;
    bundle.refused(
        &["run", "none"],
        &["network namespace is the runtime's own"],
    )?;
    namespaces(&mut wanted)?.retain(|one| one["type"] != "network");
    bundle.write(&wanted)?;
    bundle.refused(&["run", "none"], &["needs a network namespace"])?;
    ensure!(host.devices()? == before);
    Ok(())
}

/// Whatever fails after they were moved.
fn net_devices_given_back(context: &Context) -> Result<()> {
    let (host, pod) = (Space::new()?, Space::new()?);
    host.add("pd0")?;
    host.sh("ip link add name pd1 type veth")?;
    let base = config(&["true"]);
    let mut bundle = Bundle::new(context, &base)?;
    bundle.network = Some(host.path());
    let (before, there) = (host.devices()?, pod.devices()?);
    // No IPv6 for devices to come: the kernel refuses the last address.
    pod.sh("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")?;
    let fails = json!([{"path": "/bin/false"}]);
    for (pointer, value, words) in [
        ("/hooks", json!({"prestart": fails}), "prestart hook"),
        (
            "/hooks",
            json!({"createRuntime": fails}),
            "createRuntime hook",
        ),
        (
            "/hooks",
            json!({"createContainer": fails}),
            "createContainer hook",
        ),
        (
            "/process/args",
            json!(["nope"]),
            "executable file not found",
        ),
        (
            "",
            json!(pod.path()),
            r#""pd0": set an address of its own in the container"#,
        ),
    ] {
        let mut wanted = base.clone();
        // Each gets the other's name.
        wanted["linux"]["netDevices"] = json!({"pd0": {"name": "pd1"}, "pd1": {"name": "pd0"}});
        wanted["hooks"] = json!({});
        match (wanted.pointer_mut(pointer), value.as_str()) {
            (Some(_), Some(path)) if pointer.is_empty() => join(&mut wanted, path)?,
            (Some(place), _) => *place = value,
            (None, _) => anyhow::bail!("no {pointer}"),
        }
        bundle.write(&wanted)?;
        bundle.refused(&["run", "none"], &[words])?;
        eventually(&format!("{words}: all is as before"), || {
            Ok(host.devices()? == before)
        })?;
        ensure!(pod.devices()? == there);
    }
    Ok(())
}
