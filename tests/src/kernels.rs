//! Which kernel this is, for the tables of what each one gives, and what it cannot do.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Result, bail, ensure};

/// Scenarios that a kernel lacks something for, with the error that says so.
const LACKING: &str = include_str!("../lacking.toml");

/// A guest's series, such as `6.1`; any other machine is `host-6.18`.
pub fn section() -> Result<String> {
    let (major, minor) = release_numbers()?;
    let host = if is_guest() { "" } else { "host-" };
    Ok(format!("{host}{major}.{minor}"))
}

pub fn is_guest() -> bool {
    Path::new("/etc/paddock-guest").is_dir()
}

/// As `uname -r` says.
pub fn release() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(release.trim().to_owned())
}

pub fn release_numbers() -> Result<(u32, u32)> {
    let release = release()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("kernel release {release:?}"),
    }
}

/// What the table says of `name` here: the error that it must end with.
pub fn lacking(name: &str) -> Result<Option<String>> {
    let mut tables: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(LACKING)?;
    Ok(tables
        .remove(&section()?)
        .and_then(|mut table| table.remove(name)))
}

/// Turns a result into what it means here: an error that is in the table is right, anything
/// else in its place is not.
pub fn judge(lacking: Option<&str>, result: Result<()>) -> Result<()> {
    let Some(wanted) = lacking else { return result };
    let Err(error) = result else {
        bail!("it works here: tests/lacking.toml says {wanted:?}");
    };
    let told = format!("{error:#}");
    ensure!(
        told.contains(wanted),
        "tests/lacking.toml says {wanted:?}, and it was {told}"
    );
    println!("    this kernel cannot: {wanted}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn only_the_error_of_the_table_is_right() {
        let failed = || Err(anyhow!("no cpu.idle on this kernel").context("run"));
        assert!(judge(Some("no cpu.idle"), failed()).is_ok());
        assert!(judge(Some("no cpu.max"), failed()).is_err());
        assert!(judge(Some("no cpu.idle"), Ok(())).is_err());
        assert!(judge(None, failed()).is_err());
        assert!(judge(None, Ok(())).is_ok());
    }

    #[test]
    fn the_table_names_scenarios_that_are_there() {
        let tables: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(LACKING).unwrap();
        let all = crate::scenarios::all();
        for name in tables.values().flat_map(BTreeMap::keys) {
            assert!(all.iter().any(|one| one.name == name), "{name}");
        }
    }
}
