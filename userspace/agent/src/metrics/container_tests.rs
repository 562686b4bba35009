use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use prometheus::{Encoder as _, TextEncoder};

use super::*;
use crate::metrics::families;

fn text(readings: &[Reading]) -> String {
    let mut families = kernel_families(readings);
    families.extend(cgroup::collect(readings));
    // An encoder refuses a family without series; a registry leaves it out.
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn reading(name: &str, gauges: Option<Stats>) -> Reading {
    let counters = Counters::new(&SlotCounters::ZERO, &gauges.clone().unwrap_or_default());
    Reading {
        name: name.into(),
        counters,
        gauges,
    }
}

fn full() -> Stats {
    Stats {
        cpu_usage_usec: Some(1_500_000),
        cpu_user_usec: Some(1),
        cpu_system_usec: Some(2),
        cpu_periods: Some(3),
        cpu_throttled_periods: Some(1),
        cpu_throttled_usec: Some(5),
        memory_usage_bytes: Some(4096),
        memory_working_set_bytes: Some(4096),
        memory_peak_bytes: Some(8192),
        memory_limit_bytes: Some(64 << 20),
        memory_oom_group_kills: None,
        memory_oom_kills: Some(0),
        pids_current: Some(1),
        pids_limit: Some(10),
        ..Stats::default()
    }
}

#[test]
fn a_container_is_born_with_all_its_series_at_zero() {
    let text = text(&[reading("new", None)]);
    for line in [
        r#"paddock_container_oom_kills_total{constraint="memcg",container="new",level="own"} 0"#,
        r#"paddock_container_oom_kills_total{constraint="host",container="new",level="host"} 0"#,
        r#"paddock_container_escapes_total{container="new",kind="host_namespace",outcome="allowed"} 0"#,
        r#"paddock_container_escapes_total{container="new",kind="peer_namespace",outcome="failed"} 0"#,
        r#"paddock_container_namespace_calls_total{container="new",namespace="uts",outcome="failed",syscall="setns"} 0"#,
        r#"paddock_container_namespace_calls_total{container="new",namespace="time",outcome="allowed",syscall="clone"} 0"#,
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line}\nnot in\n{text}"
        );
    }
    let calls = text
        .lines()
        .filter(|line| line.starts_with("paddock_container_namespace_calls_total{"));
    assert_eq!(calls.count(), 40);
    assert!(
        !text.contains("memory_usage"),
        "a gauge of what has no cgroup"
    );
}

#[test]
fn gauges_go_and_counters_stay() {
    let mut gone = reading("gone", Some(full()));
    gone.gauges = None;
    let text = text(&[gone, reading("here", Some(full()))]);
    let has = |line: &str| text.lines().any(|have| have == line);
    assert!(
        has(r#"paddock_container_cpu_usage_seconds_total{container="gone"} 1.5"#),
        "{text}"
    );
    assert!(
        has(r#"paddock_container_memory_usage_bytes{container="here"} 4096"#),
        "{text}"
    );
    assert!(!has(
        r#"paddock_container_memory_usage_bytes{container="gone"} 4096"#
    ));
}

#[test]
fn label_values_are_escaped() {
    let text = text(&[reading("a\"b\\c\nd", None)]);
    assert!(text.contains(r#"container="a\"b\\c\nd""#), "{text}");
}

#[test]
fn names_and_helps_follow_the_conventions() {
    let mut seen = BTreeSet::new();
    for family in families() {
        assert!(seen.insert(family.name), "{} twice", family.name);
        assert!(family.name.starts_with("paddock_") && !family.help.is_empty());
        let counter = family.kind == super::super::family::Kind::Counter;
        assert_eq!(family.name.ends_with("_total"), counter, "{}", family.name);
    }
}

/// With Prometheus' own judge, where it is installed.
#[test]
fn promtool_has_nothing_to_say() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return };
    let text = text(&[reading("one", Some(full())), reading("two", None)]);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
