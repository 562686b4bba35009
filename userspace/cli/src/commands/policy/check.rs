//! `paddock policy check`: a file in words, and what becomes of it on this kernel.
//!
//! What a kernel can do only its agent knows. Where none answers the language alone is checked,
//! which is said on stderr and changes nothing else.

use std::{fmt::Write as _, path::Path};

use hyper::Method;
use paddock_agent::api::{PolicyCheck, RuleSummary};
use paddock_policy::{Policy, head, model::Verb, rule_words};
use serde::Serialize;

use super::load;
use crate::{
    client::{Client, Error},
    exit, human,
    output::{self, Format, print, print_json},
};

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One good file.
#[derive(Serialize)]
struct Report<'p> {
    name: &'p str,
    file: &'p str,
    words: Vec<String>,
    /// Absent where no agent answers.
    here: Option<PolicyCheck>,
}

impl Check {
    pub(super) fn run(&self, state_dir: &Path) -> anyhow::Result<u8> {
        let (loaded, code) = load(&self.files);
        let mut agent = Agent::new(state_dir);
        let mut reports = Vec::new();
        for one in &loaded {
            reports.push(Report {
                name: &one.policy.name,
                file: one.file,
                words: one.policy.rules.iter().map(rule_words).collect(),
                here: agent.check(&one.text)?,
            });
        }
        match self.format {
            Format::Json => print_json(&reports)?,
            Format::Table => {
                let told = loaded.iter().zip(&reports);
                let text: String = told
                    .map(|(one, report)| text(&one.policy, report.here.as_ref()))
                    .collect();
                print(&text)?;
            }
        }
        if !loaded.is_empty()
            && let Some(why) = agent.silent
        {
            exit::note(&format!("{why}: only the language was checked"));
        }
        Ok(code)
    }
}

/// Asked until it does not answer.
struct Agent<'s> {
    state_dir: &'s Path,
    silent: Option<String>,
}

impl<'s> Agent<'s> {
    const fn new(state_dir: &'s Path) -> Self {
        Self {
            state_dir,
            silent: None,
        }
    }

    fn check(&mut self, text: &[u8]) -> anyhow::Result<Option<PolicyCheck>> {
        if self.silent.is_some() {
            return Ok(None);
        }
        let client = Client::new(self.state_dir)?;
        match client.file(Method::POST, "/v1/policies/check", text.to_vec()) {
            Ok(check) => Ok(Some(check)),
            Err(Error::NoAgent { socket, source }) => {
                self.silent = Some(why(&socket, &source));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn why(socket: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "only root may ask the agent".to_owned(),
        _ => format!("no agent answers on {}", socket.display()),
    }
}

fn text(policy: &Policy, here: Option<&PolicyCheck>) -> String {
    let width = output::width();
    let mut text = human::wrap(&head(policy), width);
    for rule in &policy.rules {
        text += &human::wrap(&format!("  {}", rule_words(rule)), width);
        let found = here.filter(|_| rule.verb == Verb::Deny);
        let found = found.and_then(|here| here.rules.iter().find(|one| one.name == rule.name));
        if let Some(found) = found {
            text += &human::wrap(&format!("      here: {}", means(found)), width);
        }
    }
    if let Some(here) = here {
        let end = match &here.refused {
            Some(reason) => format!("  here: `policy apply` refuses it: {reason}"),
            None => "  here: `policy apply` puts it in force".to_owned(),
        };
        text += &human::wrap(&end, width);
    }
    text
}

/// `refused (lsm): setns, unshare; only counted (count): clone`; of what is by one means alone,
/// that.
fn means(rule: &RuleSummary) -> String {
    let mut text = String::new();
    if rule.mode == "audit" {
        text.push_str("counted; in enforce ");
    }
    for (index, (means, what)) in rule.means.iter().enumerate() {
        let says = match means.as_str() {
            "lsm" => "refused (lsm)",
            "cgroup" => "refused (cgroup)",
            "seccomp" => "refused where paddock launched it (seccomp)",
            "sigkill" => "killed once it is done (sigkill)",
            "count" => "only counted (count)",
            "unseen" => "not seen (unseen)",
            other => other,
        };
        let separator = if index == 0 { "" } else { "; " };
        let _ = write!(text, "{separator}{says}");
        if rule.means.len() > 1 {
            let _ = write!(text, ": {}", what.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(mode: &str, means: &[(&str, &[&str])]) -> RuleSummary {
        let owned = |(means, what): &(&str, &[&str])| {
            let what = what.iter().map(|one| (*one).to_owned());
            ((*means).to_owned(), what.collect())
        };
        RuleSummary {
            name: "r".into(),
            mode: mode.into(),
            disarmed: false,
            means: means.iter().map(owned).collect(),
            denied: 0,
            would_deny: 0,
        }
    }

    #[test]
    fn what_is_by_one_means_needs_no_list() {
        let one = rule("enforce", &[("lsm", &["mount", "open_tree"])]);
        assert_eq!(means(&one), "refused (lsm)");
        let two = rule("audit", &[("sigkill", &["setns"]), ("count", &["clone"])]);
        assert_eq!(
            means(&two),
            "counted; in enforce only counted (count): clone; killed once it is done (sigkill): setns"
        );
    }
}
