//! Every flag for a limit, at `run` and at `update`: the cgroup's own file is the witness. What
//! a version of cgroups or this kernel has not is refused in words that name the controller.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::rows::{ROWS, Row};
use crate::{
    context::{Context, cgroup_file, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "limits::every_flag_is_in_its_file",
        every_flag_is_in_its_file,
    ),
    Scenario::new("limits::idle_is_in_its_file", idle_is_in_its_file),
    Scenario::new(
        "limits::devices_are_in_their_files",
        devices_are_in_their_files,
    ),
    Scenario::new(
        "limits::huge_pages_are_in_their_file",
        huge_pages_are_in_their_file,
    ),
    Scenario::new("limits::rdma_and_misc", rdma_and_misc),
    Scenario::new("limits::any_v2_file_by_name", any_v2_file_by_name),
    Scenario::new(
        "limits::real_time_is_refused_in_words",
        real_time_is_refused_in_words,
    ),
];

pub(super) fn first_line(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

pub(super) fn refused(context: &Context, flag: &str, want: &str) -> Result<()> {
    let output = context.paddock(&["run", "--rm", flag, "host", "true"])?;
    ensure!(
        output.code == Some(125) && output.stderr.trim_end() == want,
        "{flag}: {output:?}, not {want}"
    );
    Ok(())
}

pub(crate) fn cgroup_of(context: &Context, name: &str) -> Result<String> {
    let cgroup = context.inspect(name)?["cgroup"].clone();
    Ok(cgroup.as_str().context("no cgroup")?.to_owned())
}

fn every_flag_is_in_its_file(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "plain", "host", "sleep", "300"])?;
    let plain = cgroup_of(context, "plain")?;
    let (here, not_here): (Vec<&Row>, Vec<&Row>) = ROWS
        .iter()
        .partition(|row| row.file("").is_some() && !row.is_too_new(&plain));
    let flags = here.iter().map(|row| format!("{}={}", row.flag, row.run.0));
    let mut line: Vec<String> = ["run", "-d", "--name", "all"].map(str::to_owned).to_vec();
    line.extend(flags);
    line.extend(["host", "sleep", "300"].map(str::to_owned));
    context.ok(&line)?;
    let cgroup = cgroup_of(context, "all")?;
    for row in &here {
        row.check(&cgroup, row.run)?;
    }
    // Bounded by each other: the sum of memory and swap, the burst and the quota.
    for row in &here {
        let flag = format!("{}={}", row.flag, row.update.0);
        context.ok(&["update", &flag, "all"])?;
        row.check(&cgroup, row.update)?;
    }
    // And back, all at once.
    let mut line = vec!["update".to_owned()];
    line.extend(here.iter().map(|row| format!("{}={}", row.flag, row.run.0)));
    line.push("all".to_owned());
    context.ok(&line)?;
    for row in &here {
        row.check(&cgroup, row.run)?;
    }
    for row in not_here {
        row.is_refused(context)?;
    }
    Ok(())
}

fn idle_is_in_its_file(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "idle",
        "--cpu-idle",
        "--cpu-shares=512",
        "host",
        "sleep",
        "300",
    ])?;
    let cgroup = cgroup_of(context, "idle")?;
    let file = |name| cgroup_file(&cgroup, name, ("cpu", name));
    ensure!(first_line(&file("cpu.idle"))? == "1");
    // The kernel takes no weight of an idle cgroup: nothing else may stumble over that.
    context.ok(&["update", "--cpu-period=50000", "--cpu-quota=5000", "idle"])?;
    context.ok(&["update", "--cpu-idle=false", "idle"])?;
    ensure!(first_line(&file("cpu.idle"))? == "0");
    let weight = cgroup_file(&cgroup, "cpu.weight", ("cpu", "cpu.shares"));
    let want = if pure_v2() { "59" } else { "512" };
    let saw = first_line(&weight)?;
    ensure!(saw == want, "{}: {saw}", weight.display());
    Ok(())
}

/// The path of a block device that is here, and its numbers.
fn block_device() -> Result<(String, String)> {
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let path = Path::new("/dev").join(entry.file_name());
        if path.exists() {
            let numbers = fs::read_to_string(entry.path().join("dev"))?;
            return Ok((path.display().to_string(), numbers.trim().to_owned()));
        }
    }
    anyhow::bail!("no block device on this machine")
}

/// The line of a device, without its numbers; nothing where there is none.
fn device_line(path: &Path, numbers: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix(numbers));
    Ok(line.unwrap_or_default().trim().to_owned())
}

fn devices_are_in_their_files(context: &Context) -> Result<()> {
    const KINDS: [(&str, &str, &str); 4] = [
        (
            "--device-read-bps",
            "blkio.throttle.read_bps_device",
            "rbps",
        ),
        (
            "--device-write-bps",
            "blkio.throttle.write_bps_device",
            "wbps",
        ),
        (
            "--device-read-iops",
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            "--device-write-iops",
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ];
    let (device, numbers) = block_device()?;
    context.start_agent(&["--detach-on-exit"])?;
    let mut line: Vec<String> = ["run", "-d", "--name", "io"].map(str::to_owned).to_vec();
    for (at, (flag, ..)) in (1000..).zip(KINDS) {
        line.push(format!("{flag}={device}:{at}"));
    }
    line.extend(["host", "sleep", "300"].map(str::to_owned));
    context.ok(&line)?;
    let cgroup = cgroup_of(context, "io")?;
    let v1_file = |file| cgroup_file(&cgroup, "io.max", ("blkio", file));
    for (at, (_, file, key)) in (1000..).zip(KINDS) {
        let saw = device_line(&v1_file(file), &numbers)?;
        let there = if pure_v2() {
            saw.split(' ').any(|word| word == format!("{key}={at}"))
        } else {
            saw == at.to_string()
        };
        ensure!(there, "{file} or {key}, {at}: {saw}");
    }
    let one = format!("--device-write-bps={device}:2m");
    context.ok(&["update", &one, "io"])?;
    let saw = device_line(&v1_file("blkio.throttle.write_bps_device"), &numbers)?;
    let want = if pure_v2() {
        "rbps=1000 wbps=2097152 riops=1002 wiops=1003"
    } else {
        "2097152"
    };
    ensure!(saw == want, "{saw}");
    // 0 is none.
    let mut line = vec!["update".to_owned()];
    line.extend(KINDS.iter().map(|(flag, ..)| format!("{flag}={device}:0")));
    line.push("io".to_owned());
    context.ok(&line)?;
    for (_, file, _) in KINDS {
        let saw = device_line(&v1_file(file), &numbers)?;
        ensure!(saw.is_empty(), "{file}: {saw}");
    }
    // Without a scheduler that weighs this device's requests the kernel has no place for it.
    let file = if pure_v2() {
        format!("/sys/fs/cgroup/{cgroup}/io.weight")
    } else {
        format!("/sys/fs/cgroup/blkio/{cgroup}/blkio.bfq.weight_device")
    };
    let value = if pure_v2() { "1920" } else { "200" };
    let flag = format!("--blkio-weight-device={device}:200");
    let output = context.paddock(&["update", &flag, "io"])?;
    let want = format!(
        "paddock: io: its limits are as they were: write \"{numbers} {value}\" to {file}: \
         Operation not supported on transport endpoint"
    );
    ensure!(
        output.code == Some(1) && output.stderr.trim_end() == want,
        "{output:?}, not {want}"
    );
    Ok(())
}

fn huge_pages_are_in_their_file(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "huge",
        "--hugetlb-limit=2MB=64m",
        "host",
        "sleep",
        "300",
    ])?;
    let cgroup = cgroup_of(context, "huge")?;
    // On the hybrid host too this controller is v2's.
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = roots
        .into_iter()
        .find(|root| root.join("cgroup.controllers").exists())
        .context("no v2")?;
    let file = |name: &str| root.join(&cgroup).join(name);
    for name in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        ensure!(first_line(&file(name))? == "67108864", "{name}");
    }
    context.ok(&["update", "--hugetlb-limit=2MB=32m", "huge"])?;
    ensure!(first_line(&file("hugetlb.2MB.max"))? == "33554432");
    let output = context.paddock(&["update", "--hugetlb-limit=3MB=32m", "huge"])?;
    ensure!(
        output.code == Some(1)
            && output.stderr.starts_with(
                "paddock: huge: its limits are as they were: hugetlb 3MB: this kernel's sizes are "
            ),
        "{output:?}"
    );
    Ok(())
}

/// No machine here has what these count: the kernel's own refusal, of the right line in the right
/// file, is the witness.
fn rdma_and_misc(context: &Context) -> Result<()> {
    const NONE: &str = "nothing";
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "rare", "host", "sleep", "300"])?;
    let cgroup = cgroup_of(context, "rare")?;
    for (controller, value, line, errno) in [
        (
            "rdma",
            "hca_handle=2,hca_object=max",
            "hca_handle=2 hca_object=max",
            "No such device",
        ),
        ("misc", "4", "4", "Invalid argument"),
    ] {
        let flag = format!("--{controller}-limit={NONE}={value}");
        let output = context.paddock(&["update", &flag, "rare"])?;
        let why = if pure_v2() {
            format!("write \"{NONE} {line}\" to /sys/fs/cgroup/{cgroup}/{controller}.max: {errno}")
        } else {
            format!("no mounted cgroup hierarchy has the {controller} controller")
        };
        let want = format!("paddock: rare: its limits are as they were: {why}");
        ensure!(
            output.code == Some(1) && output.stderr.trim_end() == want,
            "{output:?}, not {want}"
        );
        // `run` takes the same.
        let output = context.paddock(&["run", "--rm", &flag, "host", "true"])?;
        let why = if pure_v2() { errno } else { why.as_str() };
        ensure!(
            output.code == Some(125) && output.stderr.trim_end().ends_with(why),
            "{output:?}, not {why}"
        );
    }
    Ok(())
}

fn any_v2_file_by_name(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (name, want) = ("cgroup.max.descendants", "7");
    context.ok(&[
        "run",
        "-d",
        "--name",
        "conf",
        "--cgroup-conf=cgroup.max.descendants=7",
        "host",
        "sleep",
        "300",
    ])?;
    let cgroup = cgroup_of(context, "conf")?;
    let root = if pure_v2() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    };
    let saw = first_line(&Path::new(root).join(&cgroup).join(name))?;
    ensure!(saw == want, "{name}: {saw}");
    if pure_v2() {
        context.ok(&["update", "--cgroup-conf=memory.high=64m", "conf"])?;
        let saw = first_line(&Path::new(root).join(&cgroup).join("memory.high"))?;
        ensure!(saw == "67108864", "memory.high: {saw}");
    } else {
        refused(
            context,
            "--cgroup-conf=memory.high=64m",
            "paddock: cgroup file memory.high: the memory controller is on cgroup v1 here, this is for v2",
        )?;
    }
    refused(
        context,
        "--cgroup-conf=rdma.nothing=1",
        if pure_v2() {
            "paddock: cgroup file rdma.nothing: this kernel's controller has no such file"
        } else {
            "paddock: cgroup file rdma.nothing: no mounted cgroup hierarchy has the rdma controller"
        },
    )
}

fn real_time_is_refused_in_words(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    if pure_v2() {
        for (flag, limit) in [("runtime=1000", "runtime"), ("period=500000", "period")] {
            refused(
                context,
                &format!("--cpu-rt-{flag}"),
                &format!(
                    "paddock: cpu rt {limit}: the cpu controller (cgroup v2) has no such limit, cgroup v1 has"
                ),
            )?;
        }
        return Ok(());
    }
    context.ok(&[
        "run",
        "-d",
        "--name",
        "rt",
        "--cpu-rt-period=500000",
        "host",
        "sleep",
        "300",
    ])?;
    let cgroup = cgroup_of(context, "rt")?;
    let period = cgroup_file(&cgroup, "", ("cpu", "cpu.rt_period_us"));
    ensure!(first_line(&period)? == "500000");
    // The kernel gives none that the parent has not.
    let parent = period.parent().and_then(Path::parent).context("a parent")?;
    let budget = parent.join("cpu.rt_runtime_us");
    refused(
        context,
        "--cpu-rt-runtime=1000",
        &format!(
            "paddock: cpu rt runtime 1000: the cpu controller has no real-time budget to give: {} is 0, raise it there and above",
            budget.display()
        ),
    )?;
    for dir in parent
        .ancestors()
        .take(2)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        fs::write(dir.join("cpu.rt_runtime_us"), "2000")?;
    }
    context.ok(&["update", "--cpu-rt-runtime=1000", "rt"])?;
    let runtime = cgroup_file(&cgroup, "", ("cpu", "cpu.rt_runtime_us"));
    ensure!(first_line(&runtime)? == "1000");
    Ok(())
}
