use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use paddock_cgroups::{HugePages, Totals};

use super::*;
use crate::metrics::families;

fn text(readings: &[Reading]) -> String {
    let mut page = Exposition::default();
    expose_kernel(readings, &mut page);
    cgroup::expose(readings, &mut page);
    String::from_utf8(page.text().unwrap()).unwrap()
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
        totals: Totals {
            cpu_usage_usec: Some(1_500_000),
            cpu_user_usec: Some(1),
            cpu_system_usec: Some(2),
            cpu_periods: Some(3),
            cpu_throttled_periods: Some(1),
            cpu_throttled_usec: Some(5),
            cpu_waiting_usec: Some(6),
            cpu_stalled_usec: Some(7),
            memory_waiting_usec: Some(8),
            memory_stalled_usec: Some(9),
            io_waiting_usec: Some(10),
            io_stalled_usec: Some(11),
            memory_low_events: Some(0),
            memory_high_events: Some(12),
            memory_max_events: Some(13),
            memory_oom_events: Some(14),
            memory_oom_kills: Some(0),
            memory_oom_group_kills: Some(1),
            memory_major_faults: Some(15),
            io_read_bytes: Some(16),
            io_write_bytes: Some(17),
            io_reads: Some(18),
            io_writes: Some(19),
        },
        cpu_quota_usec: Some(50_000),
        cpu_period_usec: Some(100_000),
        cpu_waiting_avg10: Some(1),
        memory_waiting_avg10: Some(2),
        io_waiting_avg10: Some(3),
        memory_usage_bytes: Some(4096),
        memory_working_set_bytes: Some(4096),
        memory_peak_bytes: Some(8192),
        memory_anon_bytes: Some(2048),
        memory_file_bytes: Some(2048),
        memory_swap_bytes: Some(0),
        memory_limit_bytes: Some(64 << 20),
        pids_current: Some(1),
        pids_limit: Some(10),
        huge_pages: vec![HugePages {
            size: "2MB".into(),
            usage_bytes: 2 << 20,
        }],
    }
}

#[test]
fn a_container_is_born_with_what_alerts_ask_for_at_zero() {
    let text = text(&[reading("new", None)]);
    for line in [
        r#"paddock_container_oom_kills_total{constraint="memcg",container="new",level="own"} 0"#,
        r#"paddock_container_oom_kills_total{constraint="host",container="new",level="host"} 0"#,
        r#"paddock_container_escapes_total{container="new",kind="host_namespace",outcome="allowed"} 0"#,
        r#"paddock_container_escapes_total{container="new",kind="peer_namespace",outcome="allowed"} 0"#,
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line}\nnot in\n{text}"
        );
    }
    // What no alert asks for begins with its first one: a container's series are few.
    assert_eq!(
        text.lines().filter(|line| !line.starts_with('#')).count(),
        12
    );
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

/// docs/metrics.md has them from the families.
#[test]
fn labels_are_those_that_a_family_names() {
    let mut readings = vec![reading("full", Some(full()))];
    for cell in &mut readings[0].counters.kernel.cells {
        *cell = 1;
    }
    let text = text(&readings);
    let mut seen = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').unwrap();
        let family = families().find(|family| family.name == name).unwrap();
        let labels: BTreeSet<_> = rest
            .split("\",")
            .map(|pair| pair.split('=').next().unwrap())
            .collect();
        let mut want: BTreeSet<_> = family.labels.iter().copied().collect();
        want.insert("container");
        assert_eq!(labels, want, "{line}");
        seen += 1;
    }
    assert!(seen > 250, "{seen}");
}

#[test]
fn what_tells_series_apart() {
    let text = text(&[reading("full", Some(full()))]);
    for line in [
        r#"paddock_container_memory_events_total{container="full",event="high"} 12"#,
        r#"paddock_container_memory_events_total{container="full",event="oom"} 14"#,
        r#"paddock_container_hugetlb_usage_bytes{container="full",pagesize="2MB"} 2097152"#,
        r#"paddock_container_pressure_io_stalled_seconds_total{container="full"} 0.000011"#,
        r#"paddock_container_spec_cpu_quota{container="full"} 50000"#,
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line}\nnot in\n{text}"
        );
    }
    assert!(!text.contains(r#"event="low""#), "{text}");
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
