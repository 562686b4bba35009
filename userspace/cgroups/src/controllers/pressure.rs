//! What a cgroup's tasks waited for (PSI): `cpu.pressure` and its like, in v2 without a controller.
//! <https://docs.kernel.org/accounting/psi.html>

use crate::{Error, Stats, file};

use super::Place;

pub(crate) fn stats(place: &Place, stats: &mut Stats) -> Result<(), Error> {
    let totals = &mut stats.totals;
    for (name, waiting, stalled) in [
        (
            "cpu.pressure",
            &mut totals.cpu_waiting_usec,
            &mut totals.cpu_stalled_usec,
        ),
        (
            "memory.pressure",
            &mut totals.memory_waiting_usec,
            &mut totals.memory_stalled_usec,
        ),
        (
            "io.pressure",
            &mut totals.io_waiting_usec,
            &mut totals.io_stalled_usec,
        ),
    ] {
        // A kernel may be built without, or have it turned off.
        let Some(text) = file::read_optional(&place.file(name))? else {
            return Ok(());
        };
        *waiting = total(&text, "some");
        *stalled = total(&text, "full");
    }
    Ok(())
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn total(text: &str, line: &str) -> Option<u64> {
    let mut lines = text.lines();
    let found = lines.find(|found| found.split(' ').next() == Some(line))?;
    let (_, total) = found.rsplit_once("total=")?;
    total.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Version, fixture::Dir};

    #[test]
    fn both_lines_of_each_file() {
        let dir = Dir::new();
        let place = Place {
            dir: dir.path().to_owned(),
            version: Version::V2,
        };
        let mut found = Stats::default();
        stats(&place, &mut found).unwrap();
        assert_eq!(found, Stats::default());
        // Before 5.13 a cpu has no full line.
        dir.file(
            "cpu.pressure",
            "some avg10=1.00 avg60=0.20 avg300=0.00 total=17\n",
        );
        dir.file(
            "memory.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
        );
        dir.file(
            "io.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        );
        stats(&place, &mut found).unwrap();
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
    }
}
