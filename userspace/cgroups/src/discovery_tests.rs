//! Discovery over the mount tables of the hosts people have.

use super::*;
use crate::fixture::Dir;

const BOTH: &str = "nodev\tcgroup\nnodev\tcgroup2\n";

fn v1_line(id: u32, mount: &str, options: &str) -> String {
    format!("{id} 31 0:{id} / {mount} rw,relatime - cgroup cgroup rw,{options}\n")
}

fn v2_line(root: &str, mount: &Path) -> String {
    format!(
        "41 31 0:38 {root} {} rw,relatime - cgroup2 cgroup2 rw\n",
        mount.display()
    )
}

#[test]
fn hybrid_finds_each_controller_where_it_is() {
    let dir = Dir::new();
    dir.file("cgroup.controllers", "hugetlb\n");
    let mounts = format!(
        "{}{}{}{}{}",
        v1_line(32, "/c/cpu,cpuacct", "cpu,cpuacct"),
        v1_line(35, "/c/memory", "memory"),
        v1_line(39, "/c/pids\\040here", "pids"),
        v1_line(40, "/c/systemd", "xattr,name=systemd"),
        v2_line("/", dir.path()),
    );
    let found = Hierarchies::from_texts(&mounts, "", BOTH, |_, _| true).unwrap();
    assert_eq!(found.layout(), Layout::Hybrid);
    assert_eq!(found.unified(), Some(dir.path()));
    assert_eq!(
        found.locate("cpuacct"),
        Some((Layout::V1, Path::new("/c/cpu,cpuacct")))
    );
    assert_eq!(
        found.locate("pids"),
        Some((Layout::V1, Path::new("/c/pids here")))
    );
    assert_eq!(found.locate("hugetlb"), Some((Layout::V2, dir.path())));
    assert!(found.locate("io").is_none());
    assert!(found.locate("xattr").is_none());
    assert_eq!(found.all().count(), 5);
}

#[test]
fn pure_v2_reads_controllers_from_the_root() {
    let dir = Dir::new();
    dir.file("cgroup.controllers", "cpuset cpu io memory pids\n");
    let found = Hierarchies::from_texts(&v2_line("/", dir.path()), "", BOTH, |_, _| true).unwrap();
    assert_eq!(found.layout(), Layout::V2);
    assert_eq!(found.locate("memory"), Some((Layout::V2, dir.path())));
}

#[test]
fn a_covered_mount_is_passed_over_and_a_whole_one_preferred() {
    let (part, whole) = (Dir::new(), Dir::new());
    part.file("cgroup.controllers", "");
    whole.file("cgroup.controllers", "pids\n");
    let mounts = format!(
        "{}{}{}",
        v1_line(35, "/covered", "memory"),
        v2_line("/system.slice", part.path()),
        v2_line("/", whole.path()),
    );
    let found = Hierarchies::from_texts(&mounts, "", BOTH, |path, _| path != Path::new("/covered"))
        .unwrap();
    assert_eq!(found.layout(), Layout::V2);
    assert_eq!(found.unified(), Some(whole.path()));
}

#[test]
fn a_process_has_a_directory_in_each_hierarchy() {
    let dir = Dir::new();
    for name in ["cpu/a", "systemd/b/c:d", "unified/"] {
        dir.file(&format!("{name}/cgroup.procs"), "");
    }
    let at = |name: &str| dir.path().join(name);
    let found = Hierarchies::fixture(
        &[
            (&at("cpu"), &["cpu", "cpuset", "cpuacct"]),
            (&at("systemd"), &["name=systemd"]),
        ],
        Some((&at("unified"), &[])),
    );
    let rest = "2:name=systemd:/b/c:d\n0::/\n";
    let own = |cpu: &str| found.directories_of(&format!("1:cpuset,cpu,cpuacct:{cpu}\n{rest}"));
    assert_eq!(
        own("/a").unwrap(),
        [
            (at("unified"), at("unified")),
            (at("cpu"), at("cpu/a")),
            (at("systemd"), at("systemd/b/c:d")),
        ]
    );
    for elsewhere in ["/../a", "/a/..", "a", "", "/gone"] {
        assert!(own(elsewhere).is_err(), "{elsewhere}");
    }
    assert!(found.directories_of(rest).is_err());
}

#[test]
fn no_mount_is_told_apart_from_no_kernel_support() {
    let none = "22 1 0:21 / /proc rw - proc proc rw\n";
    assert!(matches!(
        Hierarchies::from_texts(none, "", BOTH, |_, _| true),
        Err(Error::NotMounted)
    ));
    assert!(matches!(
        Hierarchies::from_texts(none, "", "nodev\tproc\n", |_, _| true),
        Err(Error::NotInKernel)
    ));
}

#[test]
fn a_controller_off_on_the_command_line_is_said_so() {
    let cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\npids\t8\t1\t1\n";
    let mounts = v1_line(39, "/c/pids", "pids");
    let found = Hierarchies::from_texts(&mounts, cgroups, BOTH, |_, _| true).unwrap();
    let text = found.require("memory").unwrap_err().to_string();
    assert!(
        text.contains("disabled on the kernel's command line"),
        "{text}"
    );
    assert!(
        !found
            .require("cpu")
            .unwrap_err()
            .to_string()
            .contains("disabled")
    );
}
