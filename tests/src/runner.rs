//! Runs scenarios one after the other, each in a state directory of its own, and looks
//! afterwards for what it left behind: a leak fails the scenario that made it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use anyhow::{Result, anyhow, bail};

use crate::{context::Context, leaks::Snapshot};

/// One scenario: `area::name`, and what to do.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Context) -> Result<()>,
}

/// Runs those whose name contains `filter`; `true` when all passed and at least one ran.
pub fn run(scenarios: &[Scenario], filter: &str) -> bool {
    let (mut passed, mut failed) = (0_u32, Vec::new());
    for scenario in scenarios
        .iter()
        .filter(|scenario| scenario.name.contains(filter))
    {
        println!("test {} ...", scenario.name);
        let start = Instant::now();
        let result = one(scenario);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", scenario.name);
            }
            Err(error) => {
                println!(
                    "test {} ... FAILED ({seconds:.1} s)\n    {error:#}",
                    scenario.name
                );
                failed.push(scenario.name);
            }
        }
    }
    if !failed.is_empty() {
        println!("\nfailed:");
        for name in &failed {
            println!("    {name}");
        }
    }
    println!("\n{passed} passed, {} failed", failed.len());
    failed.is_empty() && passed > 0
}

fn one(scenario: &Scenario) -> Result<()> {
    let before = Snapshot::take()?;
    let context = Context::new()?;
    let result = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&context)))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", message(&*panic))));
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
