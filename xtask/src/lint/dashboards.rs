//! Dashboards: Grafana's own schema of them, the rules of its dashboard-linter, and that every
//! query is one by Prometheus' own parser.
//!
//! <https://github.com/grafana/dashboard-linter/tree/main/docs/rules>, by their names there. The
//! two for Loki have nothing to look at: a query of another kind than Prometheus' is refused.
//! Whether a query answers is for a scenario (`dashboards::every_query_answers`).

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{alerts::find_promtool, grafana};
use crate::{cmd, tree::Tree};

const DIRECTORY: &str = "dashboards/grafana";
/// What Grafana puts in the place of its variables, as far as the parser is concerned.
const STAND_INS: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$__range", "1h")];
/// Matchers that keep a panel to what was chosen above it.
const MATCHERS: [&str; 2] = ["job=~\"$job\"", "instance=~\"$instance\""];
/// Of those ids that are used: <https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts>
const UNITS: [&str; 10] = [
    "short",
    "percentunit",
    "bytes",
    "Bps",
    "pps",
    "iops",
    "ops",
    "s",
    "dateTimeFromNow",
    "none",
];

/// Panels that count over the whole of the dashboard's time, which no `$__rate_interval` does:
/// target-rate-interval-rule allows them nothing else.
fn counts_over_its_time(panel: &Value) -> bool {
    matches!(panel["type"].as_str(), Some("stat" | "table"))
}

pub(super) fn check(tree: &Tree) -> Result<()> {
    let schema = grafana::Schema::new()?;
    let mut problems = Vec::new();
    let mut queries = Vec::new();
    let (mut uids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for path in files(tree)? {
        let text = fs::read_to_string(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let board: Value =
            serde_json::from_str(&text).with_context(|| name.clone().into_owned())?;
        ensure!(
            uids.insert(board["uid"].to_string()) && titles.insert(board["title"].to_string()),
            "{name}: uid and title are another one's, too"
        );
        let found = schema.problems(&board).into_iter().chain(of_board(&board));
        problems.extend(found.map(|problem| format!("{name}: {problem}")));
        queries.extend(all_queries(&board));
    }
    ensure!(!uids.is_empty(), "{DIRECTORY}: no dashboards");
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    parse(tree, &queries)
}

fn files(tree: &Tree) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(tree.root.join(DIRECTORY)).context(DIRECTORY)?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    files.sort();
    Ok(files)
}

/// Every query as the rule of a file, which promtool reads with Prometheus' parser.
fn parse(tree: &Tree, queries: &[String]) -> Result<()> {
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let expression = STAND_INS
                .iter()
                .fold(query.clone(), |text, (variable, value)| {
                    text.replace(variable, value)
                });
            serde_json::json!({"record": format!("query:{number}"), "expr": expression})
        })
        .collect();
    let file = serde_json::json!({"groups": [{"name": "queries", "rules": rules}]});
    let path = tree.root.join("target/dashboard-queries.yml");
    fs::write(&path, serde_json::to_vec_pretty(&file)?)?;
    let checked = cmd::output(
        Command::new(find_promtool(tree)?)
            .args(["check", "rules"])
            .arg(&path),
    );
    fs::remove_file(&path)?;
    checked.map(drop)
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn all_queries(board: &Value) -> Vec<String> {
    let of_panels = list(board, "panels")
        .iter()
        .flat_map(|panel| list(panel, "targets"));
    let annotations = list(&board["annotations"], "list").iter();
    of_panels
        .chain(annotations)
        .filter_map(|one| one["expr"].as_str().map(str::to_owned))
        .collect()
}

fn of_board(board: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mut say = |problem: String| problems.push(problem);
    if board.get("dashboard").is_some() || board.get("id").is_some() {
        say("bare: neither wrapped in \"dashboard\" nor with an \"id\"".to_owned());
    }
    for key in ["uid", "title", "description"] {
        if text(board, key).is_empty() {
            say(format!("a {key}"));
        }
    }
    if board["editable"] != false {
        say("uneditable-dashboard: editable is to be false".to_owned());
    }
    let variables = list(&board["templating"], "list");
    of_variables(variables, &mut say);
    let mut ids = BTreeSet::new();
    for panel in list(board, "panels") {
        let title = text(panel, "title");
        if !ids.insert(panel["id"].to_string()) {
            say(format!("{title}: its id is another panel's, too"));
        }
        if text(panel, "type") != "row" {
            of_panel(panel, &mut |problem| say(format!("{title}: {problem}")));
        }
    }
    for annotation in list(&board["annotations"], "list") {
        if let Some(query) = annotation["expr"].as_str() {
            let name = text(annotation, "name");
            of_query(query, false, &mut |problem| {
                say(format!("annotation {name}: {problem}"));
            });
        }
    }
    problems
}

fn of_variables(variables: &[Value], say: &mut impl FnMut(String)) {
    let sources: Vec<_> = variables
        .iter()
        .filter(|one| one["type"] == "datasource")
        .collect();
    let right = |one: &Value| {
        one["name"] == "datasource" && one["label"] == "Data source" && one["query"] == "prometheus"
    };
    if sources.len() != 1 || !sources.iter().all(|one| right(one)) {
        say(
            "template-datasource: one variable \"datasource\", labelled \"Data source\"".to_owned(),
        );
    }
    for (name, label) in [("job", "Job"), ("instance", "Instance")] {
        let Some(one) = variables.iter().find(|one| one["name"] == name) else {
            say(format!("template-{name}: no such variable"));
            continue;
        };
        if one["label"] != label || one["multi"] != true || one["allValue"] != ".+" {
            say(format!(
                "template-{name}: labelled {label}, multi, with .+ for all"
            ));
        }
    }
    for one in variables.iter().filter(|one| one["type"] == "query") {
        let name = text(one, "name");
        if one["datasource"]["uid"] != "$datasource" {
            say(format!("template-{name}: of $datasource"));
        }
        if one["refresh"] != 2 {
            say(format!(
                "template-on-time-change-reload: {name}: refresh is to be 2"
            ));
        }
        let query = text(&one["query"], "query");
        if !query.starts_with("label_values(paddock_") || !query.ends_with(')') {
            say(format!("template-label-promql: {name}: {query}"));
        }
    }
}

fn of_panel(panel: &Value, say: &mut impl FnMut(String)) {
    if text(panel, "title").is_empty() || text(panel, "description").is_empty() {
        say("panel-title-description: both".to_owned());
    }
    if panel["datasource"]["uid"] != "${datasource}" {
        say("panel-datasource: ${datasource}".to_owned());
    }
    let unit = text(&panel["fieldConfig"]["defaults"], "unit");
    if !UNITS.contains(&unit) {
        say(format!("panel-units: {unit:?}"));
    }
    let targets = list(panel, "targets");
    if targets.is_empty() {
        say("panel-no-targets".to_owned());
    }
    for target in targets {
        if target["datasource"]["type"] != "prometheus" {
            say("target-promql: a query of another kind than Prometheus'".to_owned());
        }
        of_query(text(target, "expr"), counts_over_its_time(panel), say);
    }
}

/// A metric's name in a query, and what stands before and after it.
struct Selector<'q> {
    name: &'q str,
    before: &'q str,
    /// From the brace on, if there is one.
    after: &'q str,
}

/// Metrics of ours and of the agent's process: nothing else is asked for.
fn selectors(query: &str) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut start = 0;
    while start < query.len() {
        let rest = &query[start..];
        let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
        let name = &rest[..length];
        if name.starts_with("paddock_") || name.starts_with("process_") || name == "up" {
            found.push(Selector {
                name,
                before: &query[..start],
                after: &rest[length..],
            });
        }
        start += length.max(1);
    }
    found
}

fn of_query(query: &str, over_its_time: bool, say: &mut impl FnMut(String)) {
    let all = selectors(query);
    if all.is_empty() {
        say(format!("target-promql: no metric of ours: {query}"));
    }
    for Selector {
        name,
        before,
        after,
    } in all
    {
        let matchers = after
            .strip_prefix('{')
            .and_then(|rest| Some(rest.split_once('}')?.0));
        let matchers = matchers.unwrap_or_default();
        for (matcher, rule) in MATCHERS.iter().zip(["target-job", "target-instance"]) {
            if !matchers.contains(matcher) {
                say(format!("{rule}: {name} without {matcher}"));
            }
        }
        let range = after
            .split_once('}')
            .and_then(|(_, rest)| Some(rest.strip_prefix('[')?.split_once(']')?.0));
        let rated = ["rate(", "increase("]
            .iter()
            .any(|call| before.ends_with(call));
        // Beside its `increase`, which does not see a series' first one: ADR 21.
        let increased = query.contains(&format!("increase({name}{{{matchers}}}["));
        if name.ends_with("_total") && !rated && !increased {
            say(format!(
                "target-counter-agg: {name} is neither in rate nor in increase"
            ));
        }
        let right =
            |range: &str| range == "$__rate_interval" || (over_its_time && range == "$__range");
        if rated && !range.is_some_and(right) {
            say(format!("target-rate-interval: {name}[{range:?}]"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(query: &str, over_its_time: bool) -> Vec<String> {
        let mut found = Vec::new();
        of_query(query, over_its_time, &mut |problem| found.push(problem));
        found
    }

    const CHOSEN: &str = "job=~\"$job\", instance=~\"$instance\"";

    #[test]
    fn a_query_keeps_to_what_was_chosen_and_rates_what_counts() {
        let good = format!("sum(rate(paddock_oom_kills_total{{{CHOSEN}}}[$__rate_interval]))");
        assert_eq!(problems(&good, false), Vec::<String>::new());
        let whole = format!("sum(increase(paddock_oom_kills_total{{{CHOSEN}}}[$__range]))");
        assert_eq!(problems(&whole, true), Vec::<String>::new());
        let first = format!("paddock_oom_kills_total{{{CHOSEN}}} unless x or {good}");
        assert_eq!(
            problems(&first.replace("rate(", "increase("), false),
            Vec::<String>::new()
        );
        for (bad, rule) in [
            (first, "target-counter-agg"),
            (whole.clone(), "target-rate-interval"),
            (good.replace("job=~\"$job\"", "a=\"b\""), "target-job"),
            (
                good.replace("instance=~\"$instance\"", "instance=~\".+\""),
                "target-instance",
            ),
            (
                format!("sum(paddock_oom_kills_total{{{CHOSEN}}})"),
                "target-counter-agg",
            ),
            (
                good.replace("$__rate_interval", "5m"),
                "target-rate-interval",
            ),
            ("vector(1)".to_owned(), "target-promql"),
        ] {
            let said = problems(&bad, false);
            assert!(
                said.len() == 1 && said[0].starts_with(rule),
                "{bad}: {said:?}"
            );
        }
    }

    #[test]
    fn names_are_found_whole() {
        let found = selectors("topk(10, paddock_a{x=\"y\"} / on (up_to) process_b) + up");
        let names: Vec<_> = found.iter().map(|one| one.name).collect();
        assert_eq!(names, ["paddock_a", "process_b", "up"]);
    }
}
