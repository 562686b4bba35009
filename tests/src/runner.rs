//! Runs scenarios one after another and says how each went.

use std::{
    fs,
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{sys::prctl, unistd::Uid};

use crate::{Ctx, leaks::Before};

/// Everything in a scenario has its own, shorter limit; past this one its state is unknown.
const TIMEOUT: Duration = Duration::from_secs(240);

/// A named function; the name says what is true when it passes.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Ctx) -> Result<()>,
}

/// Runs those whose name contains one of the filters (all without filters); whether all passed.
///
/// The last line is `N passed, N failed`.
pub fn run(scenarios: &[Scenario], filters: &[String]) -> Result<bool> {
    if !Uid::effective().is_root() {
        bail!("scenarios need root: run them by `sudo`");
    }
    prctl::set_child_subreaper(true).context("become the reaper of orphans")?;
    let chosen: Vec<&Scenario> = scenarios
        .iter()
        .filter(|one| filters.is_empty() || filters.iter().any(|filter| one.name.contains(filter)))
        .collect();
    let (mut passed, mut failed) = (0, 0);
    for (number, scenario) in chosen.iter().enumerate() {
        print!("test {} ... ", scenario.name);
        // A reader that went away is no reason to stop.
        let _ = io::stdout().flush();
        let start = Instant::now();
        let done = one(scenario, number);
        let took = start.elapsed().as_secs_f32();
        match done {
            Ok(()) => {
                passed += 1;
                println!("ok ({took:.1} s)");
            }
            Err(error) => {
                failed += 1;
                println!("FAILED ({took:.1} s)\n    {}", indent(&error));
                if error.is::<Stuck>() {
                    println!("the rest is not run");
                    failed += chosen.len() - number - 1;
                    break;
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

#[derive(Debug, thiserror::Error)]
#[error("no end after {} s", TIMEOUT.as_secs())]
struct Stuck;

fn one(scenario: &Scenario, number: usize) -> Result<()> {
    let ctx = Ctx::new(number)?;
    let before = Before::take();
    let (sender, receiver) = mpsc::channel();
    let (run, own) = (scenario.run, ctx.clone());
    // A thread of its own: a namespace that it joins is not the next scenario's.
    thread::spawn(move || {
        let done = catch_unwind(AssertUnwindSafe(|| run(&own)))
            .unwrap_or_else(|_| Err(anyhow!("panicked")));
        // Nobody listens after the time limit.
        let _ = sender.send(done);
    });
    let done = receiver.recv_timeout(TIMEOUT).map_err(|_| Stuck)?;
    let left = before.compare(&ctx);
    let removed =
        fs::remove_dir_all(&ctx.dir).with_context(|| format!("remove {}", ctx.dir.display()));
    match (done, left.as_slice()) {
        (Ok(()), []) => removed,
        (Ok(()), left) => Err(anyhow!("left behind:\n{}", left.join("\n"))),
        (Err(error), []) => Err(error),
        (Err(error), left) => Err(anyhow!("{error:#}\nand left behind:\n{}", left.join("\n"))),
    }
}

fn indent(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', "\n    ")
}
