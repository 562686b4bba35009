//! `paddock check`: what this host offers, and which hook serves each capability and why.
//!
//! Asks the agent, whose programs are loaded; without one, finds out by trying, and takes
//! everything down again.

mod programs;

use std::collections::BTreeMap;

use paddock_agent::api::{CheckReport, Memory};
use paddock_probe::{CapabilityStatus, Refusal};

use super::Context;
use crate::{
    client::{Client, Error},
    human,
    output::{self, Format, print},
    table::{self, Column},
};

/// Show what this kernel offers and what serves each capability
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock check\n  \
    paddock check --format json")]
pub(crate) struct Check {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Load each program of the kernel half by itself instead, and show what the verifier took
    #[arg(long)]
    programs: bool,
}

const COLUMNS: [Column; 3] = [
    Column::fixed("CAPABILITY"),
    Column::fixed("RUNG"),
    Column::shrinking("WHY NOTHING BETTER"),
];

impl Check {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if self.programs {
            return programs::show(self.format).map(|()| 0);
        }
        let report = match Client::new(&context.state_dir)?.get("/v1/check") {
            Err(Error::NoAgent { .. }) => paddock_agent::check::report()?,
            report => report?,
        };
        match self.format {
            Format::Json => output::print_json(&report)?,
            Format::Table => print(&text(&report, output::width()))?,
        }
        Ok(0)
    }
}

fn text(report: &CheckReport, width: Option<usize>) -> String {
    let agent = report.agent.as_ref().map_or_else(
        || "none runs; start one with `paddock agent`".to_owned(),
        |agent| {
            let metrics = agent
                .metrics_address
                .as_ref()
                .map_or_else(String::new, |address| {
                    format!(", metrics http://{address}/metrics")
                });
            format!("pid {}, {}{metrics}", agent.pid, agent.state_dir.display())
        },
    );
    let facts = [
        ("paddock", report.version.clone()),
        ("kernel", report.kernel.clone()),
        ("agent", agent),
        (
            "cgroups",
            format!("{:?}", report.cgroup_layout).to_lowercase(),
        ),
        ("controllers", controllers(&report.controllers)),
        (
            "containers",
            format!(
                "in {}: {}",
                report.cgroup_parent, report.cgroup_parent_reason
            ),
        ),
        ("namespaces", pairs(&report.namespaces)),
        (
            "LSM",
            if report.lsm.is_empty() {
                "none".to_owned()
            } else {
                report.lsm.join(",")
            },
        ),
        (
            "BTF",
            if report.btf {
                "yes"
            } else {
                "no: /sys/kernel/btf/vmlinux is missing"
            }
            .to_owned(),
        ),
        ("memory", memory(&report.memory)),
    ];
    let mut text = String::new();
    for (name, value) in facts {
        text.push_str(&wrap(
            &format!("{name:<13}"),
            &human::printable(&value),
            width,
        ));
    }
    let rows: Vec<Vec<String>> = report
        .capabilities
        .iter()
        .flat_map(|status| rows(status, width))
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table::render(&COLUMNS, &rows, width));
    }
    text
}

/// `2.1 MiB for maps and rings: EVENTS 1 MiB, …`.
fn memory(memory: &Memory) -> String {
    if memory.maps.is_empty() {
        return "none: there is no kernel half".to_owned();
    }
    let maps: Vec<String> = memory
        .maps
        .iter()
        .map(|map| format!("{} {}", map.map, human::bytes(map.bytes)))
        .collect();
    format!(
        "{} for maps and rings: {}",
        human::bytes(memory.total_bytes),
        maps.join(", ")
    )
}

/// A row for the capability, and one more for each further rung that was refused.
fn rows(status: &CapabilityStatus, width: Option<usize>) -> Vec<Vec<String>> {
    let rung = status.rung.clone().unwrap_or_else(|| "off".to_owned());
    let mut rows = Vec::new();
    let mut head = [status.capability.clone(), rung];
    let why = status.refused.iter().map(refused);
    for text in why.chain(status.caveat.clone()) {
        // 10 and 14 are the widths of the columns before, 4 their gaps.
        for line in words(&text, width.map(|width| width.saturating_sub(28))) {
            let [capability, rung] = std::mem::take(&mut head);
            rows.push(vec![capability, rung, line]);
        }
    }
    if rows.is_empty() {
        let [capability, rung] = head;
        rows.push(vec![capability, rung, "-".to_owned()]);
    }
    rows
}

/// `fentry: EPERM, kernel refuses`.
fn refused(refusal: &Refusal) -> String {
    let errno = refusal
        .errno
        .as_ref()
        .map_or_else(String::new, |errno| format!(" {errno},"));
    human::single_line(&format!("{}:{errno} {}", refusal.rung, refusal.reason))
}

/// Grouped by mount point, in the order of their names: `cpu,memory on /sys/fs/cgroup`. Those
/// that have each their own, by the usual name, are one group: `cpu,pids on /sys/fs/cgroup/NAME`.
fn controllers(controllers: &BTreeMap<String, String>) -> String {
    let mut by_mount: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (controller, mount) in controllers {
        let parent = mount
            .strip_suffix(controller.as_str())
            .filter(|parent| parent.ends_with('/'));
        let mount = parent.map_or_else(|| mount.clone(), |parent| format!("{parent}NAME"));
        by_mount.entry(mount).or_default().push(controller);
    }
    let groups: Vec<String> = by_mount
        .iter()
        .map(|(mount, names)| format!("{} on {mount}", names.join(",")))
        .collect();
    groups.join("; ")
}

fn pairs(namespaces: &BTreeMap<String, u64>) -> String {
    let pairs: Vec<String> = namespaces
        .iter()
        .map(|(name, inode)| format!("{name} {inode}"))
        .collect();
    pairs.join(", ")
}

/// `head` and `value`, continued below the value where the width ends.
fn wrap(head: &str, value: &str, width: Option<usize>) -> String {
    let indent = head.chars().count();
    let lines = words(value, width.map(|width| width.saturating_sub(indent)));
    let mut text = head.to_owned();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Lines of at most `width` characters, broken at spaces; a longer word stays whole.
fn words(text: &str, width: Option<usize>) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let longer = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if width.is_some_and(|width| longer > width) {
            lines.push(word.to_owned());
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use paddock_cgroups::Layout;
    use paddock_probe::MapMemory;

    use super::*;

    fn report() -> CheckReport {
        let refusal = |rung: &str| Refusal {
            rung: rung.into(),
            errno: Some("EPERM".into()),
            reason: "the kernel refuses to load or attach a program of this kind".into(),
        };
        CheckReport {
            schema_version: 1,
            version: "0.1.0".into(),
            kernel: "6.18.0".into(),
            cgroup_layout: Layout::Hybrid,
            controllers: [
                ("cpu", "/sys/fs/cgroup/cpu"),
                ("hugetlb", "/sys/fs/cgroup/unified"),
                ("memory", "/sys/fs/cgroup/memory"),
            ]
            .map(|(name, mount)| (name.to_owned(), mount.to_owned()))
            .into(),
            cgroup_parent: "/paddock/default".into(),
            cgroup_parent_reason: "nobody delegated /system.slice/paddock.service to the agent"
                .into(),
            namespaces: ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
                .map(|name| (name.to_owned(), 4_026_531_835))
                .into(),
            lsm: Vec::new(),
            btf: true,
            capabilities: vec![
                CapabilityStatus {
                    capability: "setns".into(),
                    rung: Some("tracepoint".into()),
                    refused: vec![refusal("fentry"), refusal("kprobe")],
                    caveat: Some("not while no agent runs".into()),
                },
                CapabilityStatus {
                    capability: "oom".into(),
                    rung: Some("btf_tracepoint".into()),
                    refused: vec![],
                    caveat: None,
                },
                CapabilityStatus {
                    capability: "exec".into(),
                    rung: None,
                    refused: vec![refusal("btf_tracepoint")],
                    caveat: None,
                },
            ],
            memory: vec![MapMemory {
                map: "EVENTS".into(),
                kind: "ring".into(),
                bytes: 1 << 20,
            }]
            .into(),
            agent: None,
        }
    }

    #[test]
    fn fits_80_columns_and_loses_nothing() {
        let text = text(&report(), Some(80));
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        for needed in [
            "hybrid",
            "cpu,memory on /sys/fs/cgroup/NAME;",
            "fentry: EPERM,",
            "kprobe: EPERM,",
            "off",
            "not while no agent runs",
            "EVENTS 1 MiB",
        ] {
            assert!(text.contains(needed), "{needed}: {text}");
        }
        let reason = "the kernel refuses to load or attach a program of this kind";
        let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(flat.matches(reason).count(), 3, "{text}");
    }

    #[test]
    fn wide_has_a_line_a_fact() {
        let text = text(&report(), None);
        let controllers = text.lines().find(|line| line.starts_with("controllers"));
        assert_eq!(
            controllers,
            Some(
                "controllers  cpu,memory on /sys/fs/cgroup/NAME; hugetlb on /sys/fs/cgroup/unified"
            )
        );
    }
}
