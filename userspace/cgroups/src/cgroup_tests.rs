//! Whole cgroups over directories: paths, undoing and removing; real kernels are in tests/.

use super::*;
use crate::fixture::Dir;

/// Two v1 hierarchies and a v2 one without controllers, each a directory below `dir`.
fn hybrid(dir: &Dir) -> Hierarchies {
    for name in ["memory", "pids", "unified"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    Hierarchies::fixture(
        &[
            (&dir.path().join("memory"), &["memory"]),
            (&dir.path().join("pids"), &["pids"]),
        ],
        Some((&dir.path().join("unified"), &[])),
    )
}

#[test]
fn create_makes_the_path_everywhere_and_remove_leaves_nothing() {
    let dir = Dir::new();
    let hierarchies = hybrid(&dir);
    let cgroup = Cgroup::create(&hierarchies, "paddock/default/a").unwrap();
    for name in ["memory", "pids", "unified"] {
        assert!(dir.path().join(name).join("paddock/default/a").is_dir());
    }
    assert_eq!(cgroup.v1_tasks().len(), 2);
    let ids = cgroup.ids().unwrap();
    assert!(ids.unified.is_some() && ids.memory_v1.is_some() && ids.pids_v1.is_some());
    fs::create_dir(dir.path().join("pids/paddock/default/a/nested")).unwrap();
    cgroup.remove().unwrap();
    for name in ["memory", "pids", "unified"] {
        assert!(!dir.path().join(name).join("paddock").exists(), "{name}");
    }
    cgroup.remove().unwrap();
}

#[test]
fn remove_keeps_parents_that_others_use() {
    let dir = Dir::new();
    let hierarchies = hybrid(&dir);
    let first = Cgroup::create(&hierarchies, "paddock/default/a").unwrap();
    let _second = Cgroup::create(&hierarchies, "paddock/default/b").unwrap();
    first.remove().unwrap();
    assert!(dir.path().join("pids/paddock/default/b").is_dir());
}

#[test]
fn a_create_that_fails_half_way_removes_what_it_made() {
    let dir = Dir::new();
    let hierarchies = hybrid(&dir);
    // The last hierarchy already has the leaf.
    fs::create_dir_all(dir.path().join("pids/paddock/default/a")).unwrap();
    let error = Cgroup::create(&hierarchies, "paddock/default/a").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EEXIST));
    assert!(!dir.path().join("memory/paddock").exists());
    assert!(!dir.path().join("unified/paddock").exists());
    assert!(dir.path().join("pids/paddock/default/a").is_dir());
}

#[test]
fn open_needs_one_hierarchy_and_a_clean_path() {
    let dir = Dir::new();
    let hierarchies = hybrid(&dir);
    fs::create_dir(dir.path().join("memory/only-here")).unwrap();
    assert_eq!(
        Cgroup::open(&hierarchies, "only-here").unwrap().path(),
        "only-here"
    );
    assert!(matches!(
        Cgroup::open(&hierarchies, "nowhere"),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        Cgroup::open(&hierarchies, "../memory/only-here"),
        Err(Error::BadPath { .. })
    ));
}

#[test]
fn a_limit_without_its_controller_is_told() {
    let dir = Dir::new();
    let hierarchies = hybrid(&dir);
    let cgroup = Cgroup::create(&hierarchies, "a").unwrap();
    let limits = Limits {
        cpu: CpuLimits {
            shares: Some(512),
            ..CpuLimits::default()
        },
        ..Limits::default()
    };
    let text = cgroup.apply(&limits).unwrap_err().to_string();
    assert_eq!(text, "no mounted cgroup hierarchy has the cpu controller");
}

#[test]
fn pids_are_collected_from_all_hierarchies_once() {
    let dir = Dir::new();
    let hierarchies = hybrid(&dir);
    let cgroup = Cgroup::create(&hierarchies, "a").unwrap();
    dir.file("memory/a/cgroup.procs", "41\n7\n");
    dir.file("pids/a/cgroup.procs", "41\n");
    dir.file("unified/a/below/cgroup.procs", "0\n9\n");
    assert_eq!(cgroup.pids().unwrap(), [7, 9, 41]);
}
