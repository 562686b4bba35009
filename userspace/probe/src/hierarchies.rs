//! Which cgroup hierarchies can say who a task is.

use std::{
    fs::{self, File},
    io,
};

use crate::procfs;

/// Whether memory and pids have v1 hierarchies, where a task in v2's root says who it is. One
/// cannot come up while v2 has the controllers in use.
pub(crate) fn v1_controllers() -> [(&'static str, u32); 2] {
    let text = fs::read_to_string("/proc/cgroups");
    [("HAS_V1_MEMORY", "memory"), ("HAS_V1_PIDS", "pids")].map(|(global, controller)| {
        let there = text.as_ref().map_or(true, |text| in_v1(text, controller));
        (global, u32::from(there))
    })
}

/// The v2 hierarchy's uppermost cgroup, where it is mounted whole.
pub(crate) fn unified_root() -> io::Result<File> {
    let path = procfs::unified_mount().ok_or(io::ErrorKind::NotFound)?;
    File::open(path)
}

/// `memory\t4\t59\t1`: name, hierarchy's number, cgroups, enabled; the v2 hierarchy's is 0.
fn in_v1(text: &str, controller: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(controller) && words.next() != Some("0")
    })
}

#[cfg(test)]
mod tests {
    use super::in_v1;

    #[test]
    fn v1_is_a_number_of_its_own() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
                    cpuset\t3\t1\t1\nmemory\t0\t90\t1\npids\t12\t90\t1\n";
        assert!(!in_v1(text, "memory"));
        assert!(in_v1(text, "pids"));
        assert!(!in_v1("", "memory"));
    }
}
