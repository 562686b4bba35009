//! How long a connection may be in which state. Silence between two requests may be long, a head
//! that has begun and an answer may not.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::Instant,
};

/// From the connection or a head's first byte to its last.
const HEAD: Duration = Duration::from_secs(10);
/// From a head's end to the answer's last byte.
const ANSWER: Duration = Duration::from_mins(1);
/// Between two requests.
const IDLE: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Head,
    Serving,
    Answering,
}

/// Until when it may be so.
#[derive(Clone, Debug)]
pub(super) struct Phase(Arc<watch::Sender<(State, Instant)>>);

impl Phase {
    pub(super) fn new() -> (Self, watch::Receiver<(State, Instant)>) {
        let (sender, receiver) = watch::channel((State::Head, Instant::now() + HEAD));
        (Self(Arc::new(sender)), receiver)
    }

    pub(super) fn serving(&self) {
        self.0
            .send_replace((State::Serving, Instant::now() + ANSWER));
    }

    fn state(&self) -> State {
        self.0.borrow().0
    }

    fn heard(&self) {
        if self.state() == State::Waiting {
            self.0.send_replace((State::Head, Instant::now() + HEAD));
        }
    }

    /// Its time has begun with the request.
    fn answering(&self) {
        self.0.send_if_modified(|(state, _)| {
            let is = *state == State::Serving;
            if is {
                *state = State::Answering;
            }
            is
        });
    }

    fn answered(&self) {
        if self.state() == State::Answering {
            self.0.send_replace((State::Waiting, Instant::now() + IDLE));
        }
    }
}

/// A stream that tells of its phases.
#[derive(Debug)]
pub(super) struct Timed<S> {
    pub(super) stream: S,
    pub(super) phase: Phase,
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.phase.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.phase.answering();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.phase.answered();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
