//! What a policy in force costs calls inside a container, and how long a swap takes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::quantile;
use crate::{
    context::{Context, finish},
    scenarios::{kernel::host_way, policy::enforced},
};

/// Nets that policies forbid, none of them the loopback's.
const NETS: u32 = 1000;
const WALLS: &str = "name = \"bench\"\nmode = \"enforce\"\n\
    [[rule]]\nname = \"joining\"\nnamespace = { target = [\"host\", \"peer\"] }\n";

/// A call, by which flags it is what is compared with, and by which policy what it costs.
struct Row {
    name: &'static str,
    call: &'static str,
    share: u32,
    /// Of `paddock run` for the call without policy, and under it; none is outside of containers.
    flags: [Option<&'static [&'static str]>; 2],
    /// In force for the first of the two.
    base: Option<&'static str>,
    /// Without one it is the container alone.
    policy: Option<fn() -> String>,
}

/// Calls that rules by path are about, which the kernel has to ask for.
const BY_PATH: [&str; 2] = ["open-file", "open-mounted"];

const ABLE: &[&str] = &["--userns", "host", "--cap-add", "SYS_ADMIN"];
/// Nothing but the kernel refuses: the default filter would be first.
const UNABLE: &[&str] = &["--userns", "host", "--security-opt", "seccomp=unconfined"];
const PLAIN: &[&str] = &["--userns", "host"];

const ROWS: [Row; 9] = [
    Row {
        name: "setns, one's own, no policy, beside outside",
        call: "setns",
        share: 10,
        flags: [None, Some(ABLE)],
        base: None,
        policy: None,
    },
    Row {
        name: "setns, one's own",
        call: "setns",
        share: 10,
        flags: [Some(ABLE), Some(ABLE)],
        base: None,
        policy: Some(|| WALLS.to_owned()),
    },
    Row {
        name: "setns, the host's, beside the kernel's EPERM",
        call: "refused",
        share: 10,
        flags: [Some(UNABLE), Some(ABLE)],
        base: None,
        policy: Some(|| WALLS.to_owned()),
    },
    Row {
        name: "connect under 1,000 nets",
        call: "connect",
        share: 2,
        flags: [Some(PLAIN), Some(PLAIN)],
        base: None,
        policy: Some(|| nets(0)),
    },
    Row {
        name: "open under a policy without paths",
        call: BY_PATH[0],
        share: 2,
        flags: [Some(PLAIN), Some(PLAIN)],
        base: None,
        policy: Some(|| WALLS.to_owned()),
    },
    Row {
        name: "under 100 paths, none of them near, beside it",
        call: BY_PATH[0],
        share: 2,
        flags: [Some(PLAIN), Some(PLAIN)],
        base: Some(WALLS),
        policy: Some(|| paths("/srv")),
    },
    Row {
        name: "in their directory, beside it",
        call: BY_PATH[0],
        share: 2,
        flags: [Some(PLAIN), Some(PLAIN)],
        base: Some(WALLS),
        policy: Some(|| paths("/bin")),
    },
    Row {
        name: "of a file mounted on a mount, beside it",
        call: BY_PATH[1],
        share: 2,
        flags: [Some(PLAIN), Some(PLAIN)],
        base: Some(WALLS),
        policy: Some(|| paths("/run")),
    },
    Row {
        name: "open outside under 100 paths, beside it",
        call: BY_PATH[0],
        share: 2,
        flags: [None, None],
        base: Some(WALLS),
        policy: Some(|| paths("/bin")),
    },
];

/// Prints both tables. `calls` is how many of the cheapest.
pub fn table(context: &Context, rounds: u32, calls: u32, swaps: u32) -> Result<()> {
    context.start_agent(&["--detach-on-exit", "--event-rate", "0"])?;
    // The machine settles: some kernels patch and calibrate in their first second.
    timed(context, Some(PLAIN), "getppid", calls)?;
    let asks = enforced::asks(context)?;
    let mut results: BTreeMap<(&str, usize), Vec<f64>> = BTreeMap::new();
    let mut killed = Vec::new();
    for _ in 0..rounds {
        for row in ROWS
            .iter()
            .filter(|row| asks || !BY_PATH.contains(&row.call))
        {
            for (under, flags) in row.flags.iter().enumerate() {
                match (under, row.base, row.policy) {
                    (0, Some(base), _) => apply(context, base)?,
                    (1, _, Some(policy)) => apply(context, &policy())?,
                    _ => {}
                }
                match timed(context, *flags, row.call, (calls / row.share).max(1))? {
                    Some(took) => results.entry((row.name, under)).or_default().push(took),
                    None => killed.push(row.name),
                }
            }
            if row.policy.is_some() {
                context.ok(&["policy", "rm", "bench"])?;
            }
        }
    }
    println!("call                                           without ns    with ns  difference ns");
    for row in ROWS
        .iter()
        .filter(|row| asks || !BY_PATH.contains(&row.call))
    {
        let mut of = |under| {
            let values = results.get_mut(&(row.name, under));
            values.map_or(f64::NAN, |values| quantile(values, 500))
        };
        let (without, with) = (of(0), of(1));
        if killed.contains(&row.name) {
            println!("{:<46} {without:>10.1}     killed", row.name);
        } else {
            let difference = with - without;
            println!(
                "{:<46} {without:>10.1} {with:>10.1} {difference:>14.1}",
                row.name
            );
        }
    }
    swap(context, swaps)?;
    context.stop_agent().map(drop)
}

/// Two policies in each other's place, for a container that they hold for.
fn swap(context: &Context, swaps: u32) -> Result<()> {
    if swaps == 0 {
        return Ok(());
    }
    context.ok(&["run", "-d", "--name", "bound", "host", "sleep", "36000"])?;
    let files = [
        written(context, "one", &nets(0))?,
        written(context, "two", &nets(1))?,
    ];
    let mut took = Vec::new();
    for file in files.iter().cycle().take(swaps as usize) {
        let path = file.display().to_string();
        let start = Instant::now();
        context.ok(&["policy", "apply", &path])?;
        took.push(milliseconds(start.elapsed()));
    }
    for file in files {
        fs::remove_file(file)?;
    }
    context.ok(&["rm", "-f", "bound"])?;
    context.ok(&["policy", "rm", "bench"])?;
    let [half, most, worst] = [500, 990, 1000].map(|part| quantile(&mut took, part));
    println!("\nrules  swaps by `policy apply`    p50 ms    p99 ms    max ms");
    println!("{NETS:>5}  {swaps:>23}  {half:>8.1}  {most:>8.1}  {worst:>8.1}");
    Ok(())
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// A rule for each net; `which` makes another policy of it.
fn nets(which: u32) -> String {
    let mut text = String::from("name = \"bench\"\nmode = \"enforce\"\n");
    for net in 0..NETS {
        let (high, low) = (net / 256, net % 256);
        let octet = 10 + which;
        // A String takes all that is written.
        let _ = write!(
            text,
            "[[rule]]\nnetwork = {{ direction = \"egress\", net = \"{octet}.{high}.{low}.0/24\" }}\n"
        );
    }
    text
}

/// A hundred rules in a directory.
fn paths(directory: &str) -> String {
    let rule = |number| {
        format!("[[rule]]\nfile = {{ path = \"{directory}/{number}\", operation = \"read\" }}\n")
    };
    let rules: String = (0..100).map(rule).collect::<Vec<_>>().concat();
    format!("name = \"bench\"\nmode = \"enforce\"\n{rules}")
}

fn written(context: &Context, name: &str, text: &str) -> Result<PathBuf> {
    let path = context.state.with_extension(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn apply(context: &Context, text: &str) -> Result<()> {
    let path = written(context, "policy", text)?;
    let applied = context.ok(&["policy", "apply", &path.display().to_string()]);
    fs::remove_file(path)?;
    applied.map(drop)
}

/// Nanoseconds a call; nothing where it was killed for it.
fn timed(context: &Context, flags: Option<&[&str]>, call: &str, calls: u32) -> Result<Option<f64>> {
    let count = calls.to_string();
    let output = if let Some(flags) = flags {
        let (volume, way) = (context.workload_volume(), host_way("uts"));
        let mut args = vec!["run", "--rm", "--name", "timed", "-v", &volume, "-v", &way];
        args.extend(flags);
        args.extend(["host", "/run/workload", "timed", call, &count]);
        context.paddock(&args)?
    } else {
        finish(Command::new(&context.workload).args(["timed", call, &count]))?
    };
    if output.code == Some(137) {
        return Ok(None);
    }
    ensure!(output.code == Some(0), "{call}: {output:?}");
    let took = output.stdout.trim().parse();
    took.map(Some).with_context(|| format!("{output:?}"))
}
