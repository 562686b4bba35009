//! Families of what the kernel half counts for each container.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    cgroup,
    exposition::Exposition,
    family::{Family, Labels, float},
};
use crate::{
    api::{Origin, State},
    container::Container,
    counters::{Counters, OOM_KINDS},
    oom::{constraint_name, level_name},
    policies::Hit,
    readers,
    registry::Exported,
    shared::Shared,
    telling::{action_name, syscall_name},
};
use paddock_cgroups::Stats;
use paddock_probe::{Activity, EscapeKind, NsSyscall, NsType, Outcome, SlotCounters, Verdict, Way};

const INFO: Family = Family::gauge(
    "paddock_container_info",
    "What a container is, always 1; join on container. There as long as its counters are.",
)
.by(&[
    "container_id",
    "image",
    "cgroup_path",
    "origin",
    "parent",
    "pod",
    "namespace",
]);
const OOM_KILLS: Family = Family::counter(
    "paddock_container_oom_kills_total",
    "Processes of the container that the OOM killer took, by what was short, and where the limit stands: own, nested (below the container's cgroup), ancestor, host.",
).by(&["constraint", "level"]);
const OOM_MISMATCH: Family = Family::gauge(
    "paddock_container_oom_mismatch",
    "OOM kills by which the kernel half's count and the cgroup's own differ: 0 unless one of them missed some.",
);
const NAMESPACE_CALLS: Family = Family::counter(
    "paddock_container_namespace_calls_total",
    "Namespace types touched by setns, unshare and clone (clone3 too; its failures are not seen). A series begins with its first one.",
).by(&["syscall", "namespace", "outcome"]);
const ESCAPES: Family = Family::counter(
    "paddock_container_escapes_total",
    "What is the host's or another's and a process of the container got hold of (allowed) or reached for in vain (failed; such a series begins with its first one).",
).by(&["kind", "outcome"]);
const ACTIVITIES: Family = Family::counter(
    "paddock_container_activities_total",
    "Activities that concern the container's walls, by verdict; a series begins with its first one. docs/verdicts.md names them.",
).by(&["activity", "verdict"]);
const RECORDS: Family = Family::counter(
    "paddock_container_records_total",
    "Records about the container on both rings: seen = submitted + lost_ring_full + lost_pressure + lost_rate_limited. A series begins with its first one.",
).by(&["stage"]);

const POLICY_HITS: Family = Family::counter(
    "paddock_container_policy_hits_total",
    "Acts that a policy's rule forbids, by what came of them: deny (refused), kill (whoever tried was killed), audit (let through, would have been denied). A series begins with its first one.",
).by(&["policy", "rule", "action"]);
const RECEIVED_BYTES: Family = Family::counter(
    "paddock_container_network_receive_bytes_total",
    "Bytes that the container's sockets took, with IP's headers, on any interface, loopback too. A series begins with its first one.",
);
const RECEIVED_PACKETS: Family = Family::counter(
    "paddock_container_network_receive_packets_total",
    "Packets of IP that the container's sockets took; those that the kernel joined count as one. A series begins with its first one.",
);
const SENT_BYTES: Family = Family::counter(
    "paddock_container_network_transmit_bytes_total",
    "Bytes that the container's sockets sent, with IP's headers, on any interface, loopback too. A series begins with its first one.",
);
const SENT_PACKETS: Family = Family::counter(
    "paddock_container_network_transmit_packets_total",
    "Packets of IP that the container's sockets sent; what a device is left to cut counts as the pieces. A series begins with its first one.",
);
const STARTED: Family = Family::gauge(
    "paddock_container_start_time_seconds",
    "When the container's present run began, in seconds since the epoch.",
);
const RESTARTS: Family = Family::counter(
    "paddock_container_restarts_total",
    "Runs of the container after its first one, begun by its restart policy.",
);
const LIMITS_RESTORED: Family = Family::counter(
    "paddock_container_limits_restored_total",
    "Files of the container's limits that somebody else had changed and paddock wrote again. A series begins with its first one.",
);

#[cfg(test)]
pub(super) const FAMILIES: [Family; 15] = [
    INFO,
    OOM_KILLS,
    OOM_MISMATCH,
    NAMESPACE_CALLS,
    ESCAPES,
    ACTIVITIES,
    RECORDS,
    POLICY_HITS,
    RECEIVED_BYTES,
    RECEIVED_PACKETS,
    SENT_BYTES,
    SENT_PACKETS,
    STARTED,
    RESTARTS,
    LIMITS_RESTORED,
];

/// Series of those beyond the cap.
const OTHER: &str = "_other";

/// One `container` label's worth.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) name: String,
    pub(super) counters: Counters,
    /// While it lives.
    pub(super) gauges: Option<Stats>,
}

pub(super) fn expose(shared: &Shared, exported: &Exported, page: &mut Exposition) {
    let mut readings = readers::of_each(&exported.containers, |one| read(shared, one));
    // All labelled ones are there from the first on, so the sum appears once and stays.
    let mut other = exported.other.clone();
    for reading in readers::of_each(&exported.folded, |one| read(shared, one)) {
        other.add(&reading.counters);
    }
    if !exported.folded.is_empty() || other != Counters::default() {
        readings.push(Reading {
            name: OTHER.to_owned(),
            counters: other,
            gauges: None,
        });
    }
    page.add(&INFO.with(exported.containers.iter().map(|one| (info(one), 1.0))));
    // Zeros that nobody counts would say that nothing happened.
    if shared.kernel.unavailable().is_none() {
        expose_kernel(&readings, page);
        page.add(&POLICY_HITS.with(policy_hits(shared, exported)));
    }
    if shared.kernel.serves("traffic") {
        expose_traffic(&readings, page);
    }
    page.add(&STARTED.with(exported.containers.iter().filter_map(started)));
    page.add(&RESTARTS.with(exported.containers.iter().filter_map(restarts)));
    page.add(&LIMITS_RESTORED.with(readings.iter().filter_map(|one| {
        let labels = vec![("container", one.name.clone())];
        let count = one.counters.limits_restored;
        (count > 0).then(|| (labels, float(count)))
    })));
    cgroup::expose(&readings, page);
}

fn read(shared: &Shared, container: &Arc<Container>) -> Reading {
    let (counters, gauges) = container.read(&shared.kernel, &shared.hierarchies);
    Reading {
        name: container.name.clone(),
        counters,
        gauges,
    }
}

/// Of one container, by its name.
type Series = fn(&str, &SlotCounters) -> Vec<(Labels, f64)>;

pub(super) fn expose_kernel(readings: &[Reading], page: &mut Exposition) {
    page.add(&OOM_MISMATCH.with(readings.iter().filter_map(|one| {
        let labels = vec![("container", one.name.clone())];
        Some((labels, float(one.counters.oom_mismatch?)))
    })));
    let families: [(Family, Series); 5] = [
        (OOM_KILLS, oom_kills),
        (NAMESPACE_CALLS, namespace_calls),
        (ESCAPES, escapes),
        (ACTIVITIES, activities),
        (RECORDS, records),
    ];
    for (family, series) in families {
        let of = |one: &Reading| series(&one.name, &one.counters.kernel);
        page.add(&family.with(readings.iter().flat_map(of)));
    }
}

pub(super) fn expose_traffic(readings: &[Reading], page: &mut Exposition) {
    for (family, way, what) in [
        (RECEIVED_PACKETS, Way::Received, 0),
        (RECEIVED_BYTES, Way::Received, 1),
        (SENT_PACKETS, Way::Sent, 0),
        (SENT_BYTES, Way::Sent, 1),
    ] {
        let series = readings.iter().map(|one| {
            let labels = vec![("container", one.name.clone())];
            (labels, one.counters.kernel.traffic(way)[what])
        });
        let begun = series.filter(|(_, count)| *count > 0);
        page.add(&family.with(begun.map(|(labels, count)| (labels, float(count)))));
    }
}

fn info(container: &Container) -> Labels {
    let origin = match container.origin {
        Origin::Launched => "launched",
        Origin::Found => "found",
    };
    let pod = container.pod();
    vec![
        ("container", container.name.clone()),
        ("container_id", container.id.clone()),
        ("image", container.image()),
        ("cgroup_path", format!("/{}", container.cgroup)),
        ("origin", origin.to_owned()),
        ("parent", container.parent.clone().unwrap_or_default()),
        ("pod", pod.pod.unwrap_or_default()),
        ("namespace", pod.pod_namespace.unwrap_or_default()),
    ]
}

/// While it runs.
fn started(container: &Arc<Container>) -> Option<(Labels, f64)> {
    let started = container.running_since_ns()?;
    let labels = vec![("container", container.name.clone())];
    Some((labels, float(started / 1_000_000) / 1e3))
}

/// A found one is started again by others, as another one.
fn restarts(container: &Arc<Container>) -> Option<(Labels, f64)> {
    if container.origin == Origin::Found {
        return None;
    }
    let labels = vec![("container", container.name.clone())];
    Some((labels, f64::from(container.restarts())))
}

fn oom_kills(name: &str, counters: &SlotCounters) -> Vec<(Labels, f64)> {
    OOM_KINDS
        .into_iter()
        .map(|(constraint, level)| {
            let labels = vec![
                ("container", name.to_owned()),
                ("constraint", constraint_name(constraint).to_owned()),
                ("level", level_name(level).to_owned()),
            ];
            (labels, float(counters.oom_kills(constraint, level)))
        })
        .collect()
}

fn namespace_calls(name: &str, counters: &SlotCounters) -> Vec<(Labels, f64)> {
    let mut series = Vec::new();
    for syscall in [NsSyscall::Setns, NsSyscall::Unshare, NsSyscall::Clone] {
        for ty in NsType::ALL {
            for (outcome, word) in outcomes(syscall) {
                let count = counters.ns_calls(syscall, ty, *outcome);
                if count == 0 {
                    continue;
                }
                let labels = vec![
                    ("container", name.to_owned()),
                    ("syscall", syscall_name(syscall).to_owned()),
                    ("namespace", ty.name().to_owned()),
                    ("outcome", (*word).to_owned()),
                ];
                series.push((labels, float(count)));
            }
        }
    }
    series
}

fn outcomes(syscall: NsSyscall) -> &'static [(Outcome, &'static str)] {
    const BOTH: [(Outcome, &str); 2] = [(Outcome::Allowed, "allowed"), (Outcome::Failed, "failed")];
    match syscall {
        NsSyscall::Clone => &BOTH[..1],
        NsSyscall::Setns | NsSyscall::Unshare => &BOTH,
    }
}

fn escapes(name: &str, counters: &SlotCounters) -> Vec<(Labels, f64)> {
    let mut series = Vec::new();
    for kind in EscapeKind::ALL {
        for (outcome, result) in [(Outcome::Allowed, "allowed"), (Outcome::Failed, "failed")] {
            let count = counters.escapes(kind, outcome);
            if outcome == Outcome::Failed && count == 0 {
                continue;
            }
            let labels = vec![
                ("container", name.to_owned()),
                ("kind", kind.name().to_owned()),
                ("outcome", result.to_owned()),
            ];
            series.push((labels, float(count)));
        }
    }
    series
}

fn activities(name: &str, counters: &SlotCounters) -> Vec<(Labels, f64)> {
    let mut series = Vec::new();
    for activity in Activity::ALL {
        for verdict in Verdict::ALL {
            let count = counters.activities(*activity, verdict);
            if count != 0 {
                let labels = vec![
                    ("container", name.to_owned()),
                    ("activity", activity.name().to_owned()),
                    ("verdict", verdict.name().to_owned()),
                ];
                series.push((labels, float(count)));
            }
        }
    }
    series
}

fn policy_hits(shared: &Shared, exported: &Exported) -> Vec<(Labels, f64)> {
    let folded: BTreeSet<&str> = exported.folded.iter().map(|one| &*one.name).collect();
    let labelled: BTreeSet<&str> = exported.containers.iter().map(|one| &*one.name).collect();
    let known = |name: &str| folded.contains(name) || labelled.contains(name);
    let mut sums: BTreeMap<(String, Hit), u64> = BTreeMap::new();
    for (name, rules) in shared.policies.hits(shared, known) {
        let label = if labelled.contains(&*name) {
            name
        } else {
            OTHER.to_owned()
        };
        for (hit, count) in rules {
            *sums.entry((label.clone(), hit)).or_default() += count;
        }
    }
    let series = |((container, hit), count): ((String, Hit), u64)| {
        let labels = vec![
            ("container", container),
            ("policy", hit.policy),
            ("rule", hit.rule),
            ("action", action_name(hit.action).to_owned()),
        ];
        (labels, float(count))
    };
    sums.into_iter().map(series).collect()
}

fn records(name: &str, counters: &SlotCounters) -> Vec<(Labels, f64)> {
    let sum = counters.records();
    [("seen", sum.seen)]
        .into_iter()
        .chain(sum.parts())
        .filter(|(_, count)| *count > 0)
        .map(|(stage, count)| {
            let labels = vec![("container", name.to_owned()), ("stage", stage.to_owned())];
            (labels, float(count))
        })
        .collect()
}

/// Containers by state.
pub(super) fn states(exported: &Exported) -> [(State, u64); 4] {
    let [created, running, restarting, exited] = exported.states;
    [
        (State::Created, created),
        (State::Running, running),
        (State::Restarting, restarting),
        (State::Exited, exited),
    ]
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
