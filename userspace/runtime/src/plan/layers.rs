//! An image's layers as a detached overlay, its upper directory on disk.
//!
//! Where `lowerdir+` is not known (before 6.7), fsconfig takes no more than 255 bytes for all
//! layers: mount(2) takes a page, in the private namespace that `host` uses, too. Its devices
//! cannot be opened: an image may bring nodes for all of the host's disks, and a container has
//! a /dev of paddock's making.
//!
//! Of a container with ids of its own the layers are idmapped mounts (overlayfs takes those from
//! 5.19), which until 6.15 have to be attached somewhere: each on top of its own directory, in
//! the same private namespace. So layers are shared whatever the maps. The upper directory is
//! not mapped: it has to be on one mount with the work directory, and a setuid file of a
//! container's root is better kept as its own host id's than as root's.
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
    idmap::{self, Owners},
    rootfs::{in_private_namespace, make_private, open_path},
};
use crate::{
    spec::{IdMaps, Layers},
    sys::mount::{NODEV, Param, attach, clone_tree, new_filesystem},
};

/// The step's name, which [`crate::record::Failed::explain`] knows.
pub(crate) const OWNERS: &str = "map owners of an image";

/// `scratch` is any directory that exists: it is mounted over where nobody sees it.
pub(super) fn image(
    layers: &Layers,
    maps: Option<&IdMaps>,
    owners: &mut Owners,
    scratch: &Path,
) -> Result<OwnedFd, Failure> {
    let failed = |errno| Failure::new("overlay", &layers.upper, errno);
    if let Some(maps) = maps {
        return in_private_namespace(|| {
            make_private().map_err(failed)?;
            let mut open = Opened::open(layers)?;
            open.map(layers, maps, owners)?;
            mounted(&open, layers, scratch).map_err(|failure| match failure.errno {
                // Before 5.19; a file system that can't be mapped is refused above.
                Errno::EINVAL => idmap::refused(OWNERS, &layers.upper, "overlay", Errno::EINVAL),
                _ => failure,
            })
        });
    }
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
        Err(Errno::EINVAL) => in_private_namespace(|| {
            make_private().map_err(failed)?;
            // Again, since they are to belong to this namespace.
            mounted(&Opened::open(layers)?, layers, scratch)
        }),
        made => made.map_err(failed),
    }
}

/// By mount(2), in a namespace that is left again.
fn mounted(open: &Opened, layers: &Layers, scratch: &Path) -> Result<OwnedFd, Failure> {
    let failed = |errno| Failure::new("overlay", &layers.upper, errno);
    let lower: Vec<String> = open.lower.iter().map(name).collect();
    let (upper, work) = (name(&open.upper), name(&open.work));
    let options = format!(
        "lowerdir={},upperdir={upper},workdir={work}",
        lower.join(":")
    );
    let kind = Some("overlay");
    mount(
        kind,
        scratch,
        kind,
        MsFlags::MS_NODEV,
        Some(options.as_str()),
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

    /// Puts mapped copies in the layers' places; only for a namespace of the caller's.
    fn map(&mut self, layers: &Layers, maps: &IdMaps, owners: &mut Owners) -> Result<(), Failure> {
        for (layer, path) in self.lower.iter_mut().zip(&layers.lower) {
            let failed = |errno| Failure::new("rootfs layers", path, errno);
            let copy = clone_tree(layer.as_fd(), c"", false).map_err(failed)?;
            owners
                .map(&copy, maps, false, (layer.as_fd(), path))
                .map_err(|failure| Failure {
                    step: if failure.step == idmap::STEP {
                        OWNERS
                    } else {
                        failure.step
                    },
                    ..failure
                })?;
            attach(copy.as_fd(), layer.as_fd()).map_err(failed)?;
            *layer = copy.into();
        }
        Ok(())
    }
}

fn open_layer(path: &Path) -> Result<File, Failure> {
    open_path(path, libc::O_DIRECTORY).map_err(|source| io_failure("rootfs layers", path, &source))
}

fn name(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
