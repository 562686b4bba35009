//! Runs scenarios one after the other and looks afterwards for what each left behind: a leak
//! fails the scenario that made it.
//!
//! Most share one agent, which is what costs time where a guest has no hardware help. When the
//! last of them is done it has to end without a trace; then come those that want to be alone.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use anyhow::{Result, anyhow, bail};

use crate::{
    context::Context,
    corpus::{self, Case, Mode},
    kernels,
    leaks::Snapshot,
};

/// One scenario: `area::name`, and what to do.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    work: Work,
    alone: bool,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Function(fn(&Context) -> Result<()>),
    Case(&'static Case, Mode),
}

impl Work {
    fn run(self, context: &Context) -> Result<()> {
        match self {
            Self::Function(run) => run(context),
            Self::Case(case, mode) => corpus::run(context, case, mode),
        }
    }
}

impl Scenario {
    pub const fn new(name: &'static str, run: fn(&Context) -> Result<()>) -> Self {
        Self {
            name,
            work: Work::Function(run),
            alone: false,
        }
    }

    /// One of the corpus.
    pub const fn of_case(name: &'static str, case: &'static Case, mode: Mode) -> Self {
        Self {
            name,
            work: Work::Case(case, mode),
            alone: false,
        }
    }

    /// In a state directory of its own, without an agent before it starts one: for what ends
    /// agents, starts them otherwise or does without, and for counts of the whole host.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }
}

/// Runs those whose name contains `filter`; `true` when all passed and at least one ran.
pub fn run(scenarios: &[Scenario], filter: &str) -> bool {
    let chosen = scenarios
        .iter()
        .filter(|scenario| scenario.name.contains(filter));
    let (alone, together): (Vec<_>, Vec<_>) = chosen.partition(|scenario| scenario.alone);
    let mut tally = Tally::default();
    if !together.is_empty() {
        tally.together(&together);
    }
    for scenario in alone {
        tally.run(scenario.name, || {
            observed(&Snapshot::take()?, Context::new()?, scenario)
        });
    }
    tally.report()
}

/// A step's name, and what is done and seen.
pub type Step = (&'static str, fn() -> Result<()>);

/// Runs steps that stand on one another, up to the first that fails.
pub fn in_order(steps: &[Step]) -> bool {
    let mut tally = Tally::default();
    for (name, step) in steps {
        tally.run(name, step);
        if !tally.failed.is_empty() {
            break;
        }
    }
    tally.report()
}

#[derive(Default)]
struct Tally {
    passed: u32,
    /// Each with its reason.
    failed: Vec<String>,
}

impl Tally {
    /// That the shared agent starts, and ends without a trace, is a scenario as well.
    fn together(&mut self, scenarios: &[&Scenario]) {
        const NAME: &str = "shared_agent::leaves_nothing";
        let started = Snapshot::take().and_then(|before| Ok((before, Context::with_agent()?)));
        let (before, host) = match started {
            Ok(started) => started,
            Err(error) => return self.run(NAME, || Err(error)),
        };
        for scenario in scenarios {
            self.run(scenario.name, || {
                observed(&Snapshot::take()?, Context::beside(&host)?, scenario)
            });
        }
        self.run(NAME, || {
            observed(&before, host, &Scenario::new(NAME, corpus::lift))
        });
    }

    fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("test {name} ...");
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok ({seconds:.1} s)");
            }
            Err(error) => {
                println!("test {name} ... FAILED ({seconds:.1} s)\n    {error:#}");
                self.failed.push(format!("{name}: {}", error.root_cause()));
            }
        }
    }

    fn report(&self) -> bool {
        println!();
        for one in &self.failed {
            println!("failed: {}", one.replace('\n', " | "));
        }
        println!("\n{} passed, {} failed", self.passed, self.failed.len());
        self.failed.is_empty() && self.passed > 0
    }
}

/// Runs it, closes its context and compares with `before`.
fn observed(before: &Snapshot, context: Context, scenario: &Scenario) -> Result<()> {
    let lacking = kernels::lacking(scenario.name)?;
    let result = catch_unwind(AssertUnwindSafe(|| scenario.work.run(&context)))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", message(&*panic))));
    let result = kernels::judge(lacking.as_deref(), result);
    let agent = context.agent_log();
    let closed = context.close();
    let left = before.what_is_new();
    if let Err(error) = result {
        return Err(error.context(format!("the agent's log:\n{agent}")));
    }
    closed?;
    if !left.is_empty() {
        bail!("left behind:\n        {}", left.join("\n        "));
    }
    Ok(())
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}
