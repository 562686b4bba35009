//! Make a cgroup path in every hierarchy, or in none.
//!
//! v2 gives a cgroup only the controllers that every cgroup above has enabled for its
//! children, so they are enabled top-down; a v1 cpuset is usable only with its lists filled.
//! Another instance may remove an empty parent between two steps: then it starts again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Error, Hierarchies,
    controllers::cpuset,
    delegation::{is_delegated, mark_made},
    discovery::{Hierarchy, Version, WANTED},
    file,
};

/// Each round is lost only to another instance's removal of the same empty parent.
const ROUNDS: u32 = 20;

pub(crate) fn everywhere(hierarchies: &Hierarchies, components: &[&str]) -> Result<(), Error> {
    all(hierarchies, components, true)
}

/// Only where it is not there yet.
pub(crate) fn missing(hierarchies: &Hierarchies, components: &[&str]) -> Result<(), Error> {
    all(hierarchies, components, false)
}

fn all(hierarchies: &Hierarchies, components: &[&str], new: bool) -> Result<(), Error> {
    let mut made = Made::default();
    for hierarchy in hierarchies.all() {
        one(hierarchy, components, new, &mut made)?;
    }
    made.keep();
    Ok(())
}

/// Directories made so far; removed again, last first, unless kept.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn keep(mut self) {
        self.0.clear();
    }

    fn undo(&mut self, from: usize) {
        for dir in self.0.drain(from..).rev() {
            // Someone else may have put a cgroup below a parent by now; then it stays, as theirs.
            drop(fs::remove_dir(dir));
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.undo(0);
    }
}

fn one(
    hierarchy: &Hierarchy,
    components: &[&str],
    new: bool,
    made: &mut Made,
) -> Result<(), Error> {
    let before = made.0.len();
    let mut round = 1;
    loop {
        match attempt(hierarchy, components, new, made) {
            Err(error) if error.is_gone() && round < ROUNDS && hierarchy.mount.is_dir() => {
                made.undo(before);
                round += 1;
            }
            other => return other,
        }
    }
}

fn attempt(
    hierarchy: &Hierarchy,
    components: &[&str],
    new: bool,
    made: &mut Made,
) -> Result<(), Error> {
    let Some((last, above)) = components.split_last() else {
        return Ok(());
    };
    let parent = above
        .iter()
        .fold(hierarchy.mount.clone(), |dir, component| {
            dir.join(component)
        });
    let dir = parent.join(last);
    // Nearly always the parents are there, ready, from the container before.
    let ready = hands_down(hierarchy, &parent);
    match ready.then(|| make(&dir, new, made)) {
        Some(Err(error)) if !error.is_gone() => return Err(error),
        Some(Ok(())) => {}
        Some(Err(_)) | None => {
            make_parents(hierarchy, above, made)?;
            make(&dir, new, made)?;
        }
    }
    if has_v1_cpuset(hierarchy) {
        cpuset::inherit_v1(&dir)?;
    }
    Ok(())
}

fn has_v1_cpuset(hierarchy: &Hierarchy) -> bool {
    hierarchy.version == Version::V1 && hierarchy.controllers.contains("cpuset")
}

/// Of [`WANTED`], what a v2 hierarchy has.
fn wanted(hierarchy: &Hierarchy) -> impl Iterator<Item = &'static str> {
    let v2 = hierarchy.version == Version::V2;
    WANTED
        .into_iter()
        .filter(move |controller| v2 && hierarchy.controllers.contains(*controller))
}

/// Whether what is made in `parent` has all that it should.
fn hands_down(hierarchy: &Hierarchy, parent: &Path) -> bool {
    let mut wanted = wanted(hierarchy).peekable();
    if wanted.peek().is_none() {
        return true;
    }
    file::read(&parent.join("cgroup.subtree_control")).is_ok_and(|enabled| {
        wanted.all(|controller| enabled.split_whitespace().any(|word| word == controller))
    })
}

fn make_parents(hierarchy: &Hierarchy, above: &[&str], made: &mut Made) -> Result<(), Error> {
    let mut dir = hierarchy.mount.clone();
    for (at, component) in above.iter().enumerate() {
        enable_wanted(hierarchy, &dir, &above[at..])?;
        dir.push(component);
        make(&dir, false, made)?;
        // What somebody else made stays as it is.
        let new = made.0.last() == Some(&dir);
        if new && hierarchy.version == Version::V1 {
            mark_made(&dir);
        }
        if has_v1_cpuset(hierarchy) {
            cpuset::inherit_v1(&dir)?;
            if new {
                cpuset::hand_down_v1(&dir);
            }
        }
    }
    enable_wanted(hierarchy, &dir, &[])
}

fn enable_wanted(hierarchy: &Hierarchy, dir: &Path, below: &[&str]) -> Result<(), Error> {
    for controller in wanted(hierarchy) {
        // A controller that cannot be enabled matters only to the limit that needs it, which
        // tries again and then says why.
        match enable(dir, controller, below) {
            Err(error) if error.is_gone() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn make(dir: &Path, must_be_new: bool, made: &mut Made) -> Result<(), Error> {
    match fs::create_dir(dir) {
        Ok(()) => {
            made.0.push(dir.to_owned());
            Ok(())
        }
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists && !must_be_new => Ok(()),
        Err(source) => Err(Error::Io {
            op: "create cgroup",
            path: dir.to_owned(),
            source,
        }),
    }
}

/// Enables one controller for the children of every cgroup above the last component.
pub(crate) fn enable_on_the_way(
    mount: &Path,
    components: &[&str],
    controller: &str,
) -> Result<(), Error> {
    let mut dir = mount.to_owned();
    for (at, component) in components.iter().enumerate() {
        enable(&dir, controller, &components[at..])?;
        dir.push(component);
    }
    Ok(())
}

/// Lets `dir`'s children use `controller`; nothing to do where they can. Above a cgroup that was
/// delegated on the way `below`, that is systemd's to do.
fn enable(dir: &Path, controller: &str, below: &[&str]) -> Result<(), Error> {
    let path = dir.join("cgroup.subtree_control");
    if file::read(&path)?
        .split_whitespace()
        .any(|enabled| enabled == controller)
    {
        return Ok(());
    }
    let mut deeper = dir.to_owned();
    for component in below {
        deeper.push(component);
        if is_delegated(&deeper) {
            return Err(Error::Enable {
                controller: controller.to_owned(),
                path: dir.to_owned(),
                hint: ": it is systemd's; Delegate=yes in the unit of the cgroup below asks for it",
                source: io::ErrorKind::PermissionDenied.into(),
            });
        }
    }
    match file::write(&path, &format!("+{controller}")) {
        Ok(()) => Ok(()),
        Err(Error::Write { source, .. }) => Err(Error::Enable {
            controller: controller.to_owned(),
            path: dir.to_owned(),
            hint: hint(&source),
            source,
        }),
        Err(error) => Err(error),
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(nix::libc::EBUSY) => {
            ": processes sit in that cgroup itself; move them into a child of it first"
        }
        Some(nix::libc::ENOENT) => ": its parent does not hand the controller down",
        _ => "",
    }
}
