//! Which relative cgroup paths are taken.
//!
//! Judged by components, never by prefix: `a/../b` and `/a` never reach the file system.

use crate::Error;

/// Each component of a path that is safe to join to a mount point.
pub(crate) fn components(path: &str) -> Result<Vec<&str>, Error> {
    let refused = |reason| {
        Err(Error::BadPath {
            path: path.to_owned(),
            reason,
        })
    };
    if path.is_empty() {
        return refused("is empty");
    }
    if path.starts_with('/') {
        return refused("is absolute");
    }
    let parts: Vec<&str> = path.split('/').collect();
    for part in &parts {
        match *part {
            "" => return refused("has an empty component"),
            "." | ".." => return refused("has a . or .. component"),
            long if long.len() > 255 => return refused("has a component above 255 bytes"),
            // kernel/cgroup/cgroup.c, cgroup_mkdir: a newline would break /proc/PID/cgroup.
            text if text.contains(['\n', '\0']) => return refused("has a newline or a zero byte"),
            _ => {}
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbing_and_absolute_paths_are_refused() {
        let long = "x".repeat(256);
        for path in [
            "", "/", "/paddock", "..", "a/..", "../a", "a/../b", "a//b", "a/", "./a", "a/.",
            "a\nb", "a\0", &long,
        ] {
            assert!(components(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn dots_inside_names_are_names() {
        assert_eq!(
            components("paddock/..x/ab12.scope").unwrap(),
            ["paddock", "..x", "ab12.scope"]
        );
    }
}
