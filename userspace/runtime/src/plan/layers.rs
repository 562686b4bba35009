//! An image's layers as a detached overlay, its upper directory on disk.
//!
//! Where `lowerdir+` is not known (before 6.7), fsconfig takes no more than 255 bytes for all
//! layers: mount(2) takes a page, in the private namespace that `host` uses, too. Its devices
//! cannot be opened: an image may bring nodes for all of the host's disks, and a container has
//! a /dev of paddock's making.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
};

use super::{
    Failure,
    build::{c_string, io_failure},
    rootfs::{in_private_namespace, make_private, open_path},
};
use crate::{
    spec::Layers,
    sys::mount::{NODEV, Param, clone_tree, new_filesystem},
};

/// `scratch` is any directory that exists: it is mounted over where nobody sees it.
pub(super) fn image(layers: &Layers, scratch: &Path) -> Result<OwnedFd, Failure> {
    let failed = |errno| Failure::new("overlay", &layers.upper, errno);
    let open = Opened::open(layers)?;
    let lower = open.lower.iter().map(|layer| (c"lowerdir+", layer));
    let all = lower.chain([(c"upperdir", &open.upper), (c"workdir", &open.work)]);
    let params: Vec<_> = all
        .map(|(key, file)| {
            Ok(Param::String(
                key.to_owned(),
                c_string("overlay", &name(file))?,
            ))
        })
        .collect::<Result<_, Failure>>()?;
    match new_filesystem(c"overlay", &params, NODEV) {
        Err(Errno::EINVAL) => in_private_namespace(|| mounted_image(layers, scratch)),
        made => made.map_err(failed),
    }
}

fn mounted_image(layers: &Layers, scratch: &Path) -> Result<OwnedFd, Failure> {
    let failed = |errno| Failure::new("overlay", &layers.upper, errno);
    make_private().map_err(failed)?;
    // Again, since they are to belong to this namespace.
    let open = Opened::open(layers)?;
    let lower: Vec<String> = open.lower.iter().map(name).collect();
    let (upper, work) = (name(&open.upper), name(&open.work));
    let options = format!(
        "lowerdir={},upperdir={upper},workdir={work}",
        lower.join(":")
    );
    let options = c_string("overlay", &options)?;
    let kind = Some(c"overlay");
    mount(
        kind,
        scratch,
        kind,
        MsFlags::MS_NODEV,
        Some(options.as_c_str()),
    )
    .map_err(failed)?;
    let mounted = open_layer(scratch)?;
    clone_tree(mounted.as_fd(), c"", false).map_err(failed)
}

/// Layers by descriptor: a path to them may be of any length, and hold any character.
struct Opened {
    lower: Vec<File>,
    upper: File,
    work: File,
}

impl Opened {
    fn open(layers: &Layers) -> Result<Self, Failure> {
        let lower = layers.lower.iter().map(|path| open_layer(path));
        Ok(Self {
            lower: lower.collect::<Result<_, _>>()?,
            upper: open_layer(&layers.upper)?,
            work: open_layer(&layers.work)?,
        })
    }
}

fn open_layer(path: &Path) -> Result<File, Failure> {
    open_path(path, libc::O_DIRECTORY).map_err(|source| io_failure("rootfs layers", path, &source))
}

fn name(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
