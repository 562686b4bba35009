//! Containers that do what dashboards and alerts are for, over and over: kills, escapes, attempts,
//! denials and what would be, restarts, packets.

use std::fs;

use anyhow::Result;

use crate::{
    context::Context,
    scenarios::kernel::{able, host_way},
};

const POLICY: &str = "[[rule]]\nname = \"joining\"\nnamespace = { target = [\"host\"] }\n";
/// Each with a policy of its name.
const BOUND: [(&str, &str); 2] = [("walled", "enforce"), ("audited", "audit")];
const NAMES: [&str; 7] = [
    "busy", "talker", "tunneler", "reacher", "walled", "audited", "restless",
];

pub fn begin(context: &Context) -> Result<()> {
    for (name, mode) in BOUND {
        let text =
            format!("name = \"{name}\"\nmode = \"{mode}\"\n[select]\nname = \"{name}\"\n{POLICY}");
        let path = context.state.with_extension(format!("{name}.toml"));
        fs::write(&path, text)?;
        let applied = context.ok(&["policy", "apply", &path.display().to_string()]);
        fs::remove_file(&path)?;
        applied?;
    }
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let join = "while :; do /run/workload setns-loop /run/ns uts 1; sleep 0.3; done";
    for name in ["tunneler", "reacher", "walled", "audited"] {
        let mut args = able(name, &[&volume, &way]);
        if name == "reacher" {
            args.retain(|word| !["--cap-add", "SYS_ADMIN"].contains(word));
        }
        args.insert(1, "-d");
        args.extend(["sh", "-c", join]);
        context.ok(&args)?;
    }
    let talk = "while :; do /run/workload packets 1000 100; sleep 0.3; done";
    context.ok(&[
        "run", "-d", "--name", "talker", "-v", &volume, "host", "sh", "-c", talk,
    ])?;
    let work = "while :; do tail /dev/zero; for each in 1 2 3; do (timeout 1 sh -c 'while :; do :; done') & done; wait; done";
    context.ok(&[
        "run",
        "-d",
        "--name",
        "busy",
        "--memory",
        "64m",
        "--cpus",
        "0.4",
        "--pids-limit",
        "40",
        "host",
        "sh",
        "-c",
        work,
    ])?;
    context
        .ok(&[
            "run",
            "-d",
            "--name",
            "restless",
            "--restart",
            "always",
            "host",
            "sh",
            "-c",
            "exit 1",
        ])
        .map(drop)
}

pub fn end(context: &Context) -> Result<()> {
    for name in NAMES {
        context.ok(&["rm", "-f", name])?;
    }
    BOUND
        .iter()
        .try_for_each(|(name, _)| context.ok(&["policy", "rm", name]).map(drop))
}
