//! OOM kills: victim, trigger, whose limit. Witness: the kernel's own log and the cgroup's files.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::kernel::{ESCAPES, able, calls, equal};
use crate::{
    context::{Context, cgroup_file, eventually, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("oom::as_the_kernel_logs_it", as_the_kernel_logs_it),
    Scenario::new("oom::of_a_nested_limit", of_a_nested_limit),
    Scenario::new("oom::of_a_limit_above", of_a_limit_above).alone(),
    Scenario::new("oom::of_a_group", of_a_group),
    Scenario::new("oom::of_the_host", of_the_host),
    Scenario::new("oom::unseen_kills_are_no_mismatch", unseen_kills).alone(),
    Scenario::new(
        "oom::who_left_stays_the_containers",
        who_left_stays_the_containers,
    ),
];

const KILLS: &str = "paddock_container_oom_kills_total";
const MISMATCH: &str = "paddock_container_oom_mismatch";
const GREED: &str = "134217728";
const LIMIT: u64 = 64 << 20;
/// Each CPU keeps up to 32 pages of each count to itself.
const KEPT_BACK: u64 = 2 << 20;

/// The kernel's log from now on.
struct Log(File, String);

impl Log {
    fn new() -> Result<Self> {
        // It says of ten kills in five seconds at most whose they were (`oom_rs`): the scenarios
        // before this one may have had theirs.
        thread::sleep(Duration::from_secs(5));
        let mut log = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/kmsg")?;
        log.seek(SeekFrom::End(0))?;
        Ok(Self(log, String::new()))
    }

    /// A record a read.
    fn text(&mut self) -> Result<&str> {
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => self.1 += &String::from_utf8_lossy(&record[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(&self.1),
                // EPIPE: some were overwritten.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What it says of the kill of a process.
    fn kill(&mut self, pid: &Value) -> Result<Kill> {
        let killed = format!("Killed process {pid} ");
        let chosen = format!(",pid={pid},");
        eventually("the kernel's log", || Ok(self.text()?.contains(&killed)))?;
        let find = |wanted: &str| self.1.lines().rfind(|line| line.contains(wanted));
        Ok(Kill {
            // A group's others are not chosen.
            choice: find(&chosen).map(ToOwned::to_owned),
            size: find(&killed).context("no size")?.to_owned(),
        })
    }
}

struct Kill {
    /// `oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/…,task_memcg=/…`
    choice: Option<String>,
    /// `… total-vm:132932kB, anon-rss:64768kB, …`
    size: String,
}

impl Kill {
    fn bytes(&self, name: &str) -> Result<u64> {
        let rest = self
            .size
            .split_once(&format!("{name}:"))
            .context("no size")?
            .1;
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Ok(number.parse::<u64>()? << 10)
    }

    fn chosen(&self, name: &str) -> Option<&str> {
        let rest = self.choice.as_ref()?.split_once(&format!("{name}="))?.1;
        rest.split([',', '\n']).next()
    }
}

/// Kills that were told, each as the kernel's log has it.
fn told(context: &Context, name: &str, log: &mut Log, count: usize) -> Result<Vec<Value>> {
    let mut told = Vec::new();
    eventually("the kills are told", || {
        let events = context.ok(&["events", "--format", "json", "--container", name])?;
        let lines = events.lines().filter(|line| line.contains("\"oom_kill\""));
        told = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(told.len() >= count)
    })?;
    ensure!(
        told.len() == count,
        "{} instead of {count} told",
        told.len()
    );
    for event in &told {
        as_logged(event, &log.kill(&event["victim"]["pid"])?)?;
    }
    Ok(told)
}

fn as_logged(event: &Value, kill: &Kill) -> Result<()> {
    for (field, name) in [
        ("rss_anon_bytes", "anon-rss"),
        ("rss_file_bytes", "file-rss"),
        ("rss_shmem_bytes", "shmem-rss"),
        ("total_vm_bytes", "total-vm"),
    ] {
        let said = event[field]
            .as_u64()
            .with_context(|| format!("no {field}: {event}"))?;
        let logged = kill.bytes(name)?;
        ensure!(
            said.abs_diff(logged) <= KEPT_BACK,
            "{field}: {said} instead of {logged}: {event}"
        );
    }
    let adj = format!("oom_score_adj:{}", event["oom_score_adj"]);
    ensure!(kill.size.trim_end().ends_with(&adj), "{adj}: {}", kill.size);
    let comm = event["victim"]["comm"].as_str().context("no name")?;
    ensure!(
        kill.size.contains(&format!("({comm})")),
        "{comm}: {}",
        kill.size
    );
    let Some(constraint) = kill.chosen("constraint") else {
        ensure!(event["group"] == true, "{event}");
        return Ok(());
    };
    let want = match constraint {
        "CONSTRAINT_MEMCG" => "memcg",
        "CONSTRAINT_NONE" => "host",
        _ => "cpuset",
    };
    ensure!(event["constraint"] == want, "{constraint}: {event}");
    // Nobody's cgroup is found from a container's.
    if let Some(limit) = event["limit_cgroup"].as_str() {
        ensure!(
            kill.chosen("oom_memcg") == Some(limit),
            "{limit}: {:?}",
            kill.choice
        );
    }
    Ok(())
}

/// The two halves' counts, and that they are the cgroup's own.
fn counted(context: &Context, name: &str, level: &str, kills: u32, own: u64) -> Result<()> {
    let metrics = context.metrics()?;
    let labels = [("container", name), ("level", level)];
    equal("kills at the level", metrics.sum(KILLS, &labels), kills)?;
    equal("all kills", metrics.sum(KILLS, &labels[..1]), kills)?;
    let mismatch = metrics.value(MISMATCH, &labels[..1]);
    equal("mismatch", mismatch.context("no mismatch")?, 0)?;
    let cgroup = cgroup_of(context, name)?;
    let file = cgroup_file(&cgroup, "memory.events", ("memory", "memory.oom_control"));
    let text = fs::read_to_string(file)?;
    let said = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    ensure!(said == Some(&own.to_string()), "{own}: {text}");
    Ok(())
}

fn cgroup_of(context: &Context, name: &str) -> Result<String> {
    let detail = context.inspect(name)?;
    Ok(detail["cgroup"].as_str().context("no cgroup")?.to_owned())
}

fn survived(context: &Context, name: &str, times: usize) -> Result<()> {
    eventually("the child was killed", || {
        Ok(context.ok(&["logs", name])?.matches("survived").count() >= times)
    })
}

fn as_the_kernel_logs_it(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let mut log = Log::new()?;
    let volume = context.workload_volume();
    let run = |name, script: &str| {
        let args = [
            "run",
            "-d",
            "--name",
            name,
            "--memory",
            "64m",
            "--oom-score-adj",
            "17",
        ];
        context.ok(&[&args[..], &["-v", &volume, "host", "sh", "-c", script]].concat())
    };
    run(
        "parent",
        &format!("for i in 1 2 3; do /run/workload alloc {GREED}; echo survived; done; sleep 60"),
    )?;
    survived(context, "parent", 3)?;
    let limit = format!("/{}", cgroup_of(context, "parent")?);
    for event in told(context, "parent", &mut log, 3)? {
        ensure!(
            event["level"] == "own"
                && event["limit_cgroup"] == limit.as_str()
                && event["limit_bytes"] == LIMIT
                && event["group"] == false
                && event["main_process"] == false
                // It asked for the memory itself.
                && event["trigger"]["pid"] == event["victim"]["pid"],
            "{event}"
        );
    }
    counted(context, "parent", "own", 3, 3)?;
    run("alone", &format!("exec /run/workload alloc {GREED}"))?;
    ensure!(context.ok(&["wait", "alone"])?.trim() == "137");
    let event = told(context, "alone", &mut log, 1)?.remove(0);
    ensure!(
        event["main_process"] == true && event["level"] == "own",
        "{event}"
    );
    Ok(())
}

/// A container whose first process waits for a file, then has a greedy child.
fn waiting(context: &Context, name: &str) -> Result<PathBuf> {
    let dir = context.state.with_extension(name);
    fs::create_dir(&dir)?;
    let (volume, go) = (
        context.workload_volume(),
        format!("{}:/run/go:ro", dir.display()),
    );
    let script = format!(
        "while [ ! -e /run/go/now ]; do sleep 0.05; done; /run/workload alloc {GREED}; echo survived; sleep 60"
    );
    context.ok(&[
        "run", "-d", "--name", name, "-v", &volume, "-v", &go, "host", "sh", "-c", &script,
    ])?;
    Ok(dir)
}

/// Lets it go on.
fn go(context: &Context, name: &str, dir: &Path) -> Result<()> {
    fs::write(dir.join("now"), "")?;
    survived(context, name, 1)?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

fn set_limit(cgroup: &str) -> Result<()> {
    let file = cgroup_file(cgroup, "memory.max", ("memory", "memory.limit_in_bytes"));
    fs::write(&file, LIMIT.to_string()).with_context(|| file.display().to_string())
}

fn of_a_nested_limit(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let mut log = Log::new()?;
    let dir = waiting(context, "nested")?;
    let cgroup = cgroup_of(context, "nested")?;
    let inner = format!("{cgroup}/inner");
    let procs = |cgroup: &str| cgroup_file(cgroup, "cgroup.procs", ("memory", "cgroup.procs"));
    fs::create_dir(procs(&inner).parent().context("no directory")?)?;
    // What it starts meanwhile is where it was: until all are below.
    eventually("all are below", || {
        let pids = fs::read_to_string(procs(&cgroup))?;
        for pid in pids.lines() {
            match fs::write(procs(&inner), pid) {
                Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(pids.is_empty())
    })?;
    if pure_v2() {
        fs::write(
            cgroup_file(&cgroup, "cgroup.subtree_control", ("", "")),
            "+memory",
        )?;
    }
    set_limit(&inner)?;
    go(context, "nested", &dir)?;
    let event = told(context, "nested", &mut log, 1)?.remove(0);
    ensure!(
        event["level"] == "nested"
            && event["limit_cgroup"] == format!("/{inner}").as_str()
            && event["limit_bytes"] == LIMIT,
        "{event}"
    );
    // v1 counts it below alone.
    counted(context, "nested", "nested", 1, u64::from(pure_v2()))
}

fn of_a_limit_above(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let mut log = Log::new()?;
    let dir = waiting(context, "below")?;
    let cgroup = cgroup_of(context, "below")?;
    let above = cgroup.rsplit_once('/').context("no cgroup above")?.0;
    set_limit(above)?;
    go(context, "below", &dir)?;
    let event = told(context, "below", &mut log, 1)?.remove(0);
    ensure!(
        event["level"] == "ancestor"
            && event["limit_cgroup"] == format!("/{above}").as_str()
            && event["limit_bytes"] == LIMIT,
        "{event}"
    );
    counted(context, "below", "ancestor", 1, 1)
}

/// v2 alone kills all of a cgroup at once; each of them is told. v1 has no file to ask for it.
fn of_a_group(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    if !pure_v2() {
        context.ok(&["run", "-d", "--name", "group", "host", "sleep", "60"])?;
        let cgroup = cgroup_of(context, "group")?;
        let asked = fs::read(cgroup_file(&cgroup, "", ("memory", "memory.oom.group")));
        let errno = asked.err().and_then(|error| error.raw_os_error());
        ensure!(errno == Some(nix::libc::ENOENT), "{errno:?}");
        return Ok(());
    }
    let mut log = Log::new()?;
    let dir = waiting(context, "group")?;
    let cgroup = cgroup_of(context, "group")?;
    set_limit(&cgroup)?;
    fs::write(cgroup_file(&cgroup, "memory.oom.group", ("", "")), "1")?;
    fs::write(dir.join("now"), "")?;
    ensure!(context.ok(&["wait", "group"])?.trim() == "137");
    fs::remove_dir_all(&dir)?;
    let together = format!("Tasks in /{cgroup} are going to be killed");
    ensure!(log.text()?.contains(&together), "{together}: {}", log.1);
    let said = context.inspect("group")?;
    let kills = said["oom"]["kills"].as_u64().context("no kills")?;
    // The shell and its child.
    ensure!(kills >= 2, "{said}");
    let events = told(context, "group", &mut log, usize::try_from(kills)?)?;
    ensure!(
        events.iter().all(|event| event["group"] == true),
        "{events:?}"
    );
    let main = events.iter().filter(|event| event["main_process"] == true);
    ensure!(main.count() == 1, "{events:?}");
    let metrics = context.metrics()?;
    let mismatch = metrics.value(MISMATCH, &[("container", "group")]);
    equal("mismatch", mismatch.context("no mismatch")?, 0)
}

/// The machine's own shortage, as sysrq makes it in a guest that is ours alone. Elsewhere it is
/// not tried: another's process would die of it.
fn of_the_host(context: &Context) -> Result<()> {
    if !fs::read_to_string("/etc/os-release")?.contains("ID=paddock-guest") {
        return Ok(());
    }
    context.start_agent(&["--detach-on-exit"])?;
    let mut log = Log::new()?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "victim",
        "--memory",
        "64m",
        "--oom-score-adj",
        "1000",
        "host",
        "sleep",
        "600",
    ])?;
    fs::write("/proc/sysrq-trigger", "f")?;
    ensure!(context.ok(&["wait", "victim"])?.trim() == "137");
    let event = told(context, "victim", &mut log, 1)?.remove(0);
    ensure!(
        event["level"] == "host"
            && event["limit_bytes"].is_null()
            && event["limit_cgroup"].is_null()
            // A worker of the kernel's.
            && event["trigger"]["pid"] != event["victim"]["pid"],
        "{event}"
    );
    let labels = [("container", "victim"), ("constraint", "host")];
    equal("kills", context.metrics()?.sum(KILLS, &labels), 1)
}

/// What was killed while no kernel half was there is in the cgroup's count alone, and known to be.
fn unseen_kills(context: &Context) -> Result<()> {
    let mut log = Log::new()?;
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let script = format!(
        "for i in 1 2 3; do /run/workload alloc {GREED}; echo survived; while [ ! -e /go$i ]; do sleep 0.05; done; done; sleep 60"
    );
    context.ok(&[
        "run", "-d", "--name", "through", "--memory", "64m", "-v", &volume, "host", "sh", "-c",
        &script,
    ])?;
    survived(context, "through", 1)?;
    counted(context, "through", "own", 1, 1)?;
    let cgroup = cgroup_of(context, "through")?;
    let pid = context.inspect("through")?["pid"]
        .as_i64()
        .context("no pid")?;
    context.stop_agent()?;
    fs::write(format!("/proc/{pid}/root/go1"), "")?;
    let file = cgroup_file(&cgroup, "memory.events", ("memory", "memory.oom_control"));
    eventually("a second kill", || {
        Ok(fs::read_to_string(&file)?.contains("oom_kill 2"))
    })?;
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["exec", "through", "touch", "/go2"])?;
    survived(context, "through", 3)?;
    // The first is still known; nobody looked at the second.
    told(context, "through", &mut log, 2)?;
    let metrics = context.metrics()?;
    let mismatch = metrics.value(MISMATCH, &[("container", "through")]);
    equal("mismatch", mismatch.context("no mismatch")?, 0)
}

/// A container moves itself to cgroups of the host's; what it does there is still its own doing.
fn who_left_stays_the_containers(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let mut log = Log::new()?;
    let outside = format!("oom-outside-{}", std::process::id());
    let roots: &[&str] = if pure_v2() {
        &[""]
    } else {
        &["unified", "memory", "pids"]
    };
    let dirs: Vec<PathBuf> = roots
        .iter()
        .map(|root| Path::new("/sys/fs/cgroup").join(root).join(&outside))
        .collect();
    let result = leave(context, &mut log, &outside, &dirs);
    context.paddock(&["rm", "-f", "gone"])?;
    for dir in dirs {
        eventually("the cgroup empties", || {
            Ok(!dir.exists() || fs::remove_dir(&dir).is_ok())
        })?;
    }
    result
}

fn leave(context: &Context, log: &mut Log, outside: &str, dirs: &[PathBuf]) -> Result<()> {
    let mut volumes = vec![context.workload_volume()];
    for (number, dir) in dirs.iter().enumerate() {
        fs::create_dir(dir)?;
        volumes.push(format!("{}:/run/out{number}", dir.display()));
    }
    set_limit(outside)?;
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    let mut args = able("gone", &volumes);
    args.splice(1..1, ["-d", "--cgroupns", "host"]);
    let script = format!(
        "for out in /run/out*; do echo $$ >$out/cgroup.procs; done; /run/workload unshare-loop uts 7; /run/workload alloc {GREED}; echo survived; sleep 60"
    );
    args.extend(["sh", "-c", &script]);
    context.ok(&args)?;
    survived(context, "gone", 1)?;
    let detail = context.inspect("gone")?;
    let (pid, cgroup) = (
        &detail["pid"],
        detail["cgroup"].as_str().context("no cgroup")?,
    );
    let places = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let left = places.lines().filter(|line| line.ends_with(outside));
    ensure!(left.count() == dirs.len(), "{places}");
    // The other v1 hierarchies are no identity.
    let named =
        |line: &&str| line.contains("memory") || line.contains(":pids:") || line.contains("::");
    ensure!(
        !places
            .lines()
            .filter(named)
            .any(|line| line.contains(cgroup)),
        "{places}"
    );
    let event = told(context, "gone", log, 1)?.remove(0);
    ensure!(
        event["level"] == "ancestor" && event["limit_bytes"] == LIMIT,
        "{event}"
    );
    counted(context, "gone", "ancestor", 1, 0)?;
    let metrics = context.metrics()?;
    equal(
        "unshare",
        calls(&metrics, "gone", "unshare", "uts", "allowed"),
        7,
    )?;
    let moved = [
        ("container", "gone"),
        ("activity", "cgroup_leave"),
        ("verdict", "escape"),
    ];
    let count = u32::try_from(dirs.len())?;
    equal(
        "leaving",
        metrics.sum("paddock_container_activities_total", &moved),
        count,
    )?;
    // Opening what it left by, and leaving.
    let escapes = [("container", "gone"), ("kind", "cgroup")];
    equal("escapes", metrics.sum(ESCAPES, &escapes), 2 * count)
}
