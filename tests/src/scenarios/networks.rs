//! CNI networks: real plugins, in a network namespace that stands for the host's.
//!
//! Witnesses are the plugins' own leases, `ip` in the namespaces, programs that answer on ports,
//! and the rules that iptables lists.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::{
    namespaces::pid,
    remap::{can_be_mapped, not_mapped},
};
use crate::{
    context::{Context, Output, eventually, finish},
    process::Running,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("networks::an_address_of_the_list", an_address_of_the_list).alone(),
    Scenario::new("networks::two_at_once", two_at_once).alone(),
    Scenario::new("networks::hardened_too", hardened_too).alone(),
    Scenario::new("networks::ports_are_the_hosts", ports_are_the_hosts).alone(),
    Scenario::new("networks::killed_monitor", killed_monitor).alone(),
    Scenario::new("networks::refusals_leave_nothing", refusals_leave_nothing).alone(),
];

const PLUGINS: &str = "/usr/lib/cni";

/// What stands for the host: a network namespace with an agent in it, and network lists.
struct Host {
    holder: Running,
    dir: PathBuf,
}

impl Host {
    fn new(context: &Context) -> Result<Self> {
        let dir = context.state.with_extension("cni");
        fs::create_dir(&dir)?;
        let script = "busybox ip link set lo up && echo up && exec sleep 600";
        let holder = Running::start(Command::new("unshare").args(["-n", "sh", "-c", script]))?;
        eventually("loopback is up", || Ok(holder.stdout() == "up\n"))?;
        let host = Self { holder, dir };
        host.list(
            "front",
            "10.77.3",
            r#", {"type": "portmap", "capabilities": {"portMappings": true}}"#,
        )?;
        host.list("back", "10.77.4", "")?;
        host.start_agent(context)?;
        Ok(host)
    }

    fn start_agent(&self, context: &Context) -> Result<i32> {
        let namespace = format!("-n{}", self.namespace());
        let lists = self.dir.display().to_string();
        let path = format!("{PLUGINS}:{lists}");
        let args = [
            "--detach-on-exit",
            "--cni-netconfpath",
            &lists,
            "--cni-path",
            &path,
        ];
        context.start_agent_by(&["nsenter", &namespace], &args)
    }

    fn list(&self, name: &str, net: &str, more: &str) -> Result<()> {
        let leases = self.leases("");
        let text = format!(
            r#"{{"name": "{name}", "cniVersion": "1.0.0", "plugins": [
              {{"type": "bridge", "bridge": "{name}0", "isGateway": true, "ipam": {{
                "type": "host-local", "dataDir": "{}",
                "ranges": [[{{"subnet": "{net}.0/24"}}]]}}}}{more}]}}"#,
            leases.display()
        );
        Ok(fs::write(self.dir.join(format!("{name}.conflist")), text)?)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    fn leases(&self, name: &str) -> PathBuf {
        self.dir.join("leases").join(name)
    }

    /// Addresses that host-local has given away, with whose they are.
    fn given(&self, name: &str) -> Result<Vec<(String, String)>> {
        let Ok(entries) = fs::read_dir(self.leases(name)) else {
            return Ok(Vec::new());
        };
        let mut given = Vec::new();
        for entry in entries {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.parse::<std::net::IpAddr>().is_ok() {
                given.push((file, fs::read_to_string(entry.path())?));
            }
        }
        Ok(given)
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        inside(&self.namespace(), program, args)
    }

    /// What answers there says.
    fn ask(&self, address: &str, port: &str) -> Result<String> {
        let output = self.run(
            "busybox",
            &["timeout", "20", "busybox", "nc", address, port],
        )?;
        Ok(output.stdout)
    }

    fn has_nothing_left(&self) -> Result<()> {
        for name in ["front", "back"] {
            let given = self.given(name)?;
            ensure!(given.is_empty(), "{name}: {given:?}");
        }
        let links = self.run("busybox", &["ip", "link"])?.stdout;
        ensure!(!links.contains("veth"), "{links}");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let pinned = mounts.lines().find(|line| line.contains("/netns "));
        ensure!(pinned.is_none(), "{pinned:?}");
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn inside(namespace: &str, program: &str, args: &[&str]) -> Result<Output> {
    let mut command = Command::new("nsenter");
    finish(
        command
            .arg(format!("-n{namespace}"))
            .arg(program)
            .args(args),
    )
}

/// A container that answers `known` to each who connects to its port 80.
fn serve(context: &Context, name: &str, args: &[&str]) -> Result<String> {
    let run = ["run", "-d", "--name", name];
    let script = "while busybox nc -l -p 80 -e echo known; do :; done";
    context.ok(&[&run[..], args, &["host", "sh", "-c", script]].concat())?;
    pid(context, name)
}

fn an_address_of_the_list(context: &Context) -> Result<()> {
    let host = Host::new(context)?;
    let args = [
        "--network",
        "front",
        "--hostname",
        "box",
        "--cap-add",
        "NET_ADMIN",
    ];
    let pid = serve(context, "one", &args)?;
    let detail = context.inspect("one")?;
    let id = detail["id"].as_str().context("no id")?.to_owned();
    let given = host.given("front")?;
    let [(address, whose)] = &given[..] else {
        anyhow::bail!("not one lease: {given:?}")
    };
    ensure!(whose.starts_with(&id), "{whose}");
    let shown = &detail["networks"][0];
    ensure!(
        shown["name"] == "front" && shown["addresses"][0] == **address,
        "{shown}"
    );
    // The interface itself, by the namespace of the container's process.
    let own = inside(&format!("/proc/{pid}/ns/net"), "busybox", &["ip", "addr"])?.stdout;
    let mac = shown["mac"]
        .as_str()
        .context("no address of the interface")?;
    ensure!(
        own.contains(&format!("inet {address}/24")) && own.contains("eth0") && own.contains(mac),
        "{own}"
    );
    // Root inside bound a port below 1024, and its network is its own to change.
    eventually("it answers", || Ok(host.ask(address, "80")? == "known\n"))?;
    context.ok(&[
        "exec", "one", "busybox", "ip", "link", "set", "eth0", "mtu", "1400",
    ])?;
    let hosts = context.ok(&["exec", "one", "cat", "/etc/hosts"])?;
    ensure!(hosts.contains(&format!("{address}\tbox\n")), "{hosts}");

    context.ok(&["stop", "-t", "0", "one"])?;
    host.has_nothing_left()?;
    // Each run is put on it anew.
    context.ok(&["start", "one"])?;
    ensure!(host.given("front")?.len() == 1);
    context.ok(&["rm", "-f", "one"])?;
    host.has_nothing_left()
}

fn two_at_once(context: &Context) -> Result<()> {
    let host = Host::new(context)?;
    let pid = serve(
        context,
        "both",
        &["--network", "front", "--network", "back"],
    )?;
    let own = inside(&format!("/proc/{pid}/ns/net"), "busybox", &["ip", "addr"])?.stdout;
    for name in ["front", "back"] {
        let given = host.given(name)?;
        let (address, _) = given.first().context("no lease")?;
        ensure!(own.contains(&format!("inet {address}/24")), "{own}");
        eventually("it answers", || Ok(host.ask(address, "80")? == "known\n"))?;
    }
    // Who joins its network is on the same, and neither gives it back for the other.
    let args = ["run", "--rm", "--network", "container:both", "host"];
    let joined = context.ok(&[&args[..], &["busybox", "ip", "addr"]].concat())?;
    ensure!(joined == own, "{joined}\ninstead of\n{own}");
    ensure!(host.given("back")?.len() == 1);
    context.ok(&["rm", "-f", "both"])?;
    host.has_nothing_left()
}

/// With ids and a user namespace of its own.
fn hardened_too(context: &Context) -> Result<()> {
    let host = Host::new(context)?;
    let run = ["run", "--rm", "--profile", "hardened", "--network", "front"];
    let script = "cat /proc/self/uid_map; busybox ip addr";
    let args = [&run[..], &["host", "sh", "-c", script]].concat();
    if can_be_mapped(Path::new("/"))? {
        let shown = context.ok(&args)?;
        let map: Vec<_> = shown.split_whitespace().take(3).collect();
        ensure!(map[0] == "0" && map[1] != "0", "{shown}");
        ensure!(shown.contains("inet 10.77.3.2/24"), "{shown}");
    } else {
        not_mapped(context, &args, Path::new("/"))?;
    }
    host.has_nothing_left()
}

fn ports_are_the_hosts(context: &Context) -> Result<()> {
    let host = Host::new(context)?;
    if host
        .run("iptables", &["-t", "nat", "-S"])
        .is_ok_and(|output| output.code == Some(0))
    {
        let args = ["--network", "front", "-p", "8080:80"];
        serve(context, "web", &args)?;
        eventually("it answers", || {
            Ok(host.ask("10.77.3.1", "8080")? == "known\n")
        })?;
        let listed = context.ok(&["ps"])?;
        ensure!(listed.contains("0.0.0.0:8080->80/tcp"), "{listed}");
        // The port is taken for every other, too.
        let second = [
            "run",
            "--rm",
            "--network",
            "front",
            "-p",
            "8080:81",
            "host",
            "true",
        ];
        let refused = context.paddock(&second)?;
        let line = "host port 8080/tcp: address already in use";
        ensure!(
            refused.code == Some(125) && refused.stderr.contains(line),
            "{refused:?}"
        );
        ensure!(host.given("front")?.len() == 1);
        let listens = host.run(
            "busybox",
            &["timeout", "5", "busybox", "nc", "-l", "-p", "8080"],
        )?;
        ensure!(
            listens.stderr.contains("Address already in use"),
            "{listens:?}"
        );
        context.ok(&["rm", "-f", "web"])?;
        let rules = host.run("iptables", &["-t", "nat", "-S"])?.stdout;
        ensure!(!rules.contains("8080"), "{rules}");
    } else {
        // The plugin's own word, and the bridge before it is undone.
        let args = [
            "run",
            "--rm",
            "--network",
            "front",
            "-p",
            "8080:80",
            "host",
            "true",
        ];
        let refused = context.paddock(&args)?;
        ensure!(
            refused.code == Some(125)
                && refused.stderr.contains("CNI plugin 'portmap': ADD: ")
                && refused.stderr.contains("iptables"),
            "{refused:?}"
        );
        // What portmap could not take back is tried once more as the container goes.
        eventually("it is removed", || {
            Ok(context.ok(&["ps", "-a", "-q"])?.is_empty())
        })?;
    }
    host.has_nothing_left()
}

/// Of its monitor, or of that and the agent, nobody is left who would take it off.
fn killed_monitor(context: &Context) -> Result<()> {
    let host = Host::new(context)?;
    for with_agent in [false, true] {
        serve(context, "lost", &["--network", "front"])?;
        ensure!(host.given("front")?.len() == 1);
        let monitor = context.monitor_of("lost")?;
        if with_agent {
            context.kill_agent()?;
        }
        kill(monitor, Signal::SIGKILL)?;
        if with_agent {
            host.start_agent(context)?;
        }
        eventually("it has ended", || {
            Ok(context.inspect("lost")?["state"] == "exited")
        })?;
        host.has_nothing_left()?;
        context.ok(&["rm", "lost"])?;
    }
    Ok(())
}

fn refusals_leave_nothing(context: &Context) -> Result<()> {
    let host = Host::new(context)?;
    script(
        &host.dir.join("angry"),
        r#"[ $CNI_COMMAND = DEL ] || { printf '{"code": 101, "msg": "no, by policy"}'; exit 1; }"#,
    )?;
    host.list("angry", "10.77.5", r#", {"type": "angry"}"#)?;
    host.list("lost", "10.77.6", r#", {"type": "not-there"}"#)?;
    for (args, why) in [
        (&["--network", "nowhere"][..], "no network 'nowhere' in"),
        (&["--network", "../front"], "expected private"),
        (
            &["--network", "angry"],
            "CNI plugin 'angry': ADD: no, by policy (code 101)",
        ),
        (&["--network", "lost"], "no CNI plugin 'not-there' in"),
        (&["-p", "8080:80"], "add --network NAME"),
        (
            &["--network", "back", "-p", "8080:80"],
            "no plugin of network back takes ports",
        ),
        (&["--network", "host", "-p", "8080:80"], "of its own"),
        (&["--network", "back", "--network", "back"], "given twice"),
    ] {
        let run = [&["run", "--name", "refused"][..], args, &["host", "true"]].concat();
        let output = context.paddock(&run)?;
        ensure!(
            output.code == Some(125)
                && output.stderr.contains(why)
                && output.stderr.lines().count() == 1,
            "{args:?}: {output:?}"
        );
        if context.paddock(&["inspect", "refused"])?.code == Some(0) {
            context.ok(&["rm", "refused"])?;
        }
        for name in ["angry", "lost"] {
            let given = host.given(name)?;
            ensure!(given.is_empty(), "{name}: {given:?}");
        }
        host.has_nothing_left()?;
    }
    Ok(())
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}
