//! Where an image comes from. Each source ends in the same: a config and the layers' blobs.

pub(crate) mod docker;
pub(crate) mod files;
pub(crate) mod layout;
pub(crate) mod registry;

pub(crate) use self::files::{Files, Part};
use crate::layer::Expected;

/// An image, found and not yet unpacked.
#[derive(Debug)]
pub(crate) struct Found {
    /// The config's bytes; their digest is the image's id.
    pub(crate) config: Vec<u8>,
    /// The lowest first.
    pub(crate) layers: Vec<Blob>,
}

/// A layer as it was packed.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) expected: Expected,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) enum Place {
    Here(Part),
    /// In the registry, to be fetched.
    Remote,
}
