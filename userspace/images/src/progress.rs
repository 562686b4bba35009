//! What a pull tells while it works, and how it is told to stop.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{digest::Digest, error::Error};

/// One who watches; called from the thread that pulls and those that unpack for it. Layers are
/// counted from 0, the lowest.
pub trait Progress: Sync {
    /// Another pull works in this store.
    fn waiting(&self);
    /// `total`: bytes of the blob, where that is known.
    fn begin(&self, layer: usize, digest: Digest, total: Option<u64>);
    /// More bytes are here: from the registry, then again while they are unpacked.
    fn advance(&self, layer: usize, bytes: u64);
    /// All of it came; now it is unpacked.
    fn unpacking(&self, layer: usize);
    /// `present`: it was in the store already.
    fn done(&self, layer: usize, present: bool);
}

/// Set by who wants a pull to end; looked at at every chunk of data.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_set() {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}

/// Tells how much passes and ends the reading when it is to stop.
pub(crate) struct Watched<'a, R> {
    pub(crate) inner: R,
    pub(crate) layer: usize,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) cancel: &'a Cancel,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_set() {
            // Not `Interrupted`, after which readers try again.
            return Err(io::Error::other("interrupted"));
        }
        let read = self.inner.read(buffer)?;
        self.progress.advance(self.layer, read as u64);
        Ok(read)
    }
}
