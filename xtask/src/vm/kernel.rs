//! Fetch Debian's kernels: extracted from their packages, never installed.
//!
//! A private apt state in the cache reads the mirror that the machine's own apt sources name,
//! so the host's package lists stay as they are. Versions move with Debian's updates: the
//! newest of a series is chosen by pattern, and chosen anew after a week. Without network,
//! what was fetched before is used.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{self, step},
    tree::Tree,
    vm::mirror,
};

/// The oldest kernel "newest" may mean: from here on the house's promises for new kernels hold.
const NEWEST_FLOOR: &[u32] = &[6, 18];
const FRESH: Duration = Duration::from_hours(7 * 24);

/// An extracted kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` says.
    pub(crate) release: String,
    pub(crate) vmlinuz: PathBuf,
    /// The folder with `kernel/` and `modules.builtin`.
    pub(crate) modules: PathBuf,
}

/// `series` is `6.1` and the like, or `newest`.
pub(crate) fn fetch(tree: &Tree, series: &str) -> Result<Kernel> {
    if !tree.triple.starts_with("x86_64-") {
        bail!("guests are x86_64 only so far; use --host");
    }
    let valid = series == "newest"
        || (!series.is_empty() && series.split('.').all(|part| part.parse::<u32>().is_ok()));
    if !valid {
        bail!("{series:?} is no kernel series: expected one like 6.1, or newest");
    }
    let cache = tree.cache()?;
    let kernels = cache.join("kernels");
    fs::create_dir_all(&kernels).with_context(|| format!("create {}", kernels.display()))?;
    let lock = fs::File::create(kernels.join("lock")).context("create the kernels' lock")?;
    lock.lock().context("lock the kernel cache")?;
    let choice = kernels.join(format!("{series}.choice"));
    let chosen = fs::read_to_string(&choice).unwrap_or_default();
    if is_fresh(&choice)
        && let Ok(kernel) = open(&kernels, chosen.trim())
    {
        return Ok(kernel);
    }
    match refresh(&cache, &kernels, series) {
        Ok(release) => {
            fs::write(&choice, &release).with_context(|| format!("write {}", choice.display()))?;
            open(&kernels, &release)
        }
        Err(error) => match open(&kernels, chosen.trim()) {
            Ok(kernel) => {
                step(&format!(
                    "kernel {series}: using the cached one ({error:#})"
                ));
                Ok(kernel)
            }
            Err(_) => Err(error).with_context(|| format!("fetch kernel {series}")),
        },
    }
}

fn is_fresh(file: &Path) -> bool {
    fs::metadata(file)
        .and_then(|found| found.modified())
        .ok()
        .and_then(|time| SystemTime::now().duration_since(time).ok())
        .is_some_and(|age| age < FRESH)
}

/// What an earlier fetch extracted.
fn open(kernels: &Path, release: &str) -> Result<Kernel> {
    let dir = kernels.join(release);
    let found = |names: &[&str]| {
        names
            .iter()
            .map(|name| dir.join(name.replace('@', release)))
            .find(|path| path.exists())
            .with_context(|| format!("{} has none of {names:?}", dir.display()))
    };
    if release.is_empty() {
        bail!("nothing fetched yet");
    }
    Ok(Kernel {
        release: release.to_owned(),
        vmlinuz: found(&["boot/vmlinuz-@", "usr/lib/modules/@/vmlinuz"])?,
        modules: found(&["usr/lib/modules/@", "lib/modules/@"])?,
    })
}

/// Chooses the newest of the series and extracts it; the release.
fn refresh(cache: &Path, kernels: &Path, series: &str) -> Result<String> {
    let apt = mirror::Apt::open(cache, suites(series))?;
    step(&format!("kernel {series}: reading Debian's package lists"));
    apt.update()?;
    let names = apt.package_names()?;
    let release = choose(&names, series)
        .with_context(|| format!("Debian has no cloud kernel of series {series}"))?;
    if open(kernels, &release).is_ok() {
        return Ok(release);
    }
    step(&format!("kernel {series}: fetching {release}"));
    let partial = kernels.join(format!("{release}.partial"));
    drop(fs::remove_dir_all(&partial));
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    // From 7.2 on the image and the modules are packages of their own.
    let split = format!("linux-binary-{release}");
    let packages = if names.contains(&split) {
        vec![split, format!("linux-modules-{release}")]
    } else {
        vec![format!("linux-image-{release}")]
    };
    for package in &packages {
        let deb = apt.download(package, &partial)?;
        cmd::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&partial))?;
        fs::remove_file(&deb).with_context(|| format!("remove {}", deb.display()))?;
    }
    let dir = kernels.join(&release);
    drop(fs::remove_dir_all(&dir));
    fs::rename(&partial, &dir).with_context(|| format!("rename {}", partial.display()))?;
    open(kernels, &release)?;
    Ok(release)
}

/// Debian's releases by what kernels they carry; bullseye's suites are not everywhere any more.
fn suites(series: &str) -> &'static [&'static str] {
    if series == "5.10" {
        &["bullseye"]
    } else {
        &["bookworm", "trixie", "trixie-backports"]
    }
}

fn choose(names: &[String], series: &str) -> Option<String> {
    names
        .iter()
        .filter_map(|name| {
            let release = name
                .strip_prefix("linux-image-")
                .or_else(|| name.strip_prefix("linux-binary-"))?;
            let numbers = numbers(release.strip_suffix("-cloud-amd64")?);
            // Meta packages such as linux-image-cloud-amd64 have no version in their name.
            let fits = match series {
                "newest" => numbers.as_slice() >= NEWEST_FLOOR,
                series => numbers.starts_with(&self::numbers(series)),
            };
            (release.starts_with(|c: char| c.is_ascii_digit()) && fits)
                .then_some((numbers, release))
        })
        .max_by(|a, b| match a.0.cmp(&b.0) {
            Ordering::Equal => a.1.cmp(b.1),
            other => other,
        })
        .map(|(_, release)| release.to_owned())
}

/// `6.18.15+deb13` is 6, 18, 15, 13.
fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_by_number() {
        let names: Vec<String> = [
            "linux-image-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.18.9+deb13-cloud-amd64",
            "linux-image-6.18.15+deb13-cloud-amd64",
            "linux-image-6.18.15+deb13-cloud-amd64-dbg",
            "linux-image-6.18.15+deb13-amd64",
        ]
        .map(str::to_owned)
        .to_vec();
        let choice = |series| choose(&names, series);
        assert_eq!(choice("6.1").unwrap(), "6.1.0-50-cloud-amd64");
        assert_eq!(choice("6.18").unwrap(), "6.18.15+deb13-cloud-amd64");
        assert_eq!(choice("newest").unwrap(), "6.18.15+deb13-cloud-amd64");
        assert_eq!(choice("5.10"), None);
        assert_eq!(choose(&names[..4], "newest"), None);
    }
}
