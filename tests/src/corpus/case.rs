//! What a case is: read from the files in `tests/corpus`, which are part of the program.

use std::sync::LazyLock;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::stage::Facts;

const ATTACKS: &[(&str, &str)] = &[
    (
        "namespaces",
        include_str!("../../corpus/attacks/namespaces.toml"),
    ),
    (
        "processes",
        include_str!("../../corpus/attacks/processes.toml"),
    ),
    ("files", include_str!("../../corpus/attacks/files.toml")),
    ("cgroups", include_str!("../../corpus/attacks/cgroups.toml")),
    ("kernel", include_str!("../../corpus/attacks/kernel.toml")),
    ("runtime", include_str!("../../corpus/attacks/runtime.toml")),
];
const SAID: &str = "said";
const TWINS: &[(&str, &str)] = &[
    (
        "namespaces",
        include_str!("../../corpus/twins/namespaces.toml"),
    ),
    (
        "processes",
        include_str!("../../corpus/twins/processes.toml"),
    ),
    ("files", include_str!("../../corpus/twins/files.toml")),
    ("kernel", include_str!("../../corpus/twins/kernel.toml")),
    ("tools", include_str!("../../corpus/twins/tools.toml")),
];

/// One attack or twin. `{…}` in flags, programs and outputs stands for what [`super::stage`]
/// provides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// What is done and why that is an attack, or why it is none.
    pub what: String,
    /// CVEs, techniques, tools that it is known by.
    #[serde(default)]
    pub known: Vec<String>,
    /// Of `paddock run`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// System calls, as `program` has them.
    #[serde(default)]
    pub calls: Vec<String>,
    /// A shell's script; with both, it starts the calls as /run/calls.
    pub script: Option<String>,
    /// Its standard output, each line's spaces made one.
    pub says: Vec<String>,
    #[serde(default)]
    pub code: i32,
    /// A script on the host: while the container lives if it is `detached`, else at its end.
    pub host: Option<String>,
    #[serde(default)]
    pub host_says: Vec<String>,
    #[serde(default)]
    pub detached: bool,
    /// `ACTIVITY TARGET VERDICT [xCOUNT]`: all that is not benign, and nothing else.
    #[serde(default)]
    pub expect: Vec<String>,
    /// Where it is otherwise.
    #[serde(default)]
    pub but: Vec<Exception>,
    /// Under the pack `escape` in enforce, where the kernel asks its security modules; without,
    /// it is as above. The first whose `on` holds.
    #[serde(default)]
    pub denied: Vec<Outcome>,
    /// The same where it does not ask.
    #[serde(default)]
    pub killed: Vec<Outcome>,
}

/// What comes of a case that a policy is against.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// As in [`Exception`], without `said`; always where there is none.
    pub on: Option<String>,
    /// Where it is weaker than a refusal.
    pub why: Option<String>,
    pub says: Vec<String>,
    #[serde(default)]
    pub code: i32,
    pub host_says: Option<Vec<String>>,
    /// Denials, kills among them.
    pub denials: u32,
}

/// What is otherwise where a fact holds, and why; the first that holds counts. On `said` it is
/// the kernel's answer that decides: when it says this, that is expected of paddock.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// See [`Facts::hold`].
    pub on: String,
    pub why: String,
    pub says: Option<Vec<String>>,
    pub code: Option<i32>,
    pub host_says: Option<Vec<String>>,
    pub expect: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

impl Case {
    /// The case as it is on this machine.
    pub(super) fn here(&self, facts: &Facts) -> Result<Self> {
        let mut here = self.clone();
        for one in self.but.iter().filter(|one| one.on != SAID) {
            let holds = facts.hold(&one.on);
            if holds.with_context(|| format!("{}: {}", self.name, one.on))? {
                here.take(one);
                break;
            }
        }
        Ok(here)
    }

    /// What comes of it under a policy; nothing is said where it goes on as without.
    pub(super) fn outcome(&self, facts: &Facts) -> Result<Option<Outcome>> {
        let all = if facts.asks() {
            &self.denied
        } else {
            &self.killed
        };
        for one in all {
            let holds = one.on.as_deref().map(|on| facts.hold(on));
            if holds.transpose()?.unwrap_or(true) {
                return Ok(Some(one.clone()));
            }
        }
        Ok(None)
    }

    /// The case as it is where the program answers so.
    pub(super) fn when_it_says(mut self, answer: impl Fn(&[String]) -> bool) -> Self {
        let other = self.but.iter().find(|one| {
            let says = one.says.as_deref().unwrap_or_default();
            one.on == SAID && answer(says)
        });
        if let Some(other) = other.cloned() {
            self.take(&other);
        }
        self
    }

    fn take(&mut self, other: &Exception) {
        let put = |to: &mut Vec<String>, from: &Option<Vec<String>>| {
            if let Some(from) = from {
                to.clone_from(from);
            }
        };
        put(&mut self.says, &other.says);
        put(&mut self.host_says, &other.host_says);
        put(&mut self.expect, &other.expect);
        self.code = other.code.unwrap_or(self.code);
    }
}

/// A case with the names of its scenarios.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: String,
    pub enforced: String,
    pub case: Case,
}

pub fn all() -> &'static [Named] {
    static ALL_CASES: LazyLock<Vec<Named>> = LazyLock::new(|| {
        let attacks = read("attacks", ATTACKS);
        let twins = read("twins", TWINS);
        let read = attacks.and_then(|attacks| Ok([attacks, twins?].concat()));
        // The files are part of this program: its unit test reads them first.
        read.unwrap_or_else(|error| panic!("tests/corpus: {error:#}"))
    });
    &ALL_CASES
}

fn read(kind: &str, files: &[(&str, &str)]) -> Result<Vec<Named>> {
    let mut all = Vec::new();
    for (file, text) in files {
        let parsed: File = toml::from_str(text).with_context(|| format!("{kind}/{file}.toml"))?;
        for case in parsed.case {
            let name = format!("corpus::{kind}::{}", case.name);
            ensure!(
                !case.calls.is_empty() || case.script.is_some(),
                "{name}: does nothing"
            );
            all.push(Named {
                enforced: format!("corpus::enforced::{kind}::{}", case.name),
                name,
                case,
            });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::corpus::judge::Told;

    #[test]
    fn the_corpus_is_whole() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|one| &one.case.name).collect();
        assert_eq!(names.len(), all.len(), "two cases have one name");
        for kind in ["attacks", "twins"] {
            let count = all.iter().filter(|one| one.name.contains(kind)).count();
            assert!(count >= 40, "{count} {kind}");
        }
    }

    #[test]
    fn attacks_are_told_and_twins_are_no_attempts() {
        for Named { name, case, .. } in all() {
            let others = case.but.iter().flat_map(|one| &one.expect);
            for expect in others.chain([&case.expect]) {
                Told::expected(expect).unwrap();
                let serious = expect.iter().any(|line| line.contains(" escape"));
                assert!(!serious || name.contains("attacks"), "{name}");
            }
            assert!(!case.expect.is_empty() || name.contains("twins"), "{name}");
        }
    }
}
