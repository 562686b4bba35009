//! Hooks: where they run, what they see, and what their failure takes back.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Bundle, config};
use crate::{context::Context, runner::Scenario};

pub const ALL: &[Scenario] = &[
    Scenario::new("oci::hooks_in_their_places", hooks_in_their_places),
    Scenario::new("oci::failing_hooks", failing_hooks),
];

/// Each hook appends its kind, its status and what it sees of the container to a file.
fn hooks_in_their_places(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &config(&["sh", "-c", "exit 3"]))?;
    let trace = bundle.path.join("trace");
    let hook = |kind: &str, look: &str| {
        let script = format!(
            "read -r state; echo \"{kind} $(echo $state | grep -o '\"status\":\"[a-z]*\"') $(cat /proc/sys/kernel/hostname) $({look})\" >>{}",
            trace.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    let mut wanted = config(&["sh", "-c", "exit 3"]);
    // The startContainer hook and the program see the trace by the same path.
    wanted["mounts"]
        .as_array_mut()
        .context("mounts")?
        .push(json!({
            "destination": bundle.path, "type": "bind", "source": bundle.path,
            "options": ["rbind", "rw"],
        }));
    wanted["root"]["readonly"] = json!(false);
    let inside = hook("startContainer", "readlink /proc/1/exe || echo hidden");
    wanted["hooks"] = json!({
        "prestart": hook("prestart", "ls rootfs/proc | wc -l"),
        "createRuntime": hook("createRuntime", "pwd"),
        "createContainer": hook("createContainer", "ls -d rootfs/proc/self/ns"),
        "startContainer": inside,
        "poststart": hook("poststart", "pwd"),
        "poststop": hook("poststop", "pwd"),
    });
    symlink("busybox", bundle.path.join("rootfs/bin/grep"))?;
    bundle.write(&wanted)?;
    let output = bundle.oci(&["run", "hooked"])?;
    ensure!(output.code == Some(3), "{output:?}");
    let text = bundle.read("trace")?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let (host, at) = (host.trim(), bundle.path.display());
    let status = |word: &str| format!("\"status\":\"{word}\"");
    let expected = [
        format!("prestart {} {host} 0", status("creating")),
        format!("createRuntime {} {host} {at}", status("creating")),
        // The container's names are set before its root is left.
        format!(
            "createContainer {} {host} rootfs/proc/self/ns",
            status("creating")
        ),
        format!("startContainer {} bundled hidden", status("created")),
        format!("poststart {} {host} {at}", status("running")),
        format!("poststop {} {host} {at}", status("stopped")),
    ];
    let seen: Vec<_> = text.lines().collect();
    ensure!(seen == expected, "{text}");
    bundle.empty()
}

/// One that fails, or takes too long, takes everything back.
fn failing_hooks(context: &Context) -> Result<()> {
    let mut wanted = config(&["sh", "-c", "exit 3"]);
    let bundle = Bundle::new(context, &wanted)?;
    for (kind, hook, word) in [
        (
            "createRuntime",
            json!({"path": "/bin/false"}),
            "failed with exit code 1",
        ),
        (
            "createContainer",
            json!({"path": "/bin/false"}),
            "createContainer hook",
        ),
        (
            "startContainer",
            json!({"path": "/bin/false"}),
            "startContainer hook",
        ),
        ("poststart", json!({"path": "/bin/false"}), "poststart hook"),
        ("prestart", json!({"path": "/nope"}), "cannot be executed"),
        (
            "createRuntime",
            json!({"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}),
            "longer than 1 s",
        ),
        (
            "createContainer",
            json!({"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}),
            "createContainer hook",
        ),
        ("createRuntime", json!({"path": "sh"}), "absolute"),
        (
            "createRuntime",
            json!({"path": "/bin/sh", "timeout": 0}),
            "timeout",
        ),
    ] {
        wanted["hooks"] = json!({kind: [hook]});
        bundle.write(&wanted)?;
        bundle.refused(&["run", "hooked"], &[word])?;
    }
    // A poststop hook only warns.
    wanted["hooks"] = json!({"poststop": [{"path": "/bin/false"}]});
    bundle.write(&wanted)?;
    let output = bundle.oci(&["run", "hooked"])?;
    ensure!(
        output.code == Some(3) && output.stderr.contains("warning: poststop hook failed"),
        "{output:?}"
    );
    bundle.empty()
}
