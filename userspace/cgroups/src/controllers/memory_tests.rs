//! Limits and readings over directories that stand for a cgroup.

use super::*;
use crate::{change::execute, fixture::Dir};

const MIB: i64 = 1 << 20;

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

fn memory(limit: i64, swap: i64) -> MemoryLimits {
    MemoryLimits {
        limit: Some(limit),
        swap: Some(swap),
        ..MemoryLimits::default()
    }
}

fn write(place: &Place, limits: &MemoryLimits) -> Result<(), Error> {
    execute(plan(place, limits)?).map(drop)
}

#[test]
fn v2_swap_is_the_difference() {
    let dir = v2();
    write(&place(&dir, Version::V2), &memory(64 * MIB, 96 * MIB)).unwrap();
    assert_eq!(dir.read("memory.max"), (64 * MIB).to_string());
    assert_eq!(dir.read("memory.swap.max"), (32 * MIB).to_string());
}

#[test]
fn v2_equal_values_write_zero_and_minus_one_writes_max() {
    let dir = v2();
    write(&place(&dir, Version::V2), &memory(64 * MIB, 64 * MIB)).unwrap();
    assert_eq!(dir.read("memory.swap.max"), "0");
    write(&place(&dir, Version::V2), &memory(-1, -1)).unwrap();
    assert_eq!(dir.read("memory.swap.max"), "max");
    assert_eq!(dir.read("memory.max"), "max");
}

#[test]
fn v2_without_swap_files_only_an_amount_fails() {
    let dir = Dir::new();
    dir.file("memory.max", "max\n");
    let place = place(&dir, Version::V2);
    write(&place, &memory(4096, -1)).unwrap();
    write(&place, &memory(4096, 4096)).unwrap();
    assert!(write(&place, &memory(4096, 8192)).is_err());
}

#[test]
fn swap_below_memory_or_alone_is_refused_before_any_write() {
    let dir = v2();
    let place = place(&dir, Version::V2);
    let alone = MemoryLimits {
        limit: None,
        ..memory(0, 4096)
    };
    for limits in [
        memory(8192, 4096),
        alone,
        memory(-1, 4096),
        memory(4096, -2),
    ] {
        assert!(matches!(plan(&place, &limits), Err(Error::Limit { .. })));
    }
}

#[test]
fn v1_orders_its_two_files_by_whether_the_sum_grows() {
    let dir = Dir::new();
    dir.file("memory.limit_in_bytes", "9223372036854771712\n");
    dir.file("memory.memsw.limit_in_bytes", "9223372036854771712\n");
    let place = place(&dir, Version::V1);
    for (mib, first) in [
        (64, "memory.limit_in_bytes"),
        (32, "memory.limit_in_bytes"),
        (128, "memory.memsw.limit_in_bytes"),
    ] {
        let changes = plan(&place, &memory(mib * MIB, 2 * mib * MIB)).unwrap();
        assert!(changes[0].path.ends_with(first), "{mib}");
        let _ = execute(changes).unwrap();
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
    let same = |wrote: u64, shown: &str| same_bytes(&wrote.to_string(), shown);
    assert!(same(5 * page + 1, &(5 * page).to_string()));
    assert!(!same(5 * page, &(4 * page).to_string()));
    assert!(same_bytes("-1", "9223372036854771712"));
    assert!(same_bytes("max", "max"));
    assert!(same(i64::MAX.unsigned_abs(), "9223372036854771712"));
    assert!(!same(page, "max"));
}

#[test]
fn what_one_version_lacks_is_told() {
    let dir = Dir::new();
    let told = |version, limits: MemoryLimits| {
        plan(&place(&dir, version), &limits)
            .unwrap_err()
            .to_string()
    };
    let group = MemoryLimits {
        oom_group: Some(true),
        ..MemoryLimits::default()
    };
    assert_eq!(
        told(Version::V1, group),
        "oom group: the memory controller (cgroup v1) has no such limit, cgroup v2 has"
    );
    let disable = MemoryLimits {
        oom_kill_disable: Some(true),
        ..MemoryLimits::default()
    };
    assert_eq!(
        told(Version::V2, disable),
        "oom kill disable: the memory controller (cgroup v2) has no such limit, cgroup v1 has"
    );
}

#[test]
fn room_is_asked_for_only_below_use() {
    let dir = v2();
    dir.file("memory.current", "8192\n");
    dir.file("memory.high", "max\n");
    let place = place(&dir, Version::V2);
    assert!(make_room(&place, &memory(8192, -1)).unwrap().is_none());
    let error = make_room(&place, &memory(4096, -1)).unwrap_err();
    assert!(
        error.to_string().contains("below the present use of 8192"),
        "{error}"
    );
    assert_eq!(dir.read("memory.high"), "max");
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
    stats(&place(&dir, Version::V1).open().unwrap(), &mut found).unwrap();
    assert_eq!(found.memory_working_set_bytes, Some(600));
    assert_eq!(found.memory_limit_bytes, None);
    assert_eq!(found.totals.memory_oom_kills, Some(3));

    dir.file("memory.current", "1000\n");
    dir.file("memory.max", "4096\n");
    dir.file("memory.events", "oom 7\noom_kill 2\noom_group_kill 0\n");
    let mut found = Stats::default();
    stats(&place(&dir, Version::V2).open().unwrap(), &mut found).unwrap();
    assert_eq!(found.memory_working_set_bytes, Some(991));
    assert_eq!(found.memory_limit_bytes, Some(4096));
    assert_eq!(found.totals.memory_oom_kills, Some(2));
    assert_eq!(found.memory_peak_bytes, None);
}
