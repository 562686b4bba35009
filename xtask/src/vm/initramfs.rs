//! A guest's whole file system: static binaries, busybox, modules, the command.
//!
//! Uncompressed: QEMU lays it into the guest's memory, and an emulated CPU would take longer
//! to unpack it than the disk takes to read it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd, setup,
    tree::Tree,
    vm::{cpio::Archive, debian, kernel::Kernel, modules},
};

/// Built by `cargo xtask build`, put in where present; the first is the guest's PID 1.
pub(crate) const BINARIES: [&str; 5] = [
    "paddock-guest-init",
    "paddock",
    "paddock-scenarios",
    "paddock-workload",
    "paddock-demo",
];

/// What goes in besides paddock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// A shell script; without one the guest gives an interactive shell.
    pub(crate) command: Option<String>,
    /// From the host's path to the guest's.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Programs of the host, with the libraries they load.
    pub(crate) tools: Vec<String>,
    /// A Debian of this suite with systemd as the first process, in place of busybox.
    pub(crate) debian: Option<String>,
}

pub(crate) fn write(tree: &Tree, kernel: &Kernel, contents: &Contents, to: &Path) -> Result<()> {
    let mut file = fs::File::create(to).with_context(|| format!("create {}", to.display()))?;
    if let Some(suite) = &contents.debian {
        // The kernel unpacks archives one after the other.
        let base = debian::fetch(tree, suite)?;
        let copied = fs::File::open(&base).and_then(|mut base| io::copy(&mut base, &mut file));
        copied.with_context(|| format!("copy {}", base.display()))?;
    }
    let mut archive = Archive::new(io::BufWriter::new(file));
    fill(tree, kernel, contents, &mut archive)
        .and_then(|()| {
            let out = archive.finish()?;
            out.into_inner()
                .map(drop)
                .map_err(|error| error.into_error().into())
        })
        .with_context(|| format!("write {}", to.display()))
}

type Out = Archive<io::BufWriter<fs::File>>;

fn fill(tree: &Tree, kernel: &Kernel, contents: &Contents, archive: &mut Out) -> Result<()> {
    let init = if contents.debian.is_none() {
        add_system(tree, archive)?;
        "usr/bin/paddock-guest-init"
    } else {
        // Nothing of paddock where its package puts it.
        archive.file("etc/paddock-guest/systemd", 0o644, b"")?;
        "usr/lib/paddock-guest/init"
    };
    let built = tree.binary(BINARIES[0]);
    if !built.exists() {
        bail!("{} is not built: run `cargo xtask build`", built.display());
    }
    add_file(archive, &built, init)?;
    archive.symlink("init", init)?;
    let mut list = String::new();
    for (name, content) in modules::load(kernel)? {
        let path = format!("/usr/lib/modules/{}/{name}.ko", kernel.release);
        archive.file(&path, 0o644, &content)?;
        list.push_str(&path);
        list.push('\n');
    }
    archive.file("etc/paddock-guest/modules", 0o644, list.as_bytes())?;
    if let Some(command) = &contents.command {
        archive.file("etc/paddock-guest/command", 0o644, command.as_bytes())?;
    }
    for (from, to) in &contents.files {
        add_file(archive, from, to)?;
    }
    add_tools(tree, archive, &contents.tools)
}

/// Directories, accounts, busybox, paddock's binaries.
fn add_system(tree: &Tree, archive: &mut Out) -> Result<()> {
    for dir in [
        "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "usr/bin", "var/lib",
    ] {
        archive.directory(dir, 0o755)?;
    }
    archive.directory("tmp", 0o1777)?;
    for dir in ["bin", "sbin", "lib", "lib64"] {
        archive.directory(&format!("usr/{dir}"), 0o755)?;
        archive.symlink(dir, &format!("usr/{dir}"))?;
    }
    for (name, text) in ETC {
        archive.file(&format!("etc/{name}"), 0o644, text.as_bytes())?;
    }
    add_busybox(archive)?;
    for name in &BINARIES[1..] {
        let path = tree.binary(name);
        if path.exists() {
            add_file(archive, &path, &format!("usr/bin/{name}"))?;
        }
    }
    Ok(())
}

const ETC: [(&str, &str); 6] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    (
        "hosts",
        "127.0.0.1 localhost paddock-guest\n::1 localhost\n",
    ),
    ("hostname", "paddock-guest\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
    (
        "os-release",
        "ID=paddock-guest\nPRETTY_NAME=\"paddock test guest\"\n",
    ),
];

fn add_file(archive: &mut Out, from: &Path, to: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    let mode = fs::metadata(from)
        .with_context(|| format!("stat {}", from.display()))?
        .permissions()
        .mode();
    archive.file(to, mode & 0o777, &content)?;
    Ok(())
}

fn add_busybox(archive: &mut Out) -> Result<()> {
    let busybox = cmd::find_program("busybox")
        .context("busybox is missing; install it by: apt-get install busybox-static")?;
    add_file(archive, &busybox, "usr/bin/busybox")?;
    let applets = cmd::output(Command::new(&busybox).arg("--list"))?;
    for applet in applets.lines().filter(|&name| name != "busybox") {
        archive.symlink(&format!("usr/bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// Each in /usr/bin, or where its path says, with what `ldd` lists.
fn add_tools(tree: &Tree, archive: &mut Out, tools: &[String]) -> Result<()> {
    let mut paths = BTreeSet::new();
    for tool in tools {
        let program = setup::find_program(tree, tool)?
            .with_context(|| format!("{tool} is missing on this machine"))?;
        // A static program makes ldd fail; it needs nothing more.
        let listed = cmd::output(Command::new("ldd").arg(&program)).unwrap_or_default();
        for word in listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            paths.insert(PathBuf::from(word));
        }
        let to = tool
            .strip_prefix('/')
            .map_or_else(|| format!("usr/bin/{tool}"), str::to_owned);
        archive.file(
            &to,
            0o755,
            &fs::read(&program).with_context(|| format!("read {}", program.display()))?,
        )?;
    }
    for path in paths {
        let to = path.to_str().context("a library path in UTF-8")?;
        // /lib is a link to /usr/lib here too.
        let to = match to.strip_prefix("/usr/") {
            Some(_) => to.to_owned(),
            None => format!("/usr{to}"),
        };
        add_file(archive, &path, &to)?;
    }
    Ok(())
}
