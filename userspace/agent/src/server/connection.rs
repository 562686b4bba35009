//! Who may connect, and how many at a time.
//!
//! On the unix socket the peer's credentials decide, besides the socket's mode: uid 0 only.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use crate::shared::Shared;

/// After an accept that failed for want of something (file descriptors).
const PAUSE: Duration = Duration::from_millis(200);

/// A listener that accepts root, and only as many as there are seats.
#[derive(Debug)]
pub(super) struct Bounded {
    listener: UnixListener,
    seats: Arc<Semaphore>,
    /// Counts its connections there.
    counted: Arc<Shared>,
}

impl Bounded {
    pub(super) fn new(listener: UnixListener, at_once: usize, counted: Arc<Shared>) -> Self {
        Self {
            listener,
            seats: Arc::new(Semaphore::new(at_once)),
            counted,
        }
    }

    /// `None`: whoever came may not.
    async fn accepted(&self) -> io::Result<Option<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        if uid != 0 {
            tracing::warn!("refused a client with uid {uid}");
            return Ok(None);
        }
        Ok(Some(stream))
    }
}

impl Listener for Bounded {
    type Io = Seated;
    type Addr = ();

    async fn accept(&mut self) -> (Seated, ()) {
        loop {
            let Ok(seat) = Arc::clone(&self.seats).acquire_owned().await else {
                // Nobody closes the semaphore; then nobody would be served either.
                std::future::pending().await
            };
            match self.accepted().await {
                Ok(Some(stream)) => {
                    let seated = Seated {
                        stream,
                        _counted: Counted::new(Arc::clone(&self.counted)),
                        _seat: seat,
                    };
                    return (seated, ());
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!("accept: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that has a seat until it is closed.
#[derive(Debug)]
pub(super) struct Seated {
    stream: UnixStream,
    _counted: Counted,
    _seat: OwnedSemaphorePermit,
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[derive(Debug)]
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        shared.clients.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
