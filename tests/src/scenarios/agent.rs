//! What the agent says of this host and serves to Prometheus; the demo; found containers.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    context::{Context, eventually, finish, pure_v2},
    metrics::Metrics,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("agent::check_is_right_here", check_is_right_here).alone(),
    Scenario::new("agent::check_tables_fit", check_tables_fit).alone(),
    Scenario::new("agent::exposition_is_clean", exposition_is_clean).alone(),
    Scenario::new(
        "agent::counters_outlive_gauges_do_not",
        counters_outlive_gauges_do_not,
    )
    .alone(),
    Scenario::new("agent::health_and_readiness", health_and_readiness).alone(),
    Scenario::new("agent::without_an_agent", without_an_agent).alone(),
    Scenario::new("agent::demo_twice_at_once", demo_twice_at_once).alone(),
];

/// The same command says different things in the two worlds, and each is true.
fn check_is_right_here(context: &Context) -> Result<()> {
    let alone = context.json(&["check", "--format", "json"])?;
    context.start_agent(&["--detach-on-exit"])?;
    let with_agent = context.json(&["check", "--format", "json"])?;
    for report in [&alone, &with_agent] {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        ensure!(
            report["kernel"] == kernel.trim(),
            "kernel: {}",
            report["kernel"]
        );
        let layout = if pure_v2() { "v2" } else { "hybrid" };
        ensure!(
            report["cgroup_layout"] == layout,
            "layout: {}",
            report["cgroup_layout"]
        );
        for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let link = fs::read_link(format!("/proc/self/ns/{namespace}"))?;
            let inode = &report["namespaces"][namespace];
            ensure!(
                link.display().to_string() == format!("{namespace}:[{inode}]"),
                "{namespace}: {inode}"
            );
        }
    }
    ensure!(
        alone["agent"].is_null() && with_agent["agent"]["pid"].is_i64(),
        "{with_agent}"
    );
    Ok(())
}

fn check_tables_fit(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "a-rather-long-name-for-a-container",
        "host",
        "sleep",
        "60",
    ])?;
    for columns in ["80", "200"] {
        for args in [&["ps", "-a"][..], &["check"][..]] {
            let output = finish(
                context
                    .command(args)
                    .env("COLUMNS", columns)
                    .stdin(Stdio::null()),
            )?;
            let widest = output
                .stdout
                .lines()
                .map(|line| line.chars().count())
                .max()
                .unwrap_or(0);
            ensure!(
                output.code == Some(0) && widest <= columns.parse()?,
                "{args:?} at {columns}: {widest}\n{}",
                output.stdout
            );
        }
    }
    Ok(())
}

/// By promtool where it is; everywhere: each family has HELP and TYPE before its one block.
fn exposition_is_clean(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run", "-d", "--name", "live", "--memory", "64m", "host", "sleep", "60",
    ])?;
    context.ok(&["run", "--name", "dead", "host", "true"])?;
    let metrics = context.metrics()?;
    let (mut families, mut current) = (BTreeSet::new(), String::new());
    for line in metrics.0.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap_or_default();
            ensure!(families.insert(name.to_owned()), "{name} comes twice");
            name.clone_into(&mut current);
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            ensure!(name.starts_with(&current), "{name} is not below its TYPE");
        }
    }
    // Zero at birth: an alert must see the first kill.
    for name in [
        "paddock_container_oom_kills_total",
        "paddock_container_escapes_total",
    ] {
        let zero = metrics.value(name, &[("container", "live")]);
        ensure!(
            zero.is_some_and(|value| value.abs() < 0.5),
            "{name}: {zero:?}"
        );
    }
    let limit = metrics.value(
        "paddock_container_spec_memory_limit_bytes",
        &[("container", "live")],
    );
    ensure!(limit == Some(67_108_864.0), "memory limit: {limit:?}");
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        // Guests carry no Prometheus; the host always does.
        Err(error) => {
            let missing = error.raw_os_error() == Some(nix::libc::ENOENT);
            ensure!(
                missing && pure_v2(),
                "promtool: {error}: use `cargo xtask test`"
            );
            return Ok(());
        }
    };
    child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(metrics.0.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success() && said.is_empty(),
        "promtool: {}",
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

fn counters_outlive_gauges_do_not(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let output = context.paddock(&[
        "run",
        "--rm",
        "--name",
        "brief",
        "--memory",
        "64m",
        "host",
        "tail",
        "/dev/zero",
    ])?;
    ensure!(output.code == Some(137), "{output:?}");
    ensure!(
        output.stderr.contains("memory"),
        "not told on stderr: {}",
        output.stderr
    );
    eventually("removed", || {
        Ok(!context.ok(&["ps", "-a"])?.contains("brief"))
    })?;
    let metrics = context.metrics()?;
    let labels = [("container", "brief")];
    let kills = metrics.sum("paddock_container_oom_kills_total", &labels);
    ensure!((kills - 1.0).abs() < 0.5, "kills: {kills}");
    let gauge = metrics.value("paddock_container_memory_usage_bytes", &labels);
    ensure!(gauge.is_none(), "a gauge of a dead container: {gauge:?}");
    Ok(())
}

fn health_and_readiness(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let address = context.address()?;
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        let answer = Metrics::get(&address, path)?;
        ensure!(
            answer.starts_with("HTTP/1.1 200"),
            "{path}: {}",
            answer.lines().next().unwrap_or_default()
        );
    }
    ensure!(Metrics::get(&address, "/nothing")?.starts_with("HTTP/1.1 404"));
    Ok(())
}

/// One command on a bare host: an agent comes and goes by itself.
fn without_an_agent(context: &Context) -> Result<()> {
    let output = context.paddock(&[
        "run",
        "--rm",
        "--memory",
        "64m",
        "host",
        "sh",
        "-c",
        "echo hello; exit 3",
    ])?;
    ensure!(
        output.code == Some(3) && output.stdout == "hello\n" && output.stderr.is_empty(),
        "{output:?}"
    );
    context.ok(&["run", "-d", "--name", "alone", "host", "sleep", "1"])?;
    ensure!(context.ok(&["wait", "alone"])?.trim() == "0");
    eventually("the ephemeral agent ends", || {
        Ok(!context.state.join("paddock.sock").exists())
    })
}

/// What `cargo xtask run --once` plays, two at the same time.
fn demo_twice_at_once(context: &Context) -> Result<()> {
    let demo = context.bin.with_file_name("paddock-demo");
    let start = || {
        Command::new(&demo)
            .arg("--once")
            .env("PADDOCK_BIN", &context.bin)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", demo.display()))
    };
    let (one, two) = (start()?, start()?);
    for output in [one.wait_with_output()?, two.wait_with_output()?] {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
