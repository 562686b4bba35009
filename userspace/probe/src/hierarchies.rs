//! Which cgroup hierarchies can say who a task is.

use std::fs;

/// Whether memory or pids has a v1 hierarchy, which is then a task's identity in v2's root. One
/// cannot come up while v2 has the controllers in use.
pub(crate) fn v1_identity() -> bool {
    fs::read_to_string("/proc/cgroups").map_or(true, |text| in_v1(&text))
}

/// `memory\t4\t59\t1`: name, hierarchy's number, cgroups, enabled.
fn in_v1(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("memory" | "pids")) && words.next() != Some("0")
    })
}

#[cfg(test)]
mod tests {
    use super::in_v1;

    #[test]
    fn a_hierarchy_of_memory_or_pids_counts() {
        let head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
        for (lines, there) in [
            ("cpuset\t3\t1\t1\nmemory\t0\t90\t1\npids\t0\t90\t1\n", false),
            ("memory\t4\t9\t1\npids\t0\t90\t1\n", true),
            ("memory\t0\t9\t1\npids\t12\t90\t1\n", true),
            ("", false),
        ] {
            assert_eq!(in_v1(&format!("{head}{lines}")), there, "{lines}");
        }
    }
}
