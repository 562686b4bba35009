//! Parameters of the kernel that were opened before a policy came. The witness is the host's own
//! value.

use std::fs;

use anyhow::{Result, ensure};

use super::{Files, Flags};
use crate::{
    context::{Context, eventually},
    runner::Scenario,
    scenarios::kernel::equal,
};

pub const ALL: &[Scenario] = &[Scenario::new(
    "policy::sysctl_is_refused_when_it_is_written",
    refused,
)];

/// A parameter that means nothing as long as `vm.overcommit_memory` is not 2.
const RATIO: &str = "/proc/sys/vm/overcommit_ratio";

/// Set back, whatever becomes of the test.
struct Parameter(String);

impl Drop for Parameter {
    fn drop(&mut self) {
        drop(fs::write(RATIO, &self.0));
    }
}

/// What is the container's own goes on being written, and so is everything under audit.
fn refused(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let before = Parameter(fs::read_to_string(RATIO)?);
    let other: u32 = before.0.trim().parse::<u32>()? + 1;
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let file = files.write(
        "walls.toml",
        "name = \"walls\"\ndeny = [\"kernel-tunables\", \"core-pattern\"]\n",
    )?;
    for (name, mode, want) in [
        ("held", "enforce", "open\nEPERM\nEPERM\nwritten\nwritten\n"),
        (
            "watched",
            "audit",
            "open\nwritten\nwritten\nwritten\nwritten\n",
        ),
    ] {
        let flags = Flags::new(context)?;
        let volumes = [context.workload_volume(), flags.volume()];
        context.ok(&[
            "run",
            "-d",
            "--privileged",
            "--userns",
            "host",
            "--name",
            name,
            "-v",
            &volumes[0],
            "-v",
            &volumes[1],
            "host",
            "/run/workload",
            "hold",
            "/flags/end",
            &format!("{RATIO}={other}"),
            &format!("/proc/sys/kernel/core_pattern={}", pattern.trim()),
            "/proc/sys/net/ipv4/ip_default_ttl=63",
            "/proc/sys/kernel/hostname=held",
        ])?;
        eventually("it holds them open", || {
            Ok(context.ok(&["logs", name])? == "open\n")
        })?;
        context.ok(&["policy", "apply", "--mode", mode, &file])?;
        fs::write(flags.end(), "")?;
        eventually("it has ended", || {
            Ok(context.inspect(name)?["state"] == "exited")
        })?;
        let log = context.ok(&["logs", name])?;
        ensure!(log == want, "{log:?} instead of {want:?}");
        let value: u32 = fs::read_to_string(RATIO)?.trim().parse()?;
        ensure!((value == other) == (mode == "audit"), "{mode}: {value}");
        for rule in ["kernel-tunables", "core-pattern"] {
            let labels = [("container", name), ("policy", "walls"), ("rule", rule)];
            let denied = super::hits(context, &labels)?;
            equal(rule, denied, u32::from(mode == "enforce"))?;
        }
        context.ok(&["policy", "rm", "walls"])?;
    }
    Ok(())
}
