//! Which names a container may have: it becomes a directory, and part of a cgroup path.

use crate::{config::shorten, error::Error};

/// As runc and crun have it; with a bound, since a file name has one.
const LONGEST: usize = 255;

pub(crate) fn check(id: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if !id.is_empty() && id.len() <= LONGEST && id.chars().all(allowed) && id != "." && id != ".." {
        return Ok(());
    }
    Err(Error::usage(format!(
        "container id {:?}: allowed are letters, digits, _ + - . and at most {LONGEST} of them",
        shorten(id)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_be_a_path_is_a_name() {
        for id in ["a", "A.b_c+d-1", "..a"] {
            assert!(check(id).is_ok(), "{id}");
        }
        let long = "x".repeat(10_000);
        for id in [
            "", ".", "..", "a/b", "../a", "a\n", "a\0", "é", "a b", &long,
        ] {
            assert!(check(id).is_err(), "{id}");
        }
    }
}
