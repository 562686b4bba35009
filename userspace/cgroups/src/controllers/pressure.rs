//! What a cgroup's tasks waited for (PSI): `cpu.pressure` and its like, in v2 without a controller.
//! <https://docs.kernel.org/accounting/psi.html>

use crate::{Error, Stats, readable::Readable};

pub(crate) fn stats(files: &Readable, stats: &mut Stats) -> Result<(), Error> {
    let totals = &mut stats.totals;
    for (name, waiting, stalled, now) in [
        (
            "cpu.pressure",
            &mut totals.cpu_waiting_usec,
            &mut totals.cpu_stalled_usec,
            &mut stats.cpu_waiting_avg10,
        ),
        (
            "memory.pressure",
            &mut totals.memory_waiting_usec,
            &mut totals.memory_stalled_usec,
            &mut stats.memory_waiting_avg10,
        ),
        (
            "io.pressure",
            &mut totals.io_waiting_usec,
            &mut totals.io_stalled_usec,
            &mut stats.io_waiting_avg10,
        ),
    ] {
        // A kernel may be built without, or have it turned off.
        let Some(text) = files.text(name)? else {
            return Ok(());
        };
        *waiting = word(&text, "some", "total=").and_then(|total| total.parse().ok());
        *stalled = word(&text, "full", "total=").and_then(|total| total.parse().ok());
        *now = word(&text, "some", "avg10=").and_then(hundredths);
    }
    Ok(())
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn word<'t>(text: &'t str, line: &str, key: &str) -> Option<&'t str> {
    let mut lines = text.lines().map(|found| found.split(' '));
    let mut words = lines.find_map(|mut words| (words.next() == Some(line)).then_some(words))?;
    words.find_map(|word| word.strip_prefix(key))
}

/// The kernel prints two places.
fn hundredths(percent: &str) -> Option<u32> {
    let (whole, part) = percent.split_once('.')?;
    let (whole, part): (u32, u32) = (whole.parse().ok()?, part.parse().ok()?);
    Some(whole * 100 + part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Version, fixture::Dir};

    #[test]
    fn both_lines_of_each_file() {
        let dir = Dir::new();
        let files = Readable::open(dir.path().to_owned(), Version::V2).unwrap();
        let mut found = Stats::default();
        stats(&files, &mut found).unwrap();
        assert_eq!(found, Stats::default());
        // Before 5.13 a cpu has no full line.
        dir.file(
            "cpu.pressure",
            "some avg10=1.07 avg60=0.20 avg300=0.00 total=17\n",
        );
        dir.file(
            "memory.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
        );
        dir.file(
            "io.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        );
        stats(&files, &mut found).unwrap();
        let totals = found.totals;
        assert_eq!(
            (totals.cpu_waiting_usec, totals.cpu_stalled_usec),
            (Some(17), None)
        );
        assert_eq!(
            (totals.memory_waiting_usec, totals.memory_stalled_usec),
            (Some(5), Some(3))
        );
        assert_eq!(totals.io_stalled_usec, Some(0));
        assert_eq!(
            (found.cpu_waiting_avg10, found.io_waiting_avg10),
            (Some(107), Some(0))
        );
    }
}
