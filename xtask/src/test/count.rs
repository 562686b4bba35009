//! Counts in the output of test programs.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    ops::AddAssign,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// What their lines say of those that failed.
    pub(super) failures: Vec<String>,
}

impl Count {
    /// What could not be run.
    pub(super) const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        failures: Vec::new(),
    };

    /// Sums lines such as `3 passed, 1 failed`, and libtest's `test result: ok. 3 passed; 1 failed; …`.
    pub(super) fn of(output: &str) -> Self {
        let mut sum = Self::default();
        output.lines().for_each(|line| sum.add(line));
        sum
    }

    fn add(&mut self, line: &str) {
        if let Some((passed, failed)) = Self::sums(line) {
            self.passed += passed;
            self.failed += failed;
        }
        // A scenario's with its reason, or a unit test's.
        let unit = line.strip_suffix(" ... FAILED");
        if let Some(failure) = line.strip_prefix("failed: ").or(unit) {
            self.failures.push(failure.to_owned());
        }
    }

    fn sums(line: &str) -> Option<(u64, u64)> {
        let text = match line.strip_prefix("test result: ") {
            Some(rest) => rest.split_once(". ")?.1,
            None => line,
        };
        let mut words = text.split([' ', ',', ';']).filter(|word| !word.is_empty());
        let passed = words.next()?.parse().ok()?;
        (words.next()? == "passed").then_some(())?;
        let failed = words.next()?.parse().ok()?;
        (words.next()? == "failed").then_some((passed, failed))
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Runs a test program with its output streamed; one that fails without saying so counts as a failure.
pub(super) fn follow(command: &mut Command) -> Result<Count> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {name}"))?;
    let mut count = Count::default();
    let mut reader = BufReader::new(child.stdout.take().context("a pipe from it")?);
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .with_context(|| format!("read from {name}"))?
        > 0
    {
        let mut out = std::io::stdout();
        // Whoever reads it may have gone; the tests go on.
        let _ = out.write_all(&line).and_then(|()| out.flush());
        count.add(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    let status = child.wait().with_context(|| format!("wait for {name}"))?;
    if !status.success() && count.failed == 0 {
        println!("{name}: {status}");
        count.failed += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_are_summed_and_prose_is_not() {
        let output = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored\n\
            5 passed, 1 failed\n\
            all passed, none failed\n\
            test unit::one ... FAILED\n\
            test area::two ... FAILED (1.0 s)\n\
            failed: area::two: why\n";
        let count = Count::of(output);
        assert_eq!((count.passed, count.failed), (9, 3));
        assert_eq!(count.failures, ["test unit::one", "area::two: why"]);
    }
}
