//! Policies in force, which are the agent's.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use hyper::Method;
use paddock_agent::api::{PolicySummary, RuleSummary};

use super::load;
use crate::{
    client::{Client, encode},
    human,
    output::{self, Format, print, print_json},
    table::{Column, render},
};

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Enforced {
    Audit,
    Enforce,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Unenforceable {
    Fail,
    Audit,
}

#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// In place of the file's mode: count only, or stop it
    #[arg(long, value_enum)]
    mode: Option<Enforced>,
    /// In place of the file's: refuse rules that this kernel cannot enforce, or count only
    #[arg(long, value_enum)]
    when_unenforceable: Option<Unenforceable>,
}

impl Apply {
    pub(super) fn run(&self, state_dir: &Path) -> anyhow::Result<u8> {
        let (loaded, code) = load(&self.files);
        if code != 0 {
            return Ok(code);
        }
        let client = Client::new(state_dir)?;
        let said = said(self.mode, self.when_unenforceable);
        for (place, super::Loaded { file, text, .. }) in loaded.into_iter().enumerate() {
            let path = format!("/v1/policies{said}");
            let applied: PolicySummary =
                client.file(Method::PUT, &path, text).with_context(|| {
                    let rest = self.files.get(place + 1..).unwrap_or_default().join(", ");
                    if rest.is_empty() {
                        format!("{file}: not in force")
                    } else {
                        format!("{file}: not in force, nor what was to follow it ({rest})")
                    }
                })?;
            print(&in_force(&applied))?;
        }
        Ok(0)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct SetMode {
    #[arg(value_name = "POLICY")]
    name: String,
    #[arg(value_enum, value_name = "MODE")]
    to: Enforced,
    /// Refuse rules that this kernel cannot enforce, or count only
    #[arg(long, value_enum)]
    when_unenforceable: Option<Unenforceable>,
}

impl SetMode {
    pub(super) fn run(&self, state_dir: &Path) -> anyhow::Result<u8> {
        let said = said(Some(self.to), self.when_unenforceable);
        let path = format!("/v1/policies/{}/mode{said}", encode(&self.name));
        let now: PolicySummary = Client::new(state_dir)?.post(&path)?;
        print(&in_force(&now))?;
        Ok(0)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only this one, with its rules
    #[arg(value_name = "POLICY")]
    name: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl List {
    pub(super) fn run(&self, state_dir: &Path) -> anyhow::Result<u8> {
        let all: Vec<PolicySummary> = Client::new(state_dir)?.get("/v1/policies")?;
        let Some(name) = &self.name else {
            match self.format {
                Format::Json => print_json(&all)?,
                Format::Table => print(&policies(&all))?,
            }
            return Ok(0);
        };
        let one = all
            .iter()
            .find(|one| one.name == *name)
            .with_context(|| format!("no policy '{name}' is in force"))?;
        match self.format {
            Format::Json => print_json(one)?,
            Format::Table => print(&rules(&one.rules))?,
        }
        Ok(0)
    }
}

pub(super) fn remove(state_dir: &Path, names: &[String]) -> anyhow::Result<u8> {
    let client = Client::new(state_dir)?;
    for name in names {
        client.send(Method::DELETE, &format!("/v1/policies/{}", encode(name)))?;
        print(&format!("{name}\n"))?;
    }
    Ok(0)
}

fn said(mode: Option<Enforced>, when: Option<Unenforceable>) -> String {
    let mut said = Vec::new();
    match mode {
        Some(Enforced::Audit) => said.push("mode=audit"),
        Some(Enforced::Enforce) => said.push("mode=enforce"),
        None => {}
    }
    match when {
        Some(Unenforceable::Fail) => said.push("when_unenforceable=fail"),
        Some(Unenforceable::Audit) => said.push("when_unenforceable=audit"),
        None => {}
    }
    if said.is_empty() {
        String::new()
    } else {
        format!("?{}", said.join("&"))
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// What now holds, and what of it is weaker than a refusal.
fn in_force(policy: &PolicySummary) -> String {
    let mut text = format!(
        "{}: {}, {}, {}\n",
        policy.name,
        policy.mode,
        counted(policy.rules.len(), "rule"),
        counted(policy.containers.len(), "container")
    );
    let mut weaker: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let enforced = policy.rules.iter().filter(|rule| rule.mode == "enforce");
    for (means, what) in enforced.flat_map(|rule| &rule.means) {
        let all = weaker.entry(means).or_default();
        all.extend(what.iter().map(String::as_str));
    }
    for (means, says) in [
        ("sigkill", "killed after the act, before it returns"),
        ("count", "only counted, this kernel cannot stop it"),
    ] {
        if let Some(what) = weaker.get(means) {
            // Of some containers only: the others' filter asks first.
            let asked = |one: &&str| weaker.get("seccomp").is_some_and(|all| all.contains(one));
            let mut what: Vec<_> = what
                .iter()
                .map(|one| {
                    format!(
                        "{one}{}",
                        if asked(one) {
                            " where no filter asks"
                        } else {
                            ""
                        }
                    )
                })
                .collect();
            what.sort_unstable();
            what.dedup();
            let line = format!("  {says}: {}", what.join(", "));
            text += &human::wrap(&line, output::width());
        }
    }
    text
}

fn policies(all: &[PolicySummary]) -> String {
    let columns = [
        Column::shrinking("POLICY"),
        Column::fixed("MODE"),
        Column::number("RULES"),
        Column::number("DENIED"),
        Column::number("WOULD-DENY"),
        Column::shrinking("CONTAINERS"),
    ];
    let row = |one: &PolicySummary| {
        let sum = |of: fn(&RuleSummary) -> u64| -> u64 { one.rules.iter().map(of).sum() };
        vec![
            one.name.clone(),
            one.mode.clone(),
            one.rules.len().to_string(),
            sum(|rule| rule.denied).to_string(),
            sum(|rule| rule.would_deny).to_string(),
            human::printable(&one.containers.join(",")),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    render(&columns, &rows, output::width())
}

fn rules(all: &[RuleSummary]) -> String {
    let columns = [
        Column::shrinking("RULE"),
        Column::fixed("MODE"),
        Column::number("DENIED"),
        Column::number("WOULD-DENY"),
        Column::shrinking("BY"),
    ];
    let row = |one: &RuleSummary| {
        // Where all is by one, that one; else what each is for.
        let by: Vec<_> = one
            .means
            .iter()
            .map(|(means, what)| match one.means.len() {
                1 => means.clone(),
                _ => format!("{means}: {}", what.join(" ")),
            })
            .collect();
        vec![
            one.name.clone(),
            if one.disarmed {
                "disarmed".to_owned()
            } else {
                one.mode.clone()
            },
            one.denied.to_string(),
            one.would_deny.to_string(),
            by.join("; "),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    render(&columns, &rows, output::width())
}
