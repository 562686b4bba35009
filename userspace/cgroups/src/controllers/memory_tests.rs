//! Limits and readings over directories that stand for a cgroup.

use super::*;
use crate::fixture::Dir;

const MIB: u64 = 1 << 20;

fn place(dir: &Dir, version: Version) -> Place {
    Place {
        dir: dir.path().to_owned(),
        version,
    }
}

fn v2() -> Dir {
    let dir = Dir::new();
    dir.file("memory.max", "max\n");
    dir.file("memory.swap.max", "max\n");
    dir
}

#[test]
fn v2_swap_is_the_difference() {
    let dir = v2();
    let total = i64::try_from(96 * MIB).unwrap();
    apply(&place(&dir, Version::V2), Some(64 * MIB), Some(total)).unwrap();
    assert_eq!(dir.read("memory.max"), (64 * MIB).to_string());
    assert_eq!(dir.read("memory.swap.max"), (32 * MIB).to_string());
}

#[test]
fn v2_equal_values_write_zero_and_minus_one_writes_max() {
    let dir = v2();
    let bytes = i64::try_from(64 * MIB).unwrap();
    apply(&place(&dir, Version::V2), Some(64 * MIB), Some(bytes)).unwrap();
    assert_eq!(dir.read("memory.swap.max"), "0");
    apply(&place(&dir, Version::V2), Some(64 * MIB), Some(-1)).unwrap();
    assert_eq!(dir.read("memory.swap.max"), "max");
}

#[test]
fn v2_without_swap_files_only_an_amount_fails() {
    let dir = Dir::new();
    dir.file("memory.max", "max\n");
    let place = place(&dir, Version::V2);
    apply(&place, Some(4096), Some(-1)).unwrap();
    apply(&place, Some(4096), Some(4096)).unwrap();
    assert!(apply(&place, Some(4096), Some(8192)).is_err());
}

#[test]
fn swap_below_memory_or_alone_is_refused_before_any_write() {
    let dir = v2();
    let place = place(&dir, Version::V2);
    for (memory, swap) in [(Some(8192), 4096), (None, 4096), (Some(4096), -2)] {
        assert!(matches!(
            apply(&place, memory, Some(swap)),
            Err(Error::Limit { .. })
        ));
    }
    assert_eq!(dir.read("memory.max"), "max\n");
    assert_eq!(dir.read("memory.swap.max"), "max\n");
}

#[test]
fn v1_writes_both_files_when_raising_and_when_lowering() {
    let dir = Dir::new();
    dir.file("memory.limit_in_bytes", "9223372036854771712\n");
    dir.file("memory.memsw.limit_in_bytes", "9223372036854771712\n");
    let place = place(&dir, Version::V1);
    for mib in [64, 32, 128] {
        let total = i64::try_from(2 * mib * MIB).unwrap();
        apply(&place, Some(mib * MIB), Some(total)).unwrap();
        assert_eq!(dir.read("memory.limit_in_bytes"), (mib * MIB).to_string());
        assert_eq!(
            dir.read("memory.memsw.limit_in_bytes"),
            (2 * mib * MIB).to_string()
        );
    }
}

#[test]
fn whole_pages_and_no_limit_count_as_kept() {
    let page = procfs::page_size();
    assert!(same_limit(Some(5 * page + 1), &(5 * page).to_string()));
    assert!(!same_limit(Some(5 * page), &(4 * page).to_string()));
    assert!(same_limit(None, "max"));
    assert!(same_limit(None, "9223372036854771712"));
    assert!(same_limit(Some(u64::MAX), "9223372036854771712"));
    assert!(!same_limit(Some(page), "max"));
}

#[test]
fn readings_of_both_versions() {
    let dir = Dir::new();
    dir.file("memory.usage_in_bytes", "1000\n");
    dir.file("memory.max_usage_in_bytes", "2000\n");
    dir.file("memory.limit_in_bytes", "9223372036854771712\n");
    dir.file(
        "memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    );
    dir.file("memory.stat", "inactive_file 9\ntotal_inactive_file 400\n");
    let mut found = Stats::default();
    stats(&place(&dir, Version::V1), &mut found).unwrap();
    assert_eq!(found.memory_working_set_bytes, Some(600));
    assert_eq!(found.memory_limit_bytes, None);
    assert_eq!(found.memory_oom_kills, Some(3));

    dir.file("memory.current", "1000\n");
    dir.file("memory.max", "4096\n");
    dir.file("memory.events", "oom 7\noom_kill 2\noom_group_kill 0\n");
    let mut found = Stats::default();
    stats(&place(&dir, Version::V2), &mut found).unwrap();
    assert_eq!(found.memory_working_set_bytes, Some(991));
    assert_eq!(found.memory_limit_bytes, Some(4096));
    assert_eq!(found.memory_oom_kills, Some(2));
    assert_eq!(found.memory_peak_bytes, None);
}
