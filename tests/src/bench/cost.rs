//! What the kernel half costs calls, outside of containers and inside, attached and not, in turn.

use std::{collections::BTreeMap, path::PathBuf, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result};

use super::{number, quantile};
use crate::context::{Context, pure_v2};

/// Each with its share of the calls.
const CALLS: [(&str, u32); 6] = [
    ("getppid", 1),
    ("open", 10),
    ("setns", 10),
    ("unshare", 10),
    ("packet", 10),
    ("spawn", 1000),
];
const SETTLED: Duration = Duration::from_secs(3);
const WHERE: [&str; 2] = ["outside", "inside"];

/// Prints the table. `calls` is how many of the cheapest.
pub fn table(context: &Context, rounds: u32, calls: u32) -> Result<()> {
    // Goes on while no agent runs: what is inside its cgroup is measured without, too.
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "inside", "host", "sleep", "36000"])?;
    let said = context.inspect("inside")?;
    let rung = rung_of(context)?;
    context.stop_agent()?;
    let cgroup = said["cgroup"].as_str().context("no cgroup")?;
    let root = PathBuf::from(if pure_v2() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    });
    let procs = root.join(cgroup).join("cgroup.procs");
    // The machine settles: some kernels patch and calibrate in their first second.
    measure(context, None, "getppid", calls)?;
    let mut results: BTreeMap<(&str, &str, bool), Vec<f64>> = BTreeMap::new();
    for round in 0..2 * rounds {
        let attached = round % 2 == 1;
        if attached {
            context.start_agent(&["--detach-on-exit"])?;
        }
        // What an agent begins with is over, and the kernel has let go of the last one's programs.
        thread::sleep(SETTLED);
        // Nobody's first: what containers do keeps the agent at work for a while after it.
        for place in WHERE {
            for (call, share) in CALLS {
                let inside = (place == "inside").then_some(&procs);
                let took = measure(context, inside, call, (calls / share).max(1))?;
                results
                    .entry((call, place, attached))
                    .or_default()
                    .push(took);
            }
        }
        if attached {
            context.stop_agent()?;
        }
    }
    println!("setns and unshare by {rung}\n");
    println!("call     where    without ns     with ns  difference ns   ratio");
    for (call, _) in CALLS {
        for place in WHERE {
            let mut of = |attached| {
                let values = results.get_mut(&(call, place, attached));
                values.map_or(f64::NAN, |values| quantile(values, 500))
            };
            let (without, with) = (of(false), of(true));
            println!(
                "{call:<8} {place:<8} {without:>10.1}  {with:>10.1}  {:>13.1}  {:.4}",
                with - without,
                with / without
            );
        }
    }
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["rm", "-f", "inside"])?;
    context.stop_agent()?;
    Ok(())
}

fn measure(context: &Context, inside: Option<&PathBuf>, call: &str, calls: u32) -> Result<f64> {
    let workload = context.workload.display();
    let enter = inside.map_or_else(String::new, |procs| {
        format!("echo $$ >{} && ", procs.display())
    });
    let line = format!("{enter}exec {workload} timed {call} {calls}");
    number(Command::new("sh").args(["-c", &line]))
}

fn rung_of(context: &Context) -> Result<String> {
    let report = context.json(&["check", "--format", "json"])?;
    let all = report["capabilities"]
        .as_array()
        .context("no capabilities")?;
    let setns = all
        .iter()
        .find(|one| one["capability"] == "setns")
        .context("no setns")?;
    Ok(setns["rung"].as_str().unwrap_or("off").to_owned())
}
