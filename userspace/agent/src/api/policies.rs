//! What is said of policies: those in force, a file on trial, why an act was decided as it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A policy in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicySummary {
    pub name: String,
    pub description: String,
    /// `audit`, `enforce`; rules may have modes of their own.
    pub mode: String,
    /// Those that forbid.
    pub rules: Vec<RuleSummary>,
    /// Names of those that it holds for.
    pub containers: Vec<String>,
}

/// A policy in force, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyDetail {
    #[serde(flatten)]
    pub summary: PolicySummary,
    /// `fail`, `audit`.
    pub when_unenforceable: String,
    pub overrides: PolicyOverrides,
    /// The file as it was applied.
    pub text: String,
}

/// What was said in place of a policy's file when it was put in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyOverrides {
    pub mode: Option<String>,
    pub when_unenforceable: Option<String>,
}

/// Why an act on record was, or is, decided as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    pub event: crate::event::Event,
    /// Rules in force now that hold for it, the one that decides first.
    pub rules: Vec<HeldRule>,
    /// Of a denial, whether it would be decided the same; absent where nobody knows what did.
    pub same: Option<bool>,
    /// For each policy that forbids it, what to write in its file to allow it.
    pub allow: Vec<Allow>,
    /// What is not known for sure.
    pub notes: Vec<String>,
}

/// A rule in force that holds for an act.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldRule {
    pub policy: String,
    pub rule: String,
    /// `allow`, `audit`, `deny`, `kill`.
    pub action: String,
    /// What it is about.
    pub about: String,
    /// Why it decides, or does not.
    pub why: String,
}

/// What lets an act pass a policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Allow {
    pub policy: String,
    /// This rule has to go; absent where lines at the file's end are enough.
    pub replaces: Option<String>,
    /// Empty where there is nothing to put in its place.
    pub lines: String,
}

/// What would become of a policy file on this kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyCheck {
    /// Those that forbid.
    pub rules: Vec<RuleSummary>,
    /// Why it would not be put in force.
    pub refused: Option<String>,
}

/// What becomes of a rule that forbids on this kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleSummary {
    pub name: String,
    /// `audit`, `enforce`.
    pub mode: String,
    /// It hit too many containers at once and went to audit by itself.
    #[serde(default)]
    pub disarmed: bool,
    /// Activities by what keeps them from happening: `lsm` and `cgroup` (refused), `sigkill` (whoever did it
    /// is killed before it returns to user space), `count` (nothing does), `unseen`.
    pub means: BTreeMap<String, Vec<String>>,
    /// Attempts that were refused or ended in a kill, of all containers that have series.
    pub denied: u64,
    /// What audit let through.
    pub would_deny: u64,
}
