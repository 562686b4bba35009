//! How long a connection may be in which state. Silence between two requests may be long, a head
//! that has begun and an answer may not.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::Instant,
};

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// For a seat.
    pub(super) seat: Duration,
    pub(super) handshake: Duration,
    /// From the connection or a head's first byte to its last.
    pub(super) head: Duration,
    /// For the making of an answer, a password's check included.
    pub(super) request: Duration,
    /// From a head's end to the answer's last byte.
    pub(super) answer: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
}

impl Times {
    pub(super) const USUAL: Self = Self {
        seat: Duration::from_secs(2),
        handshake: Duration::from_secs(10),
        head: Duration::from_secs(10),
        request: Duration::from_secs(30),
        answer: Duration::from_mins(1),
        idle: Duration::from_secs(150),
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Head,
    Serving,
    /// The end of an answer.
    Answering,
}

/// Until when it may be so.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    tell: Arc<watch::Sender<(State, Instant)>>,
    times: Times,
}

impl Phase {
    pub(super) fn new(times: Times) -> (Self, watch::Receiver<(State, Instant)>) {
        let (sender, receiver) = watch::channel((State::Head, Instant::now() + times.head));
        let tell = Arc::new(sender);
        (Self { tell, times }, receiver)
    }

    pub(super) fn serving(&self) {
        self.is(State::Serving, self.times.answer);
    }

    fn is(&self, state: State, time: Duration) {
        self.tell.send_replace((state, Instant::now() + time));
    }

    fn state(&self) -> State {
        self.tell.borrow().0
    }

    fn heard(&self) {
        if self.state() == State::Waiting {
            self.is(State::Head, self.times.head);
        }
    }

    /// All of an answer has been taken over, and what is flushed from here on is its end. Its time
    /// has begun with the request.
    fn whole(&self) {
        self.tell.send_if_modified(|(state, _)| {
            let is = *state == State::Serving;
            if is {
                *state = State::Answering;
            }
            is
        });
    }

    fn answered(&self) {
        if self.state() == State::Answering {
            self.is(State::Waiting, self.times.idle);
        }
    }
}

/// The body of an answer, which tells when all of it has been taken: one that comes bit by bit is
/// flushed many times before.
#[derive(Debug)]
pub(super) struct Told<B> {
    pub(super) body: B,
    pub(super) phase: Phase,
}

impl<B: Body + Unpin> Body for Told<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Told<B> {
    fn drop(&mut self) {
        self.phase.whole();
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
