//! Who may connect, how many at a time, and for how long without a word.
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
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

use crate::shared::Shared;

/// A scraper that is silent for so long is closed, so that silence cannot fill the seats.
pub(super) const IDLE: Duration = Duration::from_secs(150);
/// After an accept that failed for want of something (file descriptors).
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) at_once: usize,
    pub(super) idle: Option<Duration>,
}

/// What can be listened to here.
pub(super) trait Accept: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// `None`: whoever came may not.
    fn accept(&self) -> impl Future<Output = io::Result<Option<Self::Stream>>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<Option<UnixStream>> {
        let (stream, _) = Self::accept(self).await?;
        let uid = stream.peer_cred()?.uid();
        if uid != 0 {
            tracing::warn!("refused a client with uid {uid}");
            return Ok(None);
        }
        Ok(Some(stream))
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<Option<TcpStream>> {
        Self::accept(self).await.map(|(stream, _)| Some(stream))
    }
}

/// A listener that accepts only as many as there are seats.
#[derive(Debug)]
pub(super) struct Bounded<L> {
    listener: L,
    seats: Arc<Semaphore>,
    idle: Option<Duration>,
    /// Counts its connections there.
    counted: Option<Arc<Shared>>,
}

impl<L> Bounded<L> {
    pub(super) fn new(listener: L, limits: Limits, counted: Option<Arc<Shared>>) -> Self {
        let seats = Arc::new(Semaphore::new(limits.at_once));
        Self {
            listener,
            seats,
            idle: limits.idle,
            counted,
        }
    }
}

impl<L: Accept> Listener for Bounded<L> {
    type Io = Seated<L::Stream>;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        loop {
            let Ok(seat) = Arc::clone(&self.seats).acquire_owned().await else {
                // Nobody closes the semaphore; then nobody would be served either.
                std::future::pending().await
            };
            match Accept::accept(&self.listener).await {
                Ok(Some(stream)) => {
                    let counted = self.counted.clone().map(Counted::new);
                    let idle = self.idle.map(|idle| (idle, Box::pin(sleep(idle))));
                    return (
                        Seated {
                            stream,
                            idle,
                            _counted: counted,
                            _seat: seat,
                        },
                        (),
                    );
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
pub(super) struct Seated<S> {
    stream: S,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    _counted: Option<Counted>,
    _seat: OwnedSemaphorePermit,
}

impl<S> Seated<S> {
    /// Silence is over.
    fn heard(&mut self) {
        if let Some((idle, timer)) = &mut self.idle {
            timer.as_mut().reset(Instant::now() + *idle);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => {
                let timer = self.idle.as_mut();
                match timer.map(|(_, timer)| timer.as_mut().poll(context)) {
                    Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    _ => Poll::Pending,
                }
            }
            ready @ Poll::Ready(_) => {
                self.heard();
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.heard();
        }
        written
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
