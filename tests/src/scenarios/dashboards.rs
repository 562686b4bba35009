//! Every query of every dashboard answers, on a real Prometheus that scrapes a real agent while
//! containers do what the dashboards are for: one that does not is a panel that stays empty.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    context::{Context, eventually},
    load,
    prometheus::Prometheus,
    runner::Scenario,
};

pub const ALL: &[Scenario] =
    &[Scenario::new("dashboards::every_query_answers", every_query_answers).alone()];

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

fn every_query_answers(context: &Context) -> Result<()> {
    if !Prometheus::is_here()? {
        return Ok(());
    }
    // The canary's panels, too.
    context.start_agent(&["--detach-on-exit", "--canary-interval", "60"])?;
    let Some(prometheus) = Prometheus::of(context)? else {
        return Ok(());
    };
    load::begin(context)?;
    answered(&prometheus)?;
    load::end(context)
}

/// Waits until all do; an error that names those that do not.
pub fn answered(prometheus: &Prometheus) -> Result<()> {
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
    Ok(())
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
