//! Keys and certificates by openssl, web files, and curl.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::context::{Context, finish};

/// Of `PASSWORD`, made by another's bcrypt: it is the one in exporter-toolkit's source.
pub(super) const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
pub(super) const PASSWORD: &str = "fakepassword";

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct Files(pub(super) PathBuf);

impl Files {
    /// An authority, and certificates of a server at 127.0.0.1 and two clients by it; another
    /// authority with a client of its own.
    pub(super) fn new(context: &Context) -> Result<Self> {
        let files = Self(context.state.with_extension("web"));
        fs::create_dir(&files.0)?;
        files.authority("ca")?;
        files.authority("other-ca")?;
        files.issued("server", "ca", "IP:127.0.0.1")?;
        files.issued("scraper", "ca", "DNS:scraper.example,DNS:more.example")?;
        files.issued("nobody", "ca", "DNS:nobody.example")?;
        files.issued("foreign", "other-ca", "DNS:scraper.example")?;
        Ok(files)
    }

    fn authority(&self, name: &str) -> Result<()> {
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &pem,
            "-subj",
            &subject,
        ])
    }

    pub(super) fn issued(&self, name: &str, by: &str, names: &str) -> Result<()> {
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        let names = format!("subjectAltName={names}");
        let (authority, its_key) = (format!("{by}.pem"), format!("{by}.key"));
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &pem,
            "-subj",
            &subject,
            "-addext",
            &names,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-CA",
            &authority,
            "-CAkey",
            &its_key,
        ])
    }

    fn openssl(&self, args: &[&str]) -> Result<()> {
        let done = finish(Command::new("openssl").args(args).current_dir(&self.0))?;
        ensure!(done.code == Some(0), "openssl {args:?}: {done:?}");
        Ok(())
    }

    /// As an editor does, in the place of what was there.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<String> {
        let (path, made) = (self.path(name), self.path("new"));
        fs::write(&made, text)?;
        fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
        fs::rename(&made, &path)?;
        Ok(path)
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// By curl: the status, or its exit code.
    pub(super) fn get(&self, url: &str, args: &[&str]) -> Result<Answer> {
        let done = finish(curl(&self.0).args(args).arg(url))?;
        if done.code != Some(0) {
            return Ok(Answer::Failed(done.code.context("curl was killed")?));
        }
        Ok(Answer::Status(done.stdout.trim().parse()?))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Status(u16),
    /// curl's exit code: 60 for a certificate that nobody vouches for, 35, 56 and 98 for an alert.
    Failed(i32),
}

fn curl(dir: &Path) -> Command {
    let mut command = Command::new("curl");
    command.current_dir(dir).args([
        "--silent",
        "--noproxy",
        "*",
        "--max-time",
        "60",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ]);
    command
}
