//! Every query of every dashboard answers, on a real Prometheus that scrapes a real agent while
//! containers do what the dashboards are for: one that does not is a panel that stays empty.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::kernel::{able, host_way};
use crate::{
    context::{Context, eventually},
    prometheus::Prometheus,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[Scenario::new(
    "dashboards::every_query_answers",
    every_query_answers,
)];

const BOARDS: [(&str, &str); 4] = [
    (
        "fleet",
        include_str!("../../../dashboards/grafana/fleet.json"),
    ),
    (
        "container",
        include_str!("../../../dashboards/grafana/container.json"),
    ),
    (
        "security",
        include_str!("../../../dashboards/grafana/security.json"),
    ),
    (
        "agent-health",
        include_str!("../../../dashboards/grafana/agent-health.json"),
    ),
];

/// What Grafana would put in the place of its variables with all chosen.
const VARIABLES: [(&str, &str); 5] = [
    ("$job", ".+"),
    ("$instance", ".+"),
    ("$container", ".+"),
    ("$__rate_interval", "10s"),
    ("$__range", "30s"),
];

const POLICY: &str = "[[rule]]\nname = \"joining\"\nnamespace = { target = [\"host\"] }\n";

fn every_query_answers(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let Some(prometheus) = Prometheus::of(context)? else {
        return Ok(());
    };
    load(context)?;
    let mut unanswered = queries()?;
    let mut failed = None;
    let answered = eventually("every query answers", || {
        unanswered.retain(
            |_, query| match prometheus.over(query, Duration::from_secs(20)) {
                Ok(found) => found.is_empty(),
                Err(error) => {
                    failed = Some(error);
                    true
                }
            },
        );
        Ok(unanswered.is_empty() || failed.is_some())
    });
    if let Some(error) = failed {
        return Err(error);
    }
    if answered.is_err() {
        let left: Vec<_> = unanswered
            .iter()
            .map(|(panel, query)| format!("{panel}: {query}"))
            .collect();
        bail!("no answer:\n{}", left.join("\n"));
    }
    let names = [
        "busy", "tunneler", "reacher", "walled", "audited", "restless",
    ];
    names
        .iter()
        .try_for_each(|name| context.ok(&["rm", "-f", name]).map(drop))
}

/// Kills, escapes, attempts, denials and what would be, restarts, over and over.
fn load(context: &Context) -> Result<()> {
    for (name, mode) in [("walled", "enforce"), ("audited", "audit")] {
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

/// By board and panel, or variable.
fn queries() -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (name, text) in BOARDS {
        let board: Value = serde_json::from_str(text)?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for panel in list(&board["panels"]) {
            for target in list(&panel["targets"]) {
                let query = target["expr"].as_str().context("no expr")?;
                let place = format!("{name}, {}, {}", panel["title"], target["refId"]);
                all.insert(place, filled(query));
            }
        }
        for annotation in list(&board["annotations"]["list"]) {
            if let Some(query) = annotation["expr"].as_str() {
                all.insert(format!("{name}, {}", annotation["name"]), filled(query));
            }
        }
        for variable in list(&board["templating"]["list"]) {
            if let Some(query) = variable["query"]["query"].as_str() {
                let inner = query
                    .strip_prefix("label_values(")
                    .and_then(|rest| rest.strip_suffix(')'))
                    .with_context(|| query.to_owned())?;
                let (series, label) = inner.rsplit_once(", ").context("no label")?;
                let query = format!("group by ({label}) ({series})");
                all.insert(format!("{name}, {}", variable["name"]), filled(&query));
            }
        }
    }
    Ok(all)
}

fn filled(query: &str) -> String {
    VARIABLES
        .iter()
        .fold(query.to_owned(), |text, (variable, value)| {
            text.replace(variable, value)
        })
}
