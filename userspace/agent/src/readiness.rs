//! Descriptors that tokio has no type for, waited on by tokio.

use std::{io, os::fd::AsRawFd};

use tokio::io::unix::AsyncFd;

/// `fd` must give the same descriptor as long as it lives, which is all that tokio asks.
#[expect(
    deprecated,
    reason = "the successor is an unsafe fn for the sake of types whose descriptor changes; \
              what comes here owns one and never replaces it"
)]
pub(crate) fn watch<T: AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(fd)
}
