//! Alert rules: promtool's own tests of them, and that none comes without a severity, a page for
//! whoever it wakes up, and a test that it fires and stays quiet.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{cmd, setup, tree::Tree};

const DIRECTORY: &str = "dashboards/prometheus";
const RULES: &str = "paddock.rules.yml";
const TESTS: &str = "paddock.rules.test.yml";
const RUNBOOKS: &str = "docs/runbooks";
/// What lists the others.
const INDEX: &str = "README";
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

pub(super) fn check(tree: &Tree) -> Result<()> {
    let dir = tree.root.join(DIRECTORY);
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let rules = read(&dir.join(RULES))?;
    let tests = read(&dir.join(TESTS))?;
    let pages = fs::read_dir(tree.root.join(RUNBOOKS)).context(RUNBOOKS)?;
    let pages: BTreeSet<String> = pages
        .filter_map(|page| page.ok()?.file_name().into_string().ok())
        .filter_map(|page| page.strip_suffix(".md").map(str::to_owned))
        .filter(|page| page != INDEX)
        .collect();
    let problems = problems(&rules, &tests, &pages);
    if !problems.is_empty() {
        bail!("{DIRECTORY}: {}", problems.join("; "));
    }
    let promtool = find_promtool(tree)?;
    let run = |args: &[&str]| {
        let mut command = Command::new(&promtool);
        cmd::output(command.current_dir(&dir).args(args)).map(drop)
    };
    run(&["check", "rules", "--lint-fatal", RULES])?;
    run(&["test", "rules", TESTS])
}

fn problems(rules: &str, tests: &str, pages: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap_or_default().trim();
        names.insert(name.to_owned());
        let value = |key: &str| {
            let mut lines = rule.lines().map(str::trim);
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        };
        if !value("severity").is_some_and(|one| SEVERITIES.contains(&one)) {
            problems.push(format!("{name}: a severity, one of {SEVERITIES:?}"));
        }
        for key in ["summary", "description"] {
            if value(key).is_none() {
                problems.push(format!("{name}: a {key}"));
            }
        }
        let page = format!("{RUNBOOKS}/{name}.md");
        if value("runbook") != Some(&page) || !pages.contains(name) {
            problems.push(format!("{name}: runbook: {page}, and that page"));
        }
        // Of one alert both sides: it fires, it stays quiet.
        let of = format!("alertname: {name}\n");
        let sides: BTreeSet<bool> = tests
            .split(&of)
            .skip(1)
            .map(|test| test.trim_start().starts_with("exp_alerts: []"))
            .collect();
        if sides.len() < 2 {
            problems.push(format!("{name}: a test that it fires and stays quiet"));
        }
    }
    let strays = pages.difference(&names);
    problems.extend(strays.map(|page| format!("{RUNBOOKS}/{page}.md: no such alert")));
    problems
}

pub(super) fn find_promtool(tree: &Tree) -> Result<std::path::PathBuf> {
    let path = setup::path_with_extracted(tree)?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("promtool"))
        .find(|file: &std::path::PathBuf| Path::is_file(file))
        .context("promtool is missing: cargo xtask setup --for test")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "- alert: Full\n  expr: a > 1\n  labels:\n    severity: warning\n  \
        annotations:\n    summary: \"x\"\n    description: \"y\"\n    \
        runbook: docs/runbooks/Full.md\n";
    const TEST: &str = "- alertname: Full\n  exp_alerts: []\n- alertname: Full\n  exp_alerts:\n    \
        - exp_labels: {}\n";

    fn pages(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_whole_rule_is_no_problem() {
        assert_eq!(
            problems(RULE, TEST, &pages(&["Full"])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn whatever_is_missing_is_one() {
        let quiet = TEST.split("- alertname").take(2).collect::<Vec<_>>();
        for (rule, test, pages) in [
            (
                RULE.replace("warning", "page"),
                TEST.to_owned(),
                pages(&["Full"]),
            ),
            (
                RULE.replace("summary", "title"),
                TEST.to_owned(),
                pages(&["Full"]),
            ),
            (RULE.to_owned(), TEST.to_owned(), pages(&[])),
            (RULE.to_owned(), TEST.to_owned(), pages(&["Full", "Gone"])),
            (RULE.to_owned(), quiet.join("- alertname"), pages(&["Full"])),
        ] {
            assert_eq!(problems(&rule, &test, &pages).len(), 1, "{rule}");
        }
    }
}
