//! Receivers of the test's own: each gets every event, whatever it did before.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::net::UnixDatagram,
    thread,
    time::Instant,
};

use super::*;
use crate::{bus::Subject, event::Actor, fixture::Dir, store::Bounds};

/// A prime, more than a chunk.
const COUNT: u64 = 613;

fn exec(number: u64) -> Kind {
    Kind::Exec {
        actor: Actor::default(),
        filename: format!("/{number}"),
    }
}

fn publish(bus: &Bus, numbers: std::ops::Range<u64>) {
    let subject = Subject {
        name: Some("web".to_owned()),
        id: Some("abcd".to_owned()),
    };
    for number in numbers {
        bus.publish(crate::clock::now_ns(), subject.clone(), exec(number));
    }
}

struct Place {
    dir: Dir,
    store: Arc<Store>,
    bus: Arc<Bus>,
    shipped: Arc<Shipped>,
    shutdown: watch::Sender<bool>,
}

impl Place {
    fn new() -> Self {
        let dir = Dir::new();
        let bounds = Bounds {
            max_bytes: 16 << 20,
            max_age: Duration::from_hours(1),
        };
        let counter = dir.path().join("next");
        let (store, bus) = Store::open(&dir.path().join("data"), "test", &counter, bounds);
        Self {
            dir,
            store: Arc::new(store),
            bus,
            shipped: Arc::new(Shipped::new("otlp")),
            shutdown: watch::Sender::new(false),
        }
    }

    fn shipping(&self) -> Shipping {
        Shipping {
            bus: Arc::clone(&self.bus),
            store: Arc::clone(&self.store),
            shutdown: self.shutdown.subscribe(),
            shipped: Arc::clone(&self.shipped),
            cursor: 0,
            failing: false,
        }
    }

    async fn got_all(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.shipped.cursor() < COUNT {
            assert!(Instant::now() < end, "{:?}", self.shipped);
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Answers each request by the next status, the last one for ever; what was in those with 200.
fn collector(statuses: &[u16]) -> (Endpoint, thread::JoinHandle<Vec<u64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let statuses = statuses.to_vec();
    let thread = thread::spawn(move || {
        let mut got = Vec::new();
        let mut requests = 0;
        while got.len() < usize::try_from(COUNT).unwrap() {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut bytes, mut buffer) = (Vec::new(), [0; 8192]);
            let body = loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    assert!(head.starts_with("POST /v1/logs HTTP/1.1"), "{head}");
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() == length.unwrap().parse::<usize>().unwrap() {
                        break body.to_owned();
                    }
                }
                let count = stream.read(&mut buffer).unwrap();
                bytes.extend_from_slice(&buffer[..count]);
            };
            let status = statuses.get(requests).or(statuses.last()).copied().unwrap();
            requests += 1;
            if status == 200 {
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                let records = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
                for record in records.as_array().unwrap() {
                    let message = record["body"]["stringValue"].as_str().unwrap();
                    got.push(message.rsplit('/').next().unwrap().parse().unwrap());
                }
            }
            write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}"
            )
            .unwrap();
        }
        got
    });
    (endpoint.parse().unwrap(), thread)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_each_event_in_order_also_after_it_was_busy() {
    let place = Place::new();
    let (endpoint, collector) = collector(&[503, 200, 429, 200]);
    let shipping = tokio::spawn(place.shipping().run(Otlp::new(endpoint)));
    sleep(Duration::from_millis(100)).await;
    publish(&place.bus, 0..COUNT);
    place.got_all().await;
    let got = collector.join().unwrap();
    assert_eq!(got, (0..COUNT).collect::<Vec<_>>());
    assert_eq!((place.shipped.sent(), place.shipped.errors()), (COUNT, 2));
    place.shutdown.send_replace(true);
    shipping.await.unwrap();
    // The next one would go on there.
    assert!(place.store.close(&place.bus));
    assert_eq!(
        place.store.reader().unwrap().cursor("otlp").unwrap(),
        Some(COUNT)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_answers_slows_nobody() {
    let place = Place::new();
    // It takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let shipping = tokio::spawn(place.shipping().run(Otlp::new(endpoint.parse().unwrap())));
    sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    publish(&place.bus, 0..10_000);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    sleep(Duration::from_secs(1)).await;
    assert_eq!(place.shipped.sent(), 0);
    place.shutdown.send_replace(true);
    let start = Instant::now();
    shipping.await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "it waits for no answer at the end"
    );
    assert!(place.store.close(&place.bus));
}

#[tokio::test(flavor = "multi_thread")]
async fn journald_gets_each_event_also_where_it_comes_late_and_is_slow() {
    let place = Place::new();
    let path = place.dir.path().join("journal");
    let shipping = tokio::spawn(place.shipping().run(Journald::to(&path)));
    sleep(Duration::from_millis(100)).await;
    publish(&place.bus, 0..COUNT);
    sleep(Duration::from_millis(300)).await;
    let journal = UnixDatagram::bind(&path).unwrap();
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while got.len() < usize::try_from(COUNT).unwrap() {
            let count = journal.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            let field = |name: &str| {
                let mut lines = text.lines();
                lines.find_map(|line| {
                    line.strip_prefix(name)?
                        .strip_prefix('=')
                        .map(str::to_owned)
                })
            };
            assert_eq!(field("PADDOCK_CONTAINER").as_deref(), Some("web"));
            assert_eq!(field("PADDOCK_EVENT").as_deref(), Some("exec"));
            assert_eq!(field("PRIORITY").as_deref(), Some("6"));
            let message = field("MESSAGE").unwrap();
            got.push(message.rsplit('/').next().unwrap().parse::<u64>().unwrap());
            if got.len() % 100 == 0 {
                thread::sleep(Duration::from_millis(20));
            }
        }
        got
    });
    place.got_all().await;
    assert_eq!(reader.join().unwrap(), (0..COUNT).collect::<Vec<_>>());
    place.shutdown.send_replace(true);
    shipping.await.unwrap();
    assert!(place.store.close(&place.bus));
}

#[test]
fn messages_are_one_safe_line() {
    let event = Event {
        schema_version: 1,
        id: 1,
        time_ns: 1,
        container: Some("web".into()),
        container_id: None,
        kind: Kind::Exec {
            actor: Actor::default(),
            filename: "/tmp/\u{1b}[2J\nPRIORITY=0".into(),
        },
    };
    assert_eq!(message(&event), "web: exec /tmp/\\u{1b}[2J\\nPRIORITY=0");
    assert_eq!(priority(&event.kind), 6);
}
