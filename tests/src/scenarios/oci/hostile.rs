//! Ids, configs, descriptors and callers that mean no good, or are killed halfway.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    process::{Command, Stdio},
    thread::sleep,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Bundle, config};
use crate::{
    context::{Context, Output, cgroup_mounts, finish},
    process::program_is_out_of_reach,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "oci::preserved_descriptors_and_no_others",
        preserved_descriptors_and_no_others,
    ),
    Scenario::new("oci::executable_is_sealed", executable_is_sealed),
    Scenario::new("oci::hostile_ids", hostile_ids),
    Scenario::new("oci::hostile_configs", hostile_configs),
    Scenario::new("oci::hostile_values", hostile_values),
    Scenario::new("oci::hostile_rootfs", hostile_rootfs),
    Scenario::new("oci::refusals_are_one_line", refusals_are_one_line),
    Scenario::new("oci::killed_create_is_cleaned", killed_create_is_cleaned),
];

fn preserved_descriptors_and_no_others(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &config(&["ls", "-l", "/proc/self/fd"]))?;
    // A directory of the host's and a file, open in whoever calls.
    let call = |args: &str| -> Result<Output> {
        let script = format!(
            "exec 3</etc/hostname 4</etc/passwd 5</; exec \"$0\" oci --root {} {args}",
            bundle.states().display()
        );
        finish(
            Command::new("sh")
                .args(["-c", &script])
                .arg(&context.bin)
                .current_dir(&bundle.path)
                .stdin(Stdio::null()),
        )
    };
    let output = call("run leaky")?;
    let kept = |output: &Output, number: u32| output.stdout.contains(&format!(" {number} -> "));
    ensure!(output.code == Some(0), "{output:?}");
    // ls has the directory itself open.
    ensure!(
        !kept(&output, 4) && !kept(&output, 5) && !output.stdout.contains("hostname"),
        "{output:?}"
    );
    let output = call("run --preserve-fds 1 kept")?;
    ensure!(
        output.code == Some(0) && output.stdout.contains("3 -> /etc/hostname"),
        "{output:?}"
    );
    ensure!(!output.stdout.contains("/etc/passwd"), "{output:?}");
    let output = call("run --preserve-fds 9 kept")?;
    ensure!(
        output.code == Some(1) && output.stderr.contains("descriptor 6 is not open"),
        "{output:?}"
    );
    bundle.write(&config(&["sleep", "100"]))?;
    bundle.start("held")?;
    let output = call("exec held ls -l /proc/self/fd")?;
    ensure!(
        output.code == Some(0) && !output.stdout.contains("hostname") && !kept(&output, 5),
        "{output:?}"
    );
    bundle.ok(&["delete", "--force", "held"])?;
    // systemd's sockets.
    bundle.write(&config(&[
        "sh",
        "-c",
        "echo $LISTEN_FDS $LISTEN_PID; cat <&3",
    ]))?;
    let listening = |open: &str| {
        let script = format!(
            "exec 3{open}; LISTEN_FDS=1 exec \"$0\" oci --root {} run listening",
            bundle.states().display()
        );
        finish(
            Command::new("sh")
                .args(["-c", &script])
                .arg(&context.bin)
                .current_dir(&bundle.path)
                .stdin(Stdio::null()),
        )
    };
    let output = listening("</etc/hostname")?;
    let name = fs::read_to_string("/etc/hostname")?;
    ensure!(output.stdout == format!("1 1\n{name}"), "{output:?}");
    let output = listening("<&-")?;
    ensure!(
        output.code == Some(1) && output.stderr.contains("descriptor 3 is not open"),
        "{output:?}"
    );
    bundle.empty()
}

/// CVE-2019-5736: whatever a container reaches through /proc/PID/exe, nobody can write to it.
fn executable_is_sealed(context: &Context) -> Result<()> {
    let before = fs::read(&context.bin)?;
    let bundle = Bundle::new(context, &config(&["sleep", "100"]))?;
    bundle.create("sealed")?;
    let exe = format!("/proc/{}/exe", bundle.pid("sealed")?);
    program_is_out_of_reach(&bundle.pid("sealed")?.to_string())?;
    ensure!(fs::read(&exe)? == before, "another program");
    bundle.ok(&["delete", "sealed"])?;
    // A program that is the runtime's own executable finds a copy, too.
    let mut wanted = config(&["/proc/self/exe", "oci", "--version"]);
    wanted["process"]["noNewPrivileges"] = json!(false);
    bundle.write(&wanted)?;
    let output = bundle.oci(&["run", "itself"])?;
    ensure!(output.code.is_some(), "{output:?}");
    ensure!(
        fs::read(&context.bin)? == before,
        "the executable was changed"
    );
    bundle.ok(&["delete", "--force", "itself"])?;
    bundle.empty()
}

fn hostile_ids(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &config(&["true"]))?;
    let long = "x".repeat(10_000);
    for id in [
        "..",
        ".",
        "../up",
        "a/b",
        "/etc",
        "a\nb",
        "\u{1b}[31m",
        "a b",
        "",
        "é",
        &long,
    ] {
        for verb in [
            "create", "run", "start", "state", "kill", "delete", "pause", "ps", "events",
        ] {
            bundle.refused(&[verb, id], &[])?;
        }
        bundle.refused(&["delete", "--force", id], &[])?;
        bundle.refused(&["exec", id, "true"], &[])?;
    }
    let marked = bundle.oci(&["state", "\u{1b}[31m"])?;
    ensure!(!marked.stderr.contains('\u{1b}'), "{marked:?}");
    Ok(())
}

fn hostile_configs(context: &Context) -> Result<()> {
    let good = config(&["true"]);
    let bundle = Bundle::new(context, &good)?;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let huge = format!(
        r#"{{"ociVersion":"1.0.0","hostname":"{}"}}"#,
        "x".repeat(20 << 20)
    );
    for (text, word) in [
        (String::new(), "config.json"),
        ("{".to_owned(), "config.json"),
        ("[]".to_owned(), "config.json"),
        (
            r#"{"ociVersion":"1.0.0","mounts":7}"#.to_owned(),
            "invalid type",
        ),
        (r#"{"ociVersion":"9.0.0"}"#.to_owned(), "ociVersion"),
        (
            format!(r#"{{"ociVersion":"1.0.0","mounts":{deep}}}"#),
            "config.json",
        ),
        (
            format!(r#"{{"ociVersion":"1.0.0","process":{{"args":{deep}}}}}"#),
            "config.json",
        ),
        (huge, "larger than"),
    ] {
        fs::write(bundle.path.join("config.json"), text)?;
        bundle.refused(&["create", "bad"], &[word])?;
    }
    // A sparse gigabyte is not read.
    File::create(bundle.path.join("config.json"))?.set_len(1 << 30)?;
    bundle.refused(&["create", "bad"], &["larger than"])?;
    Ok(())
}

/// One value of a good config changed for a bad one.
fn hostile_values(context: &Context) -> Result<()> {
    let good = config(&["true"]);
    let bundle = Bundle::new(context, &good)?;
    let changes: &[(&str, Value, &str)] = &[
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!([7]), "invalid type"),
        ("/process/args", json!(["a\u{0}b"]), "exec"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/env", json!(["nothing"]), "process.env"),
        ("/process/user", json!({"uid": -1, "gid": 0}), "config.json"),
        (
            "/process/user",
            json!({"uid": 4_294_967_296_u64, "gid": 0}),
            "config.json",
        ),
        (
            "/process/capabilities/bounding",
            json!(["CAP_NOPE"]),
            "config.json",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]),
            "rlimits",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
            "config.json",
        ),
        ("/root/path", json!("../../../../etc/passwd"), "root"),
        ("/root/path", json!("nowhere"), "nowhere"),
        ("/mounts/0/destination", json!("proc"), "absolute"),
        ("/mounts/0/destination", json!("/../../proc"), "mount"),
        ("/mounts/0/type", json!("ext4"), "not supported"),
        ("/linux/namespaces/4", json!({"type": "pid"}), "twice"),
        (
            "/linux/namespaces/4",
            json!({"type": "time"}),
            "mount namespace",
        ),
        (
            "/linux/namespaces/4",
            json!({"type": "novel"}),
            "config.json",
        ),
        ("/linux/maskedPaths", json!(["proc/kcore"]), "maskedPaths"),
    ];
    for (pointer, value, word) in changes {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer)
            .with_context(|| (*pointer).to_owned())? = value.clone();
        bundle.write(&bad)?;
        bundle.refused(&["create", "bad"], &[word])?;
    }
    // Where it asks for the host's own settings.
    for name in [
        "kernel.core_pattern",
        "vm.drop_caches",
        "../../core",
        "net/../kernel/x",
    ] {
        let mut bad = good.clone();
        bad["linux"]["sysctl"] = json!({name: "1"});
        bundle.write(&bad)?;
        bundle.refused(&["create", "bad"], &["sysctl"])?;
    }
    Ok(())
}

/// A rootfs whose /proc, /dev and /sys lead elsewhere.
fn hostile_rootfs(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &config(&["true"]))?;
    let root = bundle.path.join("rootfs");
    let outside = bundle.path.join("outside");
    fs::create_dir(&outside)?;
    for name in ["proc", "dev", "sys"] {
        fs::remove_dir_all(root.join(name))?;
        symlink(&outside, root.join(name))?;
        bundle.refused(&["run", "linked"], &[name])?;
        ensure!(
            fs::read_dir(&outside)?.next().is_none(),
            "{name}: written outside"
        );
        fs::remove_file(root.join(name))?;
        fs::create_dir(root.join(name))?;
    }
    Ok(())
}

fn refusals_are_one_line(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &config(&["true"]))?;
    for (args, words) in [
        (&["--systemd-cgroup", "run", "x"][..], "--systemd-cgroup"),
        (&["run", "--no-pivot", "x"], "--no-pivot"),
        (&["nonsense"], "nonsense"),
        (&["kill", "x", "NOPE"], "NOPE"),
        (&["run", "--bundle", "/nope", "x"], "/nope"),
        (
            &["run", "--console-socket", "/nope", "x"],
            "--console-socket",
        ),
        (&["delete"], "ID"),
    ] {
        bundle.refused(args, &[words])?;
    }
    let mut wanted = config(&["true"]);
    wanted["linux"]["personality"] = json!({"domain": "LINUX32"});
    bundle.write(&wanted)?;
    bundle.refused(&["run", "x"], &["linux.personality is not supported"])?;
    // podman and containerd read failures from here.
    let log = bundle.path.join("log.json");
    let output = finish(
        bundle
            .command(&["--log-format", "json", "--log"])
            .arg(&log)
            .args(["run", "x"]),
    )?;
    ensure!(output.code == Some(1), "{output:?}");
    let line: Value = serde_json::from_str(bundle.read("log.json")?.trim())?;
    ensure!(
        line["level"] == "error"
            && line["msg"]
                .as_str()
                .is_some_and(|text| text.contains("personality"))
            && line["time"].is_string(),
        "{line}"
    );
    // By its own name it is nothing else.
    let own_name = bundle.path.join("paddock-oci");
    symlink(&context.bin, &own_name)?;
    let output = finish(Command::new(&own_name).arg("--version"))?;
    ensure!(
        output.stdout.starts_with("paddock-oci ") && output.stdout.contains("spec: "),
        "{output:?}"
    );
    Ok(())
}

/// Wherever `create` is killed, `delete --force` takes everything away.
fn killed_create_is_cleaned(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &config(&["sleep", "100"]))?;
    let start = Instant::now();
    bundle.create("cut")?;
    let whole = start.elapsed();
    bundle.ok(&["delete", "cut"])?;
    let mut seen = Vec::new();
    for part in 0..24 {
        let mut child = bundle
            .command(&["create", "cut"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        sleep(whole * part / 20);
        child.kill()?;
        child.wait()?;
        let state = bundle.oci(&["state", "cut"])?;
        seen.push(state.code == Some(0));
        bundle.ok(&["delete", "--force", "cut"])?;
        bundle.empty()?;
        for (_, mount) in cgroup_mounts()? {
            ensure!(!mount.join("paddock-oci/cut").exists(), "a cgroup is left");
        }
    }
    ensure!(seen.contains(&true), "it was never as far as a state");
    // And the name is free again.
    bundle.create("cut")?;
    bundle.ok(&["delete", "cut"])?;
    bundle.empty()
}
