//! `paddock policy show`: the text of what is in force, with what was said in its place.
//!
//! What is printed is a policy file again: all that is not the file's own is a comment.

use std::{fmt::Write as _, path::Path};

use anyhow::Context as _;
use paddock_agent::api::PolicyDetail;

use super::{PACK, read};
use crate::{
    client::{Client, encode},
    human,
    output::{self, Format, print, print_json},
};

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// One in force, or pack:NAME
    #[arg(value_name = "POLICY")]
    name: String,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Show {
    pub(super) fn wants_agent(&self) -> bool {
        !self.name.starts_with(PACK)
    }

    pub(super) fn run(&self, state_dir: &Path) -> anyhow::Result<u8> {
        if !self.wants_agent() {
            let text = String::from_utf8(read(&self.name)?);
            let text = text.with_context(|| format!("{}: not UTF-8", self.name))?;
            match self.format {
                Format::Json => print_json(&serde_json::json!({ "text": text }))?,
                Format::Table => print(&text)?,
            }
            return Ok(0);
        }
        let path = format!("/v1/policies/{}", encode(&self.name));
        let policy: PolicyDetail = Client::new(state_dir)?.get(&path)?;
        match self.format {
            Format::Json => print_json(&policy)?,
            Format::Table => print(&text(&policy))?,
        }
        Ok(0)
    }
}

fn text(policy: &PolicyDetail) -> String {
    let (summary, overrides) = (&policy.summary, &policy.overrides);
    let said = |word: &Option<String>| match word {
        Some(_) => " (said in place of the file)",
        None => "",
    };
    let mut text = format!(
        "# in force: mode {}{}, when_unenforceable {}{}\n",
        summary.mode,
        said(&overrides.mode),
        policy.when_unenforceable,
        said(&overrides.when_unenforceable),
    );
    let containers: Vec<String> = summary
        .containers
        .iter()
        .map(|name| human::printable(name))
        .collect();
    let containers = if containers.is_empty() {
        "none now".to_owned()
    } else {
        containers.join(", ")
    };
    let line = human::wrap(&format!("holds for: {containers}"), margin());
    for line in line.lines() {
        let _ = writeln!(text, "# {line}");
    }
    text.push_str(&policy.text);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Besides the sign of a comment.
fn margin() -> Option<usize> {
    output::width().map(|width| width.saturating_sub(2))
}

#[cfg(test)]
mod tests {
    use paddock_agent::api::{PolicyOverrides, PolicySummary};

    use super::*;

    #[test]
    fn it_is_a_file_again() {
        let policy = PolicyDetail {
            summary: PolicySummary {
                name: "p".into(),
                description: String::new(),
                mode: "enforce".into(),
                rules: Vec::new(),
                containers: vec!["a".into(), "b".into()],
            },
            when_unenforceable: "fail".into(),
            overrides: PolicyOverrides {
                mode: Some("enforce".into()),
                when_unenforceable: None,
            },
            text: "name = \"p\"\ndeny = [\"sysrq\"]".into(),
        };
        let text = text(&policy);
        let first = "# in force: mode enforce (said in place of the file), when_unenforceable fail\n# holds for: a, b\n";
        assert!(text.starts_with(first) && text.ends_with("]\n"), "{text}");
        assert_eq!(paddock_policy::parse(text.as_bytes()).unwrap().name, "p");
    }
}
