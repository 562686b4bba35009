//! The corpus under the pack `escape`: in audit nothing is otherwise than without, and what would
//! have been denied is counted; in enforce each attack ends where its case says, and nothing that
//! the pack forbids is done by a process that lives on.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use paddock_policy::{Policy, model::Match};
use serde_json::Value;

use super::{
    judge::{Tally, Told},
    run::Mode,
};
use crate::{context::Context, metrics::Metrics, scenarios::kernel::equal};

const HITS: &str = "paddock_container_policy_hits_total";
/// Containers of the corpus only: other scenarios share the agent.
const LABEL: &str = "corpus";

/// Those that are in force in the shared agent: one of each case's own would cost what the case
/// does.
static IN_FORCE: Mutex<BTreeSet<Mode>> = Mutex::new(BTreeSet::new());

/// The pack in force for containers of one label.
pub(super) struct UnderPolicy<'c> {
    context: &'c Context,
    name: String,
    policy: Policy,
}

impl<'c> UnderPolicy<'c> {
    pub(super) fn apply(context: &'c Context, mode: Mode) -> Result<Self> {
        let pack = paddock_policy::Pack::find("escape").context("no pack")?;
        let mode_name = mode.name();
        let name = format!("corpus-{mode_name}");
        let named = pack.text.replace(
            "name = \"escape\"",
            &format!("name = \"{name}\"\nselect = {{ label = {{ {LABEL} = \"{mode_name}\" }} }}"),
        );
        let policy = paddock_policy::parse(named.as_bytes())
            .map_err(|faults| anyhow::anyhow!("{}", faults.lines("pack")))?;
        let mut in_force = IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner);
        if !in_force.contains(&mode) {
            put_in_force(context, mode_name, &named)?;
            in_force.insert(mode);
        }
        drop(in_force);
        Ok(Self {
            context,
            name,
            policy,
        })
    }

    /// For `paddock run`.
    pub(super) fn flags(mode: Mode) -> [String; 2] {
        ["--label".to_owned(), format!("{LABEL}={}", mode.name())]
    }

    fn forbids(&self, told: &Told) -> bool {
        use paddock_policy::named::target_name;
        self.policy
            .rules
            .iter()
            .flat_map(|rule| &rule.matches)
            .any(|one| {
                let Match::Named(named) = one else {
                    return false;
                };
                named.cells().any(|(activity, target)| {
                    activity.name() == told.activity && target_name(target) == told.target
                })
            })
    }

    /// How many acts of a tally it forbids that were done.
    fn done(&self, tally: &Tally) -> u32 {
        let forbidden = tally
            .iter()
            .filter(|(told, _)| self.forbids(told) && was_done(told));
        forbidden.map(|(_, count)| count).sum()
    }

    /// Nothing was stopped, and as much counted as was done of what is forbidden.
    pub(super) fn audited(&self, container: &str, expect: &[String]) -> Result<()> {
        let want = self.done(&Told::expected(expect)?);
        let denials = self.denials(container, want)?;
        equal("told as would-deny", count(&denials, "audit"), want)?;
        let metrics = self.context.metrics()?;
        equal("would-deny", self.hits(&metrics, container, "audit"), want)?;
        let all = metrics.sum(HITS, &[("container", container)]);
        equal("hits of any kind", all, want)
    }

    /// As many were stopped as are to be, and nothing forbidden was done but what ended in a kill
    /// or can only be counted here.
    pub(super) fn enforced(&self, container: &str, want: u32) -> Result<()> {
        let denials = self.denials(container, want)?;
        let (denied, killed) = (count(&denials, "deny"), count(&denials, "kill"));
        let counted = count(&denials, "audit");
        equal("denials", denied + killed, want).with_context(|| format!("{denials:?}"))?;
        let metrics = self.context.metrics()?;
        for (action, count) in [("deny", denied), ("kill", killed), ("audit", counted)] {
            let hits = self.hits(&metrics, container, action);
            ensure!(
                (hits - count).abs() < 0.5,
                "{action}: {hits} counted, {count} told"
            );
        }
        let mut tally = Tally::new();
        for told in self.events(container)?.iter().filter_map(Told::of) {
            *tally.entry(told).or_default() += 1;
        }
        let done = f64::from(self.done(&tally));
        ensure!(
            (done - killed - counted).abs() < 0.5,
            "{done} forbidden acts done, {killed} kills, {counted} counted only: {tally:?}"
        );
        Ok(())
    }

    fn hits(&self, metrics: &Metrics, container: &str, action: &str) -> f64 {
        let labels = [
            ("container", container),
            ("policy", &*self.name),
            ("action", action),
        ];
        metrics.sum(HITS, &labels)
    }

    /// Those that are told, once they are as many as should be or no more come.
    fn denials(&self, container: &str, want: u32) -> Result<Vec<Value>> {
        let mut left = 40;
        loop {
            let events = self.events(container)?;
            let denials = events
                .into_iter()
                .filter(|event| event["event"] == "denial");
            let denials: Vec<_> = denials.collect();
            left -= 1;
            if denials.len() >= want as usize || left == 0 {
                return Ok(denials);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn events(&self, container: &str) -> Result<Vec<Value>> {
        let args = ["events", "--format", "json", "--container", container];
        let text = self.context.ok(&args)?;
        text.lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }
}

/// Before the agent ends.
pub fn lift(context: &Context) -> Result<()> {
    let mut in_force = IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner);
    let all = std::mem::take(&mut *in_force);
    drop(in_force);
    all.iter().try_for_each(|mode| {
        let name = format!("corpus-{}", mode.name());
        context.ok(&["policy", "rm", &name]).map(drop)
    })
}

fn put_in_force(context: &Context, mode: &str, text: &str) -> Result<()> {
    let path = context.state.with_extension("policy");
    std::fs::write(&path, text)?;
    let file = path.display().to_string();
    // Where nothing is asked before an act some are only counted; the cases say which.
    let args = [
        "policy",
        "apply",
        "--mode",
        mode,
        "--when-unenforceable",
        "audit",
        &file,
    ];
    let applied = context.ok(&args);
    std::fs::remove_file(&path)?;
    applied.map(drop)
}

fn count(denials: &[Value], action: &str) -> f64 {
    let of_it = denials.iter().filter(|one| one["action"] == action);
    of_it.map(|_| 1.0).sum()
}

/// By the table's verdict: a failure has another one wherever it matters here.
fn was_done(told: &Told) -> bool {
    use paddock_abi::activity::TABLE;
    use paddock_policy::named::{TARGETS, target_name};
    let row = TABLE.iter().find(|row| row.name == told.activity);
    let target = TARGETS
        .iter()
        .find(|target| target_name(**target) == told.target);
    row.zip(target)
        .is_some_and(|(row, target)| row.pair(*target).done.name() == told.verdict)
}
