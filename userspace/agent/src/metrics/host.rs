//! Families of the host and of paddock itself.

use std::{fs, sync::Arc};

use paddock_probe::{Fill, Ring};
use prometheus::proto::MetricFamily;

use super::{
    container::states,
    family::{Family, Labels, float},
};
use crate::{
    api::State,
    registry::Exported,
    shared::Shared,
    shipping::Shipped,
    store::{Stats, Store},
};

const OOM_KILLS: Family = Family::counter(
    "paddock_oom_kills_total",
    "Processes the OOM killer took on the whole host since boot, by the kernel's own count.",
);
const CONTAINERS: Family = Family::gauge(
    "paddock_containers",
    "Containers known to the agent, by state.",
)
.by(&["state"]);
const FOLDED: Family = Family::gauge(
    "paddock_containers_folded",
    "Living containers beyond the cap on labels, whose series are summed as container=\"_other\".",
);
const RECORDS: Family = Family::counter(
    "paddock_records_total",
    "The kernel half's records by ring: seen = submitted + lost_ring_full + lost_pressure + lost_rate_limited; submitted = delivered + what is under way.",
).by(&["ring", "stage"]);
const MAP_ENTRIES: Family = Family::gauge(
    "paddock_map_entries",
    "Entries in use of a map of the kernel half, as the agent counted them in the last half minute.",
)
.by(&["map"]);
const MAP_MOST: Family = Family::gauge(
    "paddock_map_max_entries",
    "Entries that a map of the kernel half has room for; what comes then is lost to it.",
)
.by(&["map"]);
const UNDECODABLE: Family = Family::counter(
    "paddock_records_undecodable_total",
    "Delivered records that this agent could not understand.",
);
const ATTACHED: Family = Family::gauge(
    "paddock_probe_attached",
    "1 with the kind of hook (rung) that serves a capability, 0 with rung=\"none\" when nothing does.",
).by(&["capability", "rung"]);
const REFUSED: Family = Family::gauge(
    "paddock_probe_refused_rungs",
    "Rungs better than the one that serves a capability, which this kernel refused, or all where none serves: what grows has become worse.",
).by(&["capability"]);
const PROGRAM_SECONDS: Family = Family::counter(
    "paddock_program_run_seconds_total",
    "Time spent in a program; counted while kernel.bpf_stats_enabled is 1.",
)
.by(&["program"]);
const PROGRAM_RUNS: Family = Family::counter(
    "paddock_program_runs_total",
    "Runs of a program; counted while kernel.bpf_stats_enabled is 1.",
)
.by(&["program"]);
const PROGRAM_MISSES: Family = Family::counter(
    "paddock_program_missed_runs_total",
    "Runs of a program that the kernel left out, since it had preempted a task inside of it on the same processor. What setns and unshare lose so is taken up by probes where a kernel has them.",
).by(&["program"]);
const MISSED: Family = Family::counter(
    "paddock_births_missed_total",
    "New cgroups that found no slot laid out, by where they were made: what happened in one until the agent read of it is not counted as its own.",
).by(&["place"]);
const HITS_LOST: Family = Family::counter(
    "paddock_policy_hits_unnamed_total",
    "Acts that a policy forbids which found no room to be counted by container and rule: more than 16,384 combinations hit.",
);
const TAMPERING: Family = Family::counter(
    "paddock_tampering_total",
    "Attempts of others at what is paddock's own in the kernel: its maps, programs, links, their pins, the pins' mount, the agent's process. Outcome denied: refused; seen: let through, or known by what it left.",
).by(&["kind", "outcome"]);
const DISARMED: Family = Family::gauge(
    "paddock_policy_rules_disarmed",
    "1 where a policy's rule hit more containers than its disarm allows and only counts now, until its policy is applied or gets its mode anew; 0 for other rules that have a disarm.",
).by(&["policy", "rule"]);
const CANARY: Family = Family::counter(
    "paddock_canary_runs_total",
    "Harmless escapes that the agent played itself, by what came of it: seen: it heard of it; missed: not within ten seconds; failed: it could not be played.",
).by(&["outcome"]);
const CANARY_SEEN: Family = Family::gauge(
    "paddock_canary_last_seen_timestamp_seconds",
    "When the last one was heard of, or the agent started.",
);
const CANARY_DELAY: Family = Family::gauge(
    "paddock_canary_delay_seconds",
    "From the hook to the agent's reader, of the last one that was heard of.",
);
const STORED: Family = Family::counter(
    "paddock_events_store_stored_total",
    "Events that were written to the store on disk since this agent began.",
);
const STORE_WAITING: Family = Family::gauge(
    "paddock_events_store_waiting",
    "Events that wait to be written to the store.",
);
const UNSTORED: Family = Family::counter(
    "paddock_events_store_dropped_total",
    "Events that were told to followers and kept in memory, but not stored: the disk was too slow, full or broken.",
);
const STORE_BYTES: Family = Family::gauge(
    "paddock_events_store_size_bytes",
    "What stored events take of the store's file; the log beside it has up to some MiB more.",
);
const STORE_ERRORS: Family = Family::counter(
    "paddock_events_store_errors_total",
    "Failures to open or write the store; each is tried again.",
);
const STORE_FAILING: Family = Family::gauge(
    "paddock_events_store_failing",
    "1 while the store cannot be written and events are kept in memory alone.",
);
const SHIPPED: Family = Family::counter(
    "paddock_events_shipped_total",
    "Events that a receiver took (journald, otlp), counted again where they were sent again.",
)
.by(&["to"]);
const SHIPPING_REFUSED: Family = Family::counter(
    "paddock_events_shipping_refused_total",
    "Events that a receiver said it will never take.",
)
.by(&["to"]);
const SHIPPING_ERRORS: Family = Family::counter(
    "paddock_events_shipping_errors_total",
    "Attempts at passing events on that failed; all but refused ones are made again.",
)
.by(&["to"]);
const SHIPPING_BEHIND: Family = Family::gauge(
    "paddock_events_shipping_behind",
    "Events that a receiver has not got yet.",
)
.by(&["to"]);
const WEB_REFUSED: Family = Family::counter(
    "paddock_web_refused_total",
    "Connections and requests that the metrics end did not serve: handshake: no TLS, no client certificate that is good enough; login: no right password; rate: more than the limit; slow: a head, a handshake or an answer out of time; full: every connection in use.",
)
.by(&["reason"]);
const BUILD: Family =
    Family::gauge("paddock_build_info", "Version of paddock, always 1.").by(&["version"]);

#[cfg(test)]
pub(super) const FAMILIES: [Family; 31] = [
    OOM_KILLS,
    CONTAINERS,
    FOLDED,
    RECORDS,
    UNDECODABLE,
    ATTACHED,
    REFUSED,
    PROGRAM_SECONDS,
    PROGRAM_RUNS,
    PROGRAM_MISSES,
    MAP_ENTRIES,
    MAP_MOST,
    MISSED,
    HITS_LOST,
    TAMPERING,
    DISARMED,
    CANARY,
    CANARY_SEEN,
    CANARY_DELAY,
    STORED,
    STORE_WAITING,
    UNSTORED,
    STORE_BYTES,
    STORE_ERRORS,
    STORE_FAILING,
    SHIPPED,
    SHIPPING_REFUSED,
    SHIPPING_ERRORS,
    SHIPPING_BEHIND,
    WEB_REFUSED,
    BUILD,
];

pub(super) fn collect(shared: &Shared, exported: &Exported) -> Vec<MetricFamily> {
    let containers = states(exported).map(|(state, count)| {
        let word = match state {
            State::Created => "created",
            State::Running | State::Paused => "running",
            State::Restarting => "restarting",
            State::Exited => "exited",
        };
        (vec![("state", word.to_owned())], float(count))
    });
    let attached = shared.kernel.capabilities().iter().map(|status| {
        let labels = vec![
            ("capability", status.capability.clone()),
            (
                "rung",
                status.rung.clone().unwrap_or_else(|| "none".to_owned()),
            ),
        ];
        (labels, f64::from(u8::from(status.rung.is_some())))
    });
    let refused = shared.kernel.capabilities().iter().map(|status| {
        let labels = vec![("capability", status.capability.clone())];
        let refused = u64::try_from(status.refused.len()).unwrap_or(u64::MAX);
        (labels, float(refused))
    });
    let programs = shared.kernel.programs();
    let program = |name: &str| -> Labels { vec![("program", name.to_owned())] };
    let fills = shared.fills.last();
    let map = |one: &Fill| -> Labels { vec![("map", one.map.to_lowercase())] };
    let store = shared.store.as_deref().map(Store::stats);
    let waiting = store.map(|_| (vec![], float(shared.bus.waiting())));
    let of_store = |value: fn(&Stats) -> u64| store.map(|stats| (vec![], float(value(stats))));
    let unstored = store.map(|_| (vec![], float(shared.bus.dropped())));
    let last = shared.bus.last();
    let of_each = |value: &dyn Fn(&Shipped) -> u64| -> Vec<(Labels, f64)> {
        let of = |one: &Arc<Shipped>| (vec![("to", one.to.to_owned())], float(value(one)));
        shared.shipped.iter().map(of).collect()
    };
    let folded = u64::try_from(exported.folded.len()).unwrap_or(u64::MAX);
    vec![
        OOM_KILLS.with(oom_kills().map(|count| (vec![], float(count)))),
        CONTAINERS.with(containers),
        FOLDED.with([(vec![], float(folded))]),
        RECORDS.with(records(shared)),
        UNDECODABLE.with([(vec![], float(shared.kernel.undecodable()))]),
        ATTACHED.with(attached),
        REFUSED.with(refused),
        PROGRAM_SECONDS.with(
            programs
                .iter()
                .map(|one| (program(&one.program), float(one.run_time_ns) / 1e9)),
        ),
        PROGRAM_RUNS.with(
            programs
                .iter()
                .map(|one| (program(&one.program), float(one.run_count))),
        ),
        PROGRAM_MISSES.with(
            programs
                .iter()
                .map(|one| (program(&one.program), float(one.missed))),
        ),
        MAP_ENTRIES.with(fills.iter().map(|one| {
            let entries = u64::try_from(one.entries).unwrap_or(u64::MAX);
            (map(one), float(entries))
        })),
        MAP_MOST.with(fills.iter().map(|one| (map(one), f64::from(one.most)))),
        MISSED.with(missed(shared)),
        TAMPERING.with(tampering(shared)),
        HITS_LOST.with([(vec![], float(shared.kernel.hits_lost()))]),
        DISARMED.with(disarmed(shared)),
        CANARY.with(canary_runs(shared)),
        CANARY_SEEN.with(canary_seen(shared)),
        CANARY_DELAY.with(canary_delay(shared)),
        STORED.with(of_store(Stats::stored)),
        STORE_WAITING.with(waiting),
        UNSTORED.with(unstored),
        STORE_BYTES.with(of_store(Stats::bytes)),
        STORE_ERRORS.with(of_store(Stats::errors)),
        STORE_FAILING.with(of_store(|stats| u64::from(stats.failing()))),
        SHIPPED.with(of_each(&|one| one.sent())),
        SHIPPING_REFUSED.with(of_each(&|one| one.refused())),
        SHIPPING_ERRORS.with(of_each(&|one| one.errors())),
        SHIPPING_BEHIND.with(of_each(&|one| last.saturating_sub(one.cursor()))),
        WEB_REFUSED.with(
            shared
                .door
                .refusals()
                .map(|(reason, count)| (vec![("reason", reason.to_owned())], float(count))),
        ),
        BUILD.with([(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)]),
    ]
}

fn tampering(shared: &Shared) -> Vec<(Labels, f64)> {
    let mut series = Vec::new();
    for one in shared.kernel.touched() {
        for (outcome, count) in [("denied", one.denied), ("seen", one.seen)] {
            let labels = vec![
                ("kind", one.kind.name().to_owned()),
                ("outcome", outcome.to_owned()),
            ];
            series.push((labels, float(count)));
        }
    }
    series
}

fn disarmed(shared: &Shared) -> Vec<(Labels, f64)> {
    let series = |(policy, rule, disarmed): (String, String, bool)| {
        let labels = vec![("policy", policy), ("rule", rule)];
        (labels, f64::from(u8::from(disarmed)))
    };
    shared
        .policies
        .disarming()
        .into_iter()
        .map(series)
        .collect()
}

fn missed(shared: &Shared) -> Vec<(Labels, f64)> {
    let counts = shared.kernel.missed_births();
    let places = ["outside", "within"].into_iter();
    let series = places.zip(counts.into_iter().flatten());
    series
        .map(|(place, count)| (vec![("place", place.to_owned())], float(count)))
        .collect()
}

fn records(shared: &Shared) -> Vec<(Labels, f64)> {
    // Delivered first: what is submitted meanwhile must not look like a loss that is negative.
    let delivered = [Ring::Critical, Ring::Events].map(|ring| shared.kernel.delivered(ring));
    let Some(rings) = shared.kernel.rings() else {
        return Vec::new();
    };
    let mut series = Vec::new();
    for (ring, counters) in rings {
        let (word, delivered) = match ring {
            Ring::Critical => ("critical", delivered[0]),
            Ring::Events => ("events", delivered[1]),
        };
        let ends = [("seen", counters.seen), ("delivered", delivered)];
        for (stage, count) in counters.parts().into_iter().chain(ends) {
            series.push((
                vec![("ring", word.to_owned()), ("stage", stage.to_owned())],
                float(count),
            ));
        }
    }
    series
}

/// 4.13 and later.
fn oom_kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

/// None of the three where no canary is played.
fn canary_runs(shared: &Shared) -> Vec<(Labels, f64)> {
    let plays = shared.canary.plays();
    let outcomes = shared.canary.outcomes().into_iter().filter(|_| plays);
    outcomes
        .map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], float(count)))
        .collect()
}

fn canary_seen(shared: &Shared) -> Option<(Labels, f64)> {
    let canary = &shared.canary;
    let at_ns = canary
        .last()
        .map_or_else(|| canary.since(), |last| last.at_ns);
    canary.plays().then(|| (vec![], float(at_ns) / 1e9))
}

fn canary_delay(shared: &Shared) -> Option<(Labels, f64)> {
    let last = shared.canary.last()?;
    Some((vec![], last.took.as_secs_f64()))
}
