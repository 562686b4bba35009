//! docs/metrics.md, written from the families: a test fails when it is not what it would be.
//! `UPDATE_DOCS=1` writes it.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    families,
    family::{Family, Kind},
};
use crate::event::docs::current;

const HEAD: &str = "# Metrics\n\nWritten from `userspace/agent/src/metrics`. `/metrics` on `--web.listen-address` (127.0.0.1:9750) has them in Prometheus' text format, read from the kernel when asked, none of them kept. Units are base units: seconds, bytes. Counters stay for 15 minutes after their container's end, gauges go with it.\n\nOne label, `container`, names a container; all else about it is on `paddock_container_info`: `* on (instance, container) group_left (image) paddock_container_info`. At most 512 containers have series of their own, the rest are summed as `container=\"_other\"` (`paddock_containers_folded` says how many). A series that alerts watch is there at zero from birth; one that begins with its first count says so ([ADR 21](adr/0021-what-no-alert-asks-for-begins-with-its-first-count.md)). A value that the host has not got has no series.\n\nWhere cAdvisor has the same, the name is cAdvisor's with another prefix. `process_*` is the agent's own process.\n";

#[test]
fn metrics_are_documented() {
    let mut text = HEAD.to_owned();
    let (containers, hosts): (Vec<&Family>, Vec<&Family>) =
        families().partition(|family| family.name.starts_with("paddock_container_"));
    for (title, families) in [
        ("Of each container", containers),
        ("Of the host and of paddock itself", hosts),
    ] {
        writeln!(
            text,
            "\n## {title}\n\n| Name | Kind | Labels | |\n|---|---|---|---|"
        )
        .unwrap();
        let rows: BTreeMap<_, _> = families.into_iter().map(|one| (one.name, one)).collect();
        for (name, family) in rows {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let labels: Vec<_> = family
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            let help = family.help.replace('|', "\\|");
            writeln!(
                text,
                "| `{name}` | {kind} | {} | {help} |",
                labels.join(", ")
            )
            .unwrap();
        }
    }
    current("metrics.md", &text);
}
