//! Images: references, pulling, verified unpacking, and the store that containers start from.
//!
//! Everything here runs as root on input that others wrote. Nothing of it reaches the store
//! before all of it was read, checked and written: a failure, a signal or a crash leaves the
//! store as it was, and at most a staging directory that the next pull removes.
#![forbid(unsafe_code)]

mod confined;
mod credentials;
mod digest;
mod docker_name;
mod error;
#[cfg(test)]
mod fixture;
mod import;
mod layer;
mod manifest;
mod progress;
mod pull;
mod reference;
mod remove;
mod source;
mod store;
mod writable;

pub use self::{
    digest::Digest,
    error::Error,
    import::import,
    layer::Limits,
    manifest::RunConfig,
    progress::{Cancel, Progress},
    pull::{Pulled, Registries, pull},
    reference::Reference,
    store::{Image, Store, Summary},
    writable::{Writable, sweep},
};
