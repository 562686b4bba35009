//! What is done to files: each act that is let through is undone.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{PermissionsExt as _, chown, symlink},
    },
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
    unistd::truncate,
};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    mount::{FsOpenFlags, OpenTreeFlags, UnmountFlags, fsopen, mount_bind, open_tree, unmount},
};

use super::errno;

/// `path` is two with a colon between where the act is about two.
pub(super) fn attempt(what: &str, path: &str) -> nix::Result<()> {
    if let Some((from, to)) = path.split_once(':') {
        return of_two(what, from, to);
    }
    match what {
        "create" => {
            File::create_new(path).map_err(errno)?;
            fs::remove_file(path).map_err(errno)
        }
        "remove" => {
            fs::remove_file(path).map_err(errno)?;
            fs::write(path, "again").map_err(errno)
        }
        "mkdir" => {
            fs::create_dir(path).map_err(errno)?;
            fs::remove_dir(path).map_err(errno)
        }
        "rmdir" => {
            fs::remove_dir(path).map_err(errno)?;
            fs::create_dir(path).map_err(errno)
        }
        "symlink" => {
            symlink("/nowhere", path).map_err(errno)?;
            fs::remove_file(path).map_err(errno)
        }
        "chmod" => fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(errno),
        "chown" => chown(path, Some(0), Some(0)).map_err(errno),
        "truncate" => truncate(path, 0),
        "memory" => {
            let copy = in_memory(path).map_err(errno)?;
            let place = format!("/proc/self/fd/{}", copy.as_raw_fd());
            let started = Command::new(place).args(["exit", "0"]).status();
            started.map(drop).map_err(errno)
        }
        "tree" => open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE)
            .map(drop)
            .map_err(same),
        "filesystem" => fsopen(path, FsOpenFlags::empty()).map(drop).map_err(same),
        _ => Err(Errno::ENOSYS),
    }
}

/// A program's copy that has no name.
pub(super) fn in_memory(path: &str) -> io::Result<File> {
    let mut memory = File::from(memfd_create(c"program", MFdFlags::empty())?);
    io::copy(&mut File::open(path)?, &mut memory)?;
    // What is open for writing is not started.
    File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()))
}

fn of_two(what: &str, from: &str, to: &str) -> nix::Result<()> {
    let renamed = |from: &str, to: &str| fs::rename(from, to).map_err(errno);
    let exchanged = || renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE).map_err(same);
    match what {
        "link" => {
            fs::hard_link(from, to).map_err(errno)?;
            fs::remove_file(to).map_err(errno)
        }
        "rename" => {
            renamed(from, to)?;
            renamed(to, from)
        }
        "exchange" => {
            exchanged()?;
            exchanged()
        }
        "bind" => {
            mount_bind(from, to).map_err(same)?;
            unmount(to, UnmountFlags::DETACH).map_err(same)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn same(error: rustix::io::Errno) -> Errno {
    errno(io::Error::from(error))
}

/// Opens files for writing, says so, and writes each its text when the path `end` is there. Says
/// what came of it.
pub(super) fn hold(end: &str, files: &[&str]) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for file in files {
        let (path, text) = file.split_once('=').context("PATH=TEXT")?;
        let open = File::options().write(true).open(path);
        held.push((open.with_context(|| path.to_owned())?, text));
    }
    println!("open");
    while !Path::new(end).exists() {
        thread::sleep(Duration::from_millis(2));
    }
    for (mut file, text) in held {
        match file.write_all(text.as_bytes()).map_err(errno) {
            Ok(()) => println!("written"),
            Err(errno) => println!("{errno:?}"),
        }
    }
    Ok(())
}
