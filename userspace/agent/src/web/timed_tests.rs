//! Each limit ends what it is for and nothing else: that one is short, the others are hours. Who
//! comes too early or is not counted fails; a slow machine only makes it late.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Door, serve, serve::SEATS, timed::Times};
use crate::fixture::Dir;

const HOUR: Duration = Duration::from_hours(1);
const HOURS: Times = Times {
    seat: HOUR,
    handshake: HOUR,
    head: HOUR,
    request: HOUR,
    answer: HOUR,
    idle: HOUR,
};
const SHORT: Duration = Duration::from_millis(400);
/// Nobody waits so long, however slow the machine is.
const LONGEST: Duration = Duration::from_mins(1);
/// More than both ends' sockets keep.
const MUCH: usize = 64 << 20;
const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

struct Server {
    door: Arc<Door>,
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn with(mut door: Door, times: Times) -> Self {
        door.times = times;
        let door = Arc::new(door);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "here\n"))
            .route("/much", get(async || vec![b'x'; MUCH]))
            .route(
                "/never",
                get(async || std::future::pending::<String>().await),
            )
            .route("/drips", get(async || Body::from_stream(drips())));
        let shutdown = watch::Sender::new(false);
        let down = shutdown.subscribe();
        let serving = tokio::spawn(serve(Arc::clone(&door), listener, router, down));
        Self {
            door,
            address,
            shutdown,
            serving,
        }
    }

    fn of(times: Times) -> Self {
        Self::with(Door::new(None).unwrap(), times)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn asked(&self, what: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(what).await.unwrap();
        stream
    }

    fn refused(&self) -> Vec<(&'static str, u64)> {
        let all = self.door.refusals();
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// An agent's end waits for nobody who is silent.
    async fn end(self) {
        self.shutdown.send_replace(true);
        timeout(LONGEST, self.serving)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

/// A letter each tenth of [`SHORT`].
fn drips() -> impl futures_util::Stream<Item = Result<&'static str, Infallible>> {
    futures_util::stream::unfold((), async |()| {
        sleep(SHORT / 10).await;
        Some((Ok("x"), ()))
    })
}

/// What still came until the connection was closed, and how long that took.
async fn until_closed(stream: &mut TcpStream, since: Instant) -> (Vec<u8>, Duration) {
    let mut came = Vec::new();
    // A reset is an end as well.
    let _ = timeout(LONGEST, stream.read_to_end(&mut came))
        .await
        .expect("it is kept");
    (came, since.elapsed())
}

async fn answer(stream: &mut TcpStream) {
    let mut came = Vec::new();
    while !came.ends_with(b"here\n") {
        let mut buffer = [0; 512];
        let count = timeout(LONGEST, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&came));
        came.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn the_guide_names_them() {
    let guide = include_str!("../../../../docs/guides/web.md").replace('\n', " ");
    let Times {
        seat,
        handshake,
        head,
        request,
        answer,
        idle,
    } = Times::USUAL;
    assert_eq!(handshake, head);
    assert!(request < answer);
    for says in [
        format!("{SEATS} connections at a time"),
        format!("have {} s each", head.as_secs()),
        format!("an answer {} s to the last byte", answer.as_secs()),
        format!("a silent connection {} s", idle.as_secs()),
        format!("who finds none for {} s is closed", seat.as_secs()),
    ] {
        assert!(guide.contains(&says), "{says}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_end() {
    for begun in ["", "GET / HTTP/1.1\r\nX: "] {
        let server = Server::of(Times {
            head: SHORT,
            ..HOURS
        });
        let since = Instant::now();
        let mut stream = server.asked(begun.as_bytes()).await;
        let (came, took) = until_closed(&mut stream, since).await;
        assert!(came.is_empty() && took >= SHORT, "{came:?} {took:?}");
        assert_eq!(server.refused(), [("slow", 1)]);
        server.end().await;
    }
    // Neither does the next one's, which has its own time from its first byte on.
    let server = Server::of(Times {
        head: SHORT,
        ..HOURS
    });
    let mut stream = server.asked(ASK).await;
    answer(&mut stream).await;
    sleep(2 * SHORT).await;
    let since = Instant::now();
    stream.write_all(b"GET").await.unwrap();
    let (_, took) = until_closed(&mut stream, since).await;
    assert!(took >= SHORT, "{took:?}");
    assert_eq!(server.refused(), [("slow", 1)]);
    server.end().await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_or_that_does_not_end() {
    for page in ["/much", "/drips"] {
        let server = Server::of(Times {
            answer: SHORT,
            ..HOURS
        });
        let since = Instant::now();
        let ask = format!("GET {page} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut stream = server.asked(ask.as_bytes()).await;
        if page == "/much" {
            while server.refused().is_empty() {
                assert!(since.elapsed() < LONGEST, "it is kept");
                sleep(Duration::from_millis(10)).await;
            }
        }
        let (came, took) = until_closed(&mut stream, since).await;
        assert!(came.starts_with(b"HTTP/1.1 200 OK") && came.len() < MUCH);
        assert!(took >= SHORT, "{took:?}");
        assert_eq!(server.refused(), [("slow", 1)], "{page}");
        server.end().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_not_made() {
    let server = Server::of(Times {
        request: SHORT,
        ..HOURS
    });
    let since = Instant::now();
    let ask = b"GET /never HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut stream = server.asked(ask).await;
    let (came, took) = until_closed(&mut stream, since).await;
    let came = String::from_utf8(came).unwrap();
    assert!(
        came.starts_with("HTTP/1.1 503 ") && came.ends_with("not in time\n"),
        "{came}"
    );
    assert!(took >= SHORT, "{took:?}");
    assert_eq!(server.refused(), [("slow", 1)]);
    server.end().await;
}

#[tokio::test]
async fn silence_between_requests() {
    let server = Server::of(Times {
        idle: SHORT,
        ..HOURS
    });
    let mut stream = server.asked(ASK).await;
    answer(&mut stream).await;
    // Which begins anew with each.
    let mut since = Instant::now();
    for _ in 0..3 {
        sleep(SHORT / 4).await;
        since = Instant::now();
        stream.write_all(ASK).await.unwrap();
        answer(&mut stream).await;
    }
    let (came, took) = until_closed(&mut stream, since).await;
    assert!(came.is_empty() && took >= SHORT, "{came:?} {took:?}");
    // That is how connections end, nobody's fault.
    assert_eq!(server.refused(), []);
    server.end().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_begin() {
    let dir = Dir::new();
    let door = super::tests::door_with_tls(&dir);
    let server = Server::with(
        door,
        Times {
            handshake: SHORT,
            ..HOURS
        },
    );
    let since = Instant::now();
    let mut stream = server.connect().await;
    let (came, took) = until_closed(&mut stream, since).await;
    assert!(came.is_empty() && took >= SHORT, "{came:?} {took:?}");
    assert_eq!(server.refused(), [("handshake", 1)]);
    server.end().await;
}

#[tokio::test]
async fn more_than_there_are_seats_for() {
    let server = Server::of(Times {
        seat: SHORT,
        ..HOURS
    });
    let mut taken = Vec::new();
    for _ in 0..SEATS {
        taken.push(
            server
                .asked(b"GET /drips HTTP/1.1\r\nHost: a\r\n\r\n")
                .await,
        );
    }
    for stream in &mut taken {
        let first = timeout(LONGEST, stream.read_u8()).await.unwrap().unwrap();
        assert_eq!(first, b'H');
    }
    let since = Instant::now();
    let mut late = server.asked(ASK).await;
    let (came, took) = until_closed(&mut late, since).await;
    assert!(came.is_empty() && took >= SHORT, "{came:?} {took:?}");
    assert_eq!(server.refused(), [("full", 1)]);
    // Nobody was thrown out for that, and who leaves makes room.
    taken.pop();
    let mut next = server.asked(ASK).await;
    answer(&mut next).await;
    for stream in &mut taken {
        timeout(LONGEST, stream.read_u8()).await.unwrap().unwrap();
    }
    assert_eq!(server.refused(), [("full", 1)]);
}
