//! The kernel half counts what happened, neither more nor less, and judges it rightly.
//!
//! Known prime counts of calls, and the same numbers from another witness.

use anyhow::{Result, ensure};

use crate::{context::Context, metrics::Metrics};

pub mod calls;
pub mod counts;
pub mod less;
pub mod maps;
pub mod swap;

pub(super) const CALLS: &str = "paddock_container_namespace_calls_total";
pub(super) const ESCAPES: &str = "paddock_container_escapes_total";
const ACTIVITIES: &str = "paddock_container_activities_total";
const OOM: &str = "paddock_container_oom_kills_total";

pub(super) fn calls(
    metrics: &Metrics,
    container: &str,
    syscall: &str,
    namespace: &str,
    outcome: &str,
) -> f64 {
    let labels = [
        ("container", container),
        ("syscall", syscall),
        ("namespace", namespace),
        ("outcome", outcome),
    ];
    metrics.sum(CALLS, &labels)
}

/// All of an activity, and those that got this verdict: both are `want`.
pub(super) fn judged(
    metrics: &Metrics,
    container: &str,
    activity: &str,
    verdict: &str,
    want: u32,
) -> Result<()> {
    let all = [("container", container), ("activity", activity)];
    let such = [all[0], all[1], ("verdict", verdict)];
    equal(activity, metrics.sum(ACTIVITIES, &all), want)?;
    equal(verdict, metrics.sum(ACTIVITIES, &such), want)
}

const CONTAINER_RECORDS: &str = "paddock_container_records_total";
const REASONS: [&str; 3] = ["lost_ring_full", "lost_pressure", "lost_rate_limited"];

/// Both rings: every record is submitted or lost for one of the reasons, and what was submitted
/// has been read.
pub(crate) fn closes(metrics: &Metrics) -> bool {
    ["critical", "events"].into_iter().all(|ring| {
        let stage =
            |stage: &str| metrics.sum("paddock_records_total", &[("ring", ring), ("stage", stage)]);
        let lost: f64 = REASONS.into_iter().map(stage).sum();
        let kernel = stage("seen") - stage("submitted") - lost;
        let user = stage("submitted") - stage("delivered");
        kernel.abs() < 0.5 && user.abs() < 0.5
    })
}

/// The same of one container's records.
fn container_closes(metrics: &Metrics, name: &str) -> bool {
    let stage = |stage| of_container(metrics, name, stage);
    let lost: f64 = REASONS.into_iter().map(stage).sum();
    (stage("seen") - stage("submitted") - lost).abs() < 0.5
}

fn of_container(metrics: &Metrics, name: &str, stage: &str) -> f64 {
    metrics.sum(CONTAINER_RECORDS, &[("container", name), ("stage", stage)])
}

/// A number that should be exactly this.
pub(crate) fn equal(what: &str, saw: f64, want: u32) -> Result<()> {
    ensure!(
        (saw - f64::from(want)).abs() < 0.5,
        "{what}: {saw} instead of {want}"
    );
    Ok(())
}

/// Flags of a container that may unshare and join: the host's user namespace, CAP_SYS_ADMIN.
pub(crate) fn able<'a>(name: &'a str, volumes: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "run",
        "--name",
        name,
        "--userns",
        "host",
        "--cap-add",
        "SYS_ADMIN",
    ];
    for volume in volumes {
        args.extend(["-v", volume]);
    }
    args.push("host");
    args
}

/// Whether a capability of the kernel half is served by that rung here.
pub(crate) fn served(context: &Context, capability: &str, rung: &str) -> Result<bool> {
    let labels = [("capability", capability), ("rung", rung)];
    Ok(context.metrics()?.value("paddock_probe_attached", &labels) == Some(1.0))
}

/// `-v` argument that gives a container a way to the host's namespace: this process is in it.
pub(crate) fn host_way(namespace: &str) -> String {
    format!("/proc/{}/ns/{namespace}:/run/ns", std::process::id())
}
