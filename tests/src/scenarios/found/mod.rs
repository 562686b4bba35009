//! Containers that others make: found however short they live, their set-up no escape.

pub mod podman;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use serde_json::Value;

use super::{
    kernel::{closes, equal},
    policy::enforced::asks,
};
use crate::{
    context::{Context, TIMEOUT, cgroup_mounts, eventually, finish},
    metrics::Metrics,
    process::Running,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("found::however_short_they_live", however_short_they_live),
    Scenario::new("found::set_up_is_no_escape", set_up_is_no_escape),
    Scenario::new("found::nested_count_in_both", nested_count_in_both),
    Scenario::new(
        "found::nobodys_cgroups_cost_no_slot",
        nobodys_cgroups_cost_no_slot,
    ),
    Scenario::new("found::while_no_agent_was_there", while_no_agent_was_there).alone(),
    Scenario::new("found::an_agent_in_a_container", an_agent_in_a_container).alone(),
];

const CALLS: &str = "paddock_container_namespace_calls_total";
const ESCAPES: &str = "paddock_container_escapes_total";
const INFO: &str = "paddock_container_info";
/// A prime that fits neither a batch nor the slots that are laid out.
const MANY: u32 = 97;

/// A v2 cgroup that looks like podman's; gone when dropped.
pub(super) struct Cgroup {
    pub(super) path: PathBuf,
    pub(super) id: String,
}

impl Cgroup {
    pub(super) fn new(number: u32) -> Result<Self> {
        // Told apart by its first twelve digits, as podman's are.
        let id = format!("{number:012x}{:052x}", std::process::id());
        Self::at(&unified()?.join(format!("libpod-{id}")), id)
    }

    fn at(path: &Path, id: String) -> Result<Self> {
        fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            id,
        })
    }

    /// A shell that joins and becomes `command`.
    pub(super) fn joined(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        let script = format!(
            "echo $$ >{}/cgroup.procs && exec {command}",
            self.path.display()
        );
        shell.args(["-c", &script]);
        shell
    }

    fn joins(&self, pid: i32) -> Result<()> {
        Ok(fs::write(self.path.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..200 {
            match fs::remove_dir(&self.path) {
                // Its last process may still be on its way out.
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                    thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

pub(super) fn unified() -> Result<PathBuf> {
    let mut mounts = cgroup_mounts()?.into_iter();
    let found = mounts.find(|(controllers, _)| controllers.is_none());
    found.map(|(_, mount)| mount).context("no v2 hierarchy")
}

/// Value of a label of the info series that has another label so.
pub(super) fn label(metrics: &Metrics, of: &str, is: &str, wanted: &str) -> Option<String> {
    let line = metrics
        .0
        .lines()
        .find(|line| line.starts_with(INFO) && line.contains(&format!("{of}=\"{is}\"")))?;
    let rest = line.split_once(&format!("{wanted}=\""))?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

fn calls(metrics: &Metrics, name: &str, syscall: &str) -> f64 {
    metrics.sum(CALLS, &[("container", name), ("syscall", syscall)])
}

/// Made, run in, and removed before anybody can have read of it.
fn however_short_they_live(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let mut ids = Vec::new();
    for number in 0..MANY {
        let cgroup = Cgroup::new(number)?;
        let output = finish(&mut cgroup.joined("unshare -u true"))?;
        ensure!(output.code == Some(0), "{output:?}");
        ids.push(cgroup.id.clone());
    }
    eventually("all are gone", || {
        let list = context.json(&["ps", "-a", "--format", "json"])?;
        let list = list.as_array().context("no list")?;
        Ok(!list
            .iter()
            .any(|one| ids.iter().any(|id| one["id"] == id.as_str())))
    })?;
    let metrics = context.metrics()?;
    for id in &ids {
        let name = label(&metrics, "container_id", id, "container")
            .with_context(|| format!("{id} was not found"))?;
        equal(
            &format!("unshare of {name}"),
            calls(&metrics, &name, "unshare"),
            1,
        )?;
    }
    equal(
        "missed births",
        metrics.sum("paddock_births_missed_total", &[("place", "outside")]),
        0,
    )
}

/// A process that this one puts into the container enters namespaces of others and makes one:
/// that is set-up. The same call by a program that runs inside is an escape.
fn set_up_is_no_escape(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let cgroup = Cgroup::new(MANY)?;
    let workload = context.workload.display().to_string();
    // What set-up brings in is the container's from then on; so one for each.
    let (mut one, mut two) = (another()?, another()?);
    let [uts, peer] = [&one, &two].map(|of| format!("/proc/{}/ns/uts", of.pid()));
    let name = || -> Result<String> {
        let mut name = None;
        eventually("it is found", || {
            name = label(&context.metrics()?, "container_id", &cgroup.id, "container");
            Ok(name.is_some())
        })?;
        name.context("no name")
    };
    let name = name()?;
    let mut enter = Command::new(&workload);
    enter.args(["arrive", &uts, "unshare", "-u", "true"]);
    let mut enter = Running::start(&mut enter)?;
    cgroup.joins(enter.pid())?;
    enter.write_line("go")?;
    let output = enter.wait(TIMEOUT)?;
    ensure!(output.code == 0, "{output:?}");
    let set_up = |programs: u32| -> Result<()> {
        let metrics = context.metrics()?;
        equal("setns in set-up", calls(&metrics, &name, "setns"), 0)?;
        equal(
            "unshare of the program",
            calls(&metrics, &name, "unshare"),
            programs,
        )?;
        equal("escapes", metrics.sum(ESCAPES, &[("container", &name)]), 0)
    };
    set_up(1)?;
    // Of a runtime that systemd or a snap gave mounts of its own, and which starts itself anew.
    let pipe = context.state.with_extension("pipe");
    mkfifo(&pipe, Mode::S_IRWXU)?;
    let script = format!(
        "{workload} again arrive {uts} unshare -u true <{pipe} & exec 3>{pipe}; \
         while ! readlink /proc/$!/exe | grep -q workload; do :; done; \
         echo $! >{}/cgroup.procs && echo go >&3 && echo go >&3; exec 3>&-; wait $!",
        cgroup.path.display(),
        pipe = pipe.display()
    );
    let output = finish(Command::new("unshare").args(["--mount", "sh", "-ec", &script]));
    fs::remove_file(&pipe)?;
    let output = output?;
    ensure!(output.code == Some(0), "{output:?}");
    set_up(2)?;
    // A program has run inside: who joins by itself is not its maker any more.
    let inside = format!("nsenter --uts={peer} true");
    let output = finish(&mut cgroup.joined(&inside))?;
    ensure!(output.code == Some(0), "{output:?}");
    let metrics = context.metrics()?;
    equal("setns inside", calls(&metrics, &name, "setns"), 1)?;
    let escapes = [
        ("container", name.as_str()),
        ("kind", "peer_namespace"),
        ("outcome", "allowed"),
    ];
    equal("escapes", metrics.sum(ESCAPES, &escapes), 1)?;
    // It cannot get the mark by moving within what is its own.
    let below = cgroup.path.join("below");
    let script = format!(
        "sh -c 'mkdir {0} && echo $$ >{0}/cgroup.procs && {workload} arrive {peer} true </dev/null'",
        below.display()
    );
    let output = finish(&mut cgroup.joined(&script))?;
    let _below = Cgroup {
        path: below,
        id: String::new(),
    };
    ensure!(output.code == Some(0), "{output:?}");
    equal("escapes", context.metrics()?.sum(ESCAPES, &escapes), 2)?;
    for peer in [&mut one, &mut two] {
        peer.signal(Signal::SIGKILL)?;
        while !peer.has_ended()? {
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// A process outside of all containers with a UTS namespace of its own.
fn another() -> Result<Running> {
    let host = fs::read_link("/proc/self/ns/uts")?;
    let process = Running::start(Command::new("unshare").args(["-u", "sleep", "100"]))?;
    let link = format!("/proc/{}/ns/uts", process.pid());
    eventually("another's namespace", || Ok(fs::read_link(&link)? != host))?;
    Ok(process)
}

/// A container in a container has an entry of its own, and the outer one counts it, too.
fn nested_count_in_both(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let outer = Cgroup::new(MANY + 1)?;
    let id = outer.id.replace('0', "f");
    let parent = outer.path.join("docker");
    let script = format!(
        "sh -c 'unshare -u true && mkdir -p {0}/{id} && echo $$ >{0}/{id}/cgroup.procs && unshare -u true && unshare -u true'",
        parent.display()
    );
    let output = finish(&mut outer.joined(&script))?;
    let _parent = Cgroup {
        path: parent.clone(),
        id: String::new(),
    };
    let inner = Cgroup {
        path: parent.join(&id),
        id,
    };
    ensure!(output.code == Some(0), "{output:?}");
    let mut metrics = context.metrics()?;
    eventually("both are found", || {
        metrics = context.metrics()?;
        Ok(label(&metrics, "container_id", &inner.id, "container").is_some())
    })?;
    let name = |cgroup: &Cgroup| {
        label(&metrics, "container_id", &cgroup.id, "container").context("not found")
    };
    let (outside, inside) = (name(&outer)?, name(&inner)?);
    ensure!(
        label(&metrics, "container_id", &inner.id, "parent").as_ref() == Some(&outside),
        "{inside} has another parent than {outside}"
    );
    equal("the inner one's", calls(&metrics, &inside, "unshare"), 2)?;
    equal("both's", calls(&metrics, &outside, "unshare"), 3)?;
    let detail: Value = context.inspect(&inside)?;
    ensure!(detail["parent"] == outside.as_str(), "{detail}");
    drop(inner);
    eventually("the inner one is gone", || {
        Ok(context.paddock(&["inspect", &inside])?.code != Some(0))
    })?;
    equal(
        "both's, after",
        calls(&context.metrics()?, &outside, "unshare"),
        3,
    )
}

/// What is no container gives its slot back, however many there are.
fn nobodys_cgroups_cost_no_slot(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let top = unified()?.join(format!("nobodys-{}", std::process::id()));
    for _ in 0..24 {
        let top = Cgroup::at(&top, String::new())?;
        let made: Result<Vec<_>> = (0..MANY)
            .map(|number| Cgroup::at(&top.path.join(number.to_string()), String::new()))
            .collect();
        drop(made?);
        drop(top);
        thread::sleep(Duration::from_millis(50));
    }
    // Laid out again by an agent that has read of them; a busy machine lets it fall behind.
    eventually("all are read of", || Ok(closes(&context.metrics()?)))?;
    thread::sleep(Duration::from_millis(500));
    let cgroup = Cgroup::new(MANY + 2)?;
    let output = finish(&mut cgroup.joined("unshare -u true"))?;
    ensure!(output.code == Some(0), "{output:?}");
    eventually("a container after them is found", || {
        let metrics = context.metrics()?;
        let name = label(&metrics, "container_id", &cgroup.id, "container");
        Ok(name.is_some_and(|name| calls(&metrics, &name, "unshare") > 0.5))
    })
}

/// Born and gone between an agent that was killed and its successor: the kernel half remembers.
fn while_no_agent_was_there(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let before = Cgroup::new(MANY + 3)?;
    let output = finish(&mut before.joined("unshare -u true"))?;
    ensure!(output.code == Some(0), "{output:?}");
    let found = |cgroup: &str| -> Result<bool> {
        let metrics = context.metrics()?;
        let name = label(&metrics, "container_id", cgroup, "container");
        Ok(name.is_some_and(|name| (calls(&metrics, &name, "unshare") - 1.0).abs() < 0.5))
    };
    eventually("it is found", || found(&before.id))?;
    context.kill_agent()?;
    let cgroup = Cgroup::new(MANY + 4)?;
    let output = finish(&mut cgroup.joined("unshare -u true"))?;
    ensure!(output.code == Some(0), "{output:?}");
    let id = cgroup.id.clone();
    drop(cgroup);
    let still = Cgroup::new(MANY + 5)?;
    let mut process = Running::start(&mut still.joined("sleep 600"))?;
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
    thread::sleep(Duration::from_secs(3));
    context.start_agent(&["--detach-on-exit"])?;
    eventually("what lived without an agent is found", || found(&id))?;
    ensure!(found(&before.id)?, "the count of {} is another", before.id);
    let metrics = context.metrics()?;
    let name = label(&metrics, "container_id", &still.id, "container").context("no name")?;
    eventually("it runs", || {
        Ok(context.inspect(&name)?["state"] == "running")
    })?;
    let told = context.inspect(&name)?["started_at_ns"].as_u64();
    let told = Duration::from_nanos(told.context("no start")?);
    process.signal(Signal::SIGKILL)?;
    while !process.has_ended()? {
        thread::sleep(Duration::from_millis(10));
    }
    ensure!(
        told.abs_diff(began) < Duration::from_secs(2),
        "began at {began:?}, not at {told:?}"
    );
    Ok(())
}

/// As on Kubernetes: what is run in its own container may speak to it, what is run in another's
/// cgroup is the host's root from then on. The next one is in another container, and takes over
/// although its programs are what the policy denies to containers.
fn an_agent_in_a_container(context: &Context) -> Result<()> {
    let all = [0, 1, 2].map(|more| Cgroup::new(MANY + more));
    let [own, other, next] = all;
    let (own, other, next) = (own?, other?, next?);
    let done = one_after_the_other(context, &own, &other, &next);
    // It is in the cgroups that go now.
    let stopped = context.stop_agent();
    done.and(stopped.map(drop))
}

fn one_after_the_other(
    context: &Context,
    own: &Cgroup,
    other: &Cgroup,
    next: &Cgroup,
) -> Result<()> {
    let within = |cgroup: &Cgroup| {
        let join = format!(
            "echo $$ >{}/cgroup.procs && exec \"$@\"",
            cgroup.path.display()
        );
        context.start_agent_by(&["sh", "-c", &join, "sh"], &["--detach-on-exit"])
    };
    let escapes = |cgroup: &Cgroup, wanted: u32| -> Result<()> {
        let metrics = context.metrics()?;
        let name = label(&metrics, "container_id", &cgroup.id, "container").context("no name")?;
        let told = context.ok(&["events", "--container", &name])?;
        equal(
            "escapes",
            metrics.sum(ESCAPES, &[("container", &name)]),
            wanted,
        )
        .context(told)
    };
    within(own)?;
    let ask = format!(
        "{} --state-dir {} ps",
        context.bin.display(),
        context.state.display()
    );
    for (cgroup, wanted) in [(own, 0), (other, 1)] {
        let output = finish(&mut cgroup.joined(&ask))?;
        ensure!(output.code == Some(0), "{output:?}");
        escapes(cgroup, wanted)?;
    }
    let policy = context.state.with_extension("walls.toml");
    fs::write(
        &policy,
        "name = \"walls\"\nmode = \"enforce\"\nwhen_unenforceable = \"audit\"\ndeny = \"any-escape\"\n",
    )?;
    let applied = context.ok(&["policy", "apply", &policy.display().to_string()]);
    fs::remove_file(&policy)?;
    applied?;
    context.kill_agent()?;
    within(next)?;
    escapes(next, 0)?;
    let log = context.agent_log();
    ensure!(
        !log.contains("taken over") && !log.contains("anew"),
        "{log}"
    );
    let denied = finish(&mut other.joined(&ask))?;
    // Where nothing can refuse, who did it is killed.
    let want = asks(context)?.then_some(1);
    ensure!(denied.code == want, "{denied:?}");
    let output = finish(&mut next.joined(&ask))?;
    ensure!(output.code == Some(0), "{output:?}");
    context.ok(&["policy", "rm", "walls"]).map(drop)
}
