//! A private apt state in the cache, on the mirror the machine's own apt sources name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::cmd;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

#[derive(Debug)]
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    pub(crate) fn open(cache: &Path, suites: &[&str]) -> Result<Self> {
        if cmd::find_program("apt-get").is_none() || !Path::new(KEYRING).exists() {
            bail!("Debian's packages are fetched by apt with {KEYRING}; use --host elsewhere");
        }
        let mirror = machine_mirror()?;
        let dir = cache.join(format!("apt-{}", suites.join("-")));
        for sub in ["lists/partial", "archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).with_context(|| format!("create {}", sub.display()))?;
        }
        let text: String = suites
            .iter()
            .flat_map(|suite| {
                [
                    "deb [signed-by=",
                    KEYRING,
                    "] ",
                    &mirror,
                    " ",
                    suite,
                    " main
",
                ]
            })
            .collect();
        let list = dir.join("sources.list");
        fs::write(&list, text).with_context(|| format!("write {}", list.display()))?;
        let dir = dir.to_str().context("a cache path in UTF-8")?;
        let options = [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}"),
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
            // The lists' folder belongs to whoever runs this, not to apt's own user.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ];
        Ok(Self {
            options: options
                .into_iter()
                .flat_map(|option| ["-o".to_owned(), option])
                .collect(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    pub(crate) fn update(&self) -> Result<()> {
        cmd::output(self.command("apt-get").args(["-qq", "update"])).map(drop)
    }

    pub(crate) fn package_names(&self) -> Result<Vec<String>> {
        let text = cmd::output(self.command("apt-cache").args(["pkgnames", "linux-"]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The newest version's .deb, in `dir`.
    pub(crate) fn download(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        cmd::output(
            self.command("apt-get")
                .args(["-qq", "download", package])
                .current_dir(dir),
        )?;
        let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
            .with_context(|| format!("apt-get download {package} left no .deb"))
    }
}

/// The first archive, not a security one, in deb822 or one-line sources.
pub(super) fn machine_mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .context("no Debian mirror is named in /etc/apt/sources.list or sources.list.d")
}

fn mirror_in(text: &str) -> Option<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter(|line| line.starts_with("deb ") || line.to_ascii_lowercase().starts_with("uris:"))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_sources_name_the_mirror() {
        let deb822 = "Types: deb\n# http://old.example/debian\nURIs: http://a.example/debian\nSuites: bookworm\n";
        let security = "Types: deb\nURIs: http://a.example/debian-security\n";
        let line = "deb [arch=amd64] https://b.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(deb822).unwrap(), "http://a.example/debian");
        assert_eq!(mirror_in(security), None);
        assert_eq!(mirror_in(line).unwrap(), "https://b.example/debian/");
    }
}
