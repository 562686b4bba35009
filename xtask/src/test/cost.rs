//! What the hooks cost nobody's calls, in instructions, against `tests/hooks.toml`.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::count::Count;
use crate::{
    tree::Tree,
    vm::{self, initramfs::Contents, qemu::Machine},
};

const FILE: &str = "tests/hooks.toml";
const BENCH: &str = "paddock-bench-hooks";
/// Rounds, and calls of the cheapest.
const SIZE: &str = "1 50000";

/// What one kernel's guest is to count.
#[derive(Debug, Deserialize)]
struct Expected {
    release: String,
    #[serde(flatten)]
    calls: BTreeMap<String, f64>,
}

/// A comparison for each call that the file has of this kernel.
pub(super) fn compare(tree: &Tree, series: &str) -> Result<Count> {
    let path = tree.root.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut all: BTreeMap<String, Expected> =
        toml::from_str(&text).with_context(|| path.display().to_string())?;
    let expected = all
        .remove(series)
        .with_context(|| format!("{FILE} has no {series}"))?;
    let (release, table) = measure(tree, series)?;
    if release != expected.release {
        println!(
            "{FILE} is of {}, not of {release}: not compared",
            expected.release
        );
        return Ok(Count::default());
    }
    Ok(judge(&expected.calls, &table))
}

/// The guest's release, and the table that the bench prints.
fn measure(tree: &Tree, series: &str) -> Result<(String, String)> {
    let contents = Contents {
        command: Some(format!(
            "export PADDOCK_BIN=/usr/bin/paddock PADDOCK_WORKLOAD=/usr/bin/paddock-workload\n\
             uname -r\nexec {BENCH} {SIZE}\n"
        )),
        files: vec![(tree.binary(BENCH), format!("/usr/bin/{BENCH}"))],
        ..Contents::default()
    };
    let machine = Machine {
        timeout: Duration::from_mins(5),
        memory_mib: 2048,
        deterministic: true,
        interactive: false,
        quiet: true,
        label: String::new(),
    };
    let ended = vm::boot(tree, series, &contents, &machine)?;
    ensure!(ended.code()? == 0, "Linux {series}: {}", ended.output);
    let (release, table) = ended.output.split_once('\n').context("no release")?;
    Ok((release.trim().to_owned(), table.to_owned()))
}

fn judge(expected: &BTreeMap<String, f64>, table: &str) -> Count {
    let found: BTreeMap<&str, f64> = table.lines().filter_map(outside).collect();
    let mut count = Count::default();
    for (call, want) in expected {
        let got = found.get(call.as_str());
        if got.is_some_and(|got| (got - want).abs() <= want / 5.0 + 0.5) {
            count.passed += 1;
        } else {
            count.failed += 1;
            let got = got.map_or_else(|| "nothing".to_owned(), f64::to_string);
            count.failures.push(format!(
                "{call} outside costs {got} instructions more, not {want}: {FILE}"
            ));
        }
    }
    count
}

/// `setns    outside      1624.7      2610.6          985.9  1.6068`: the call and the difference.
fn outside(line: &str) -> Option<(&str, f64)> {
    let mut words = line.split_whitespace();
    let call = words.next()?;
    (words.next()? == "outside").then_some(())?;
    Some((call, words.nth(2)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_more_or_less_passes() {
        let table = "setns and unshare by fentry\n\n\
            call     where    without ns     with ns  difference ns   ratio\n\
            getppid  outside       337.7       337.7            0.0  1.0000\n\
            getppid  inside        338.2       338.1           -0.1  0.9997\n\
            setns    outside      1624.7      2610.6          985.9  1.6068\n";
        let judged = |call: &str, want: f64| {
            let expected = BTreeMap::from([(call.to_owned(), want)]);
            let count = judge(&expected, table);
            (count.passed, count.failed, count.failures.len())
        };
        assert_eq!(judged("getppid", 0.0), (1, 0, 0));
        assert_eq!(judged("getppid", 1.0), (0, 1, 1));
        assert_eq!(judged("setns", 830.0), (1, 0, 0));
        assert_eq!(judged("setns", 800.0), (0, 1, 1));
        assert_eq!(judged("setns", 1300.0), (0, 1, 1));
        assert_eq!(judged("open", 500.0), (0, 1, 1));
    }
}
