//! The store against a straight filter of the same events, over restarts, bounds and bad files.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Bounds, Past, Start, Store, Wanted, Whose};
use crate::{
    bus::{Bus, Subject},
    clock,
    event::{Actor, Event, Kind, Verdict},
    fixture::Dir,
};

const BOUNDS: Bounds = Bounds {
    max_bytes: 64 << 20,
    max_age: Duration::from_hours(1),
};

struct Place {
    dir: Dir,
}

impl Place {
    fn new() -> Self {
        Self { dir: Dir::new() }
    }

    fn open(&self, bounds: Bounds) -> (Store, Arc<Bus>) {
        let data = self.dir.path().join("data");
        Store::open(&data, "test", &self.counter(), bounds)
    }

    fn counter(&self) -> PathBuf {
        self.dir.path().join("next")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("data/events/test.db")
    }
}

/// As an agent does that ends well.
fn close(place: &Place, store: &Store, bus: &Bus) {
    assert!(store.close(bus));
    fs::remove_file(place.counter()).unwrap();
}

fn call(verdict: Verdict) -> Kind {
    Kind::NamespaceCall {
        syscall: "setns".into(),
        actor: Actor::default(),
        outcome: "allowed".into(),
        errno: None,
        flags: 0,
        fd: None,
        targets: Vec::new(),
        verdict,
    }
}

fn exec(number: u64) -> Kind {
    Kind::Exec {
        actor: Actor::default(),
        filename: format!("/{number}"),
    }
}

fn of(number: u64) -> Subject {
    if number == 0 {
        return Subject::default();
    }
    Subject {
        name: Some(format!("c{}", number % 3)),
        id: Some(format!("{number:x}0123456789abcdef")),
    }
}

/// A bit of everything, the same each time.
fn publish(bus: &Bus, count: u64) {
    for number in 0..count {
        let kind = match number * 7 % 11 {
            0 => call(Verdict::Benign),
            1 => call(Verdict::Escape),
            2 => call(Verdict::EscapeAttempt),
            3 => Kind::Container {
                action: "started".into(),
                exit_code: None,
                oom_killed: None,
            },
            _ => exec(number),
        };
        // Time goes back now and then.
        let time = 1_000_000 + number * 10 - if number % 97 == 0 { 500 } else { 0 };
        bus.publish(
            clock::now_ns() / 1_000_000_000_000 * 1_000_000_000_000 + time,
            of(number % 7),
            kind,
        );
    }
}

fn read(store: Option<&Store>, bus: &Bus, wanted: &Wanted, start: Start) -> Vec<Event> {
    let reader = store.map(|store| store.reader().unwrap());
    let mut past = Past::new(reader, bus.snapshot(), wanted.clone(), start).unwrap();
    let mut events = Vec::new();
    while let Some(lines) = past.next().unwrap() {
        let lines = String::from_utf8(lines).unwrap();
        events.extend(
            lines
                .lines()
                .map(|line| serde_json::from_str::<Event>(line).unwrap()),
        );
    }
    events
}

fn ids(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

/// Ids that were read, and how many were told to be missing.
fn accounted(events: &[Event]) -> (Vec<u64>, u64) {
    let (mut read, mut lost) = (Vec::new(), 0);
    for event in events {
        match event.kind {
            Kind::Lost { count } => lost += count,
            _ => read.push(event.id),
        }
    }
    (read, lost)
}

fn settle(bus: &Bus) {
    let end = Instant::now() + Duration::from_secs(20);
    while bus.first_unsaved() <= bus.snapshot().last {
        assert!(Instant::now() < end, "not stored");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_query_finds_what_a_straight_filter_does() {
    let place = Place::new();
    let (store, bus) = place.open(BOUNDS);
    publish(&bus, 9000);
    settle(&bus);
    // Some that are only in memory, if the writer is not faster.
    publish(&bus, 500);
    let all = read(Some(&store), &bus, &Wanted::default(), Start::All);
    assert_eq!(ids(&all), (1..=9500).collect::<Vec<_>>());
    let base = all[0].time_ns;
    let whose = [
        Whose::All,
        Whose::Id("40123456789abcdef".into()),
        Whose::Reference("c2".into()),
        Whose::Reference("5".into()),
        Whose::Reference("none".into()),
    ];
    let kinds: [&[&'static str]; 4] = [&[], &["exec"], &["exec", "container"], &["oom_kill"]];
    let verdicts: [&[Verdict]; 4] = [
        &[],
        &[Verdict::Benign],
        &[Verdict::Escape, Verdict::EscapeAttempt],
        &[Verdict::Benign, Verdict::Escape],
    ];
    let times = [
        (0, None),
        (base + 40_000, Some(base + 60_000)),
        (0, Some(base + 100)),
        (u64::MAX / 4, None),
    ];
    for whose in whose {
        for kinds in kinds {
            for verdicts in verdicts {
                for (since_ns, until_ns) in times {
                    let wanted = Wanted {
                        whose: whose.clone(),
                        kinds: kinds.to_vec(),
                        verdicts: verdicts.to_vec(),
                        since_ns,
                        until_ns,
                    };
                    let straight: Vec<u64> = all
                        .iter()
                        .filter(|event| wanted.wants(event))
                        .map(|event| event.id)
                        .collect();
                    let found = ids(&read(Some(&store), &bus, &wanted, Start::All));
                    assert_eq!(found, straight, "{wanted:?}");
                    let last = ids(&read(Some(&store), &bus, &wanted, Start::Last(10)));
                    let from = straight.len().saturating_sub(10);
                    assert_eq!(last, straight[from..], "the last of {wanted:?}");
                    let after = read(Some(&store), &bus, &wanted, Start::After(700));
                    let later: Vec<u64> = straight.into_iter().filter(|id| *id > 700).collect();
                    assert_eq!(accounted(&after), (later, 0), "after 700 of {wanted:?}");
                }
            }
        }
    }
    let found = store.find(17).unwrap();
    assert_eq!(found.time_ns, all[16].time_ns);
    assert!(store.find(9501).is_none());
    close(&place, &store, &bus);
}

#[test]
fn ids_go_on_after_an_end_and_what_a_kill_took_is_told() {
    let place = Place::new();
    let (store, bus) = place.open(BOUNDS);
    publish(&bus, 100);
    close(&place, &store, &bus);
    let (store, bus) = place.open(BOUNDS);
    assert_eq!(bus.find(100).map(|event| event.id), Some(100), "remembered");
    publish(&bus, 50);
    settle(&bus);
    // Killed after it gave 7 more, which nobody has stored.
    std::os::unix::fs::FileExt::write_all_at(
        &fs::File::options()
            .write(true)
            .open(place.counter())
            .unwrap(),
        &158_u64.to_le_bytes(),
        0,
    )
    .unwrap();
    bus.close();
    let (next, next_bus) = place.open(BOUNDS);
    publish(&next_bus, 3);
    let told = read(
        Some(&next),
        &next_bus,
        &Wanted::default(),
        Start::After(148),
    );
    let told: Vec<(u64, Option<u64>)> = told
        .iter()
        .map(|event| match event.kind {
            Kind::Lost { count } => (event.id, Some(count)),
            _ => (event.id, None),
        })
        .collect();
    assert_eq!(
        told,
        [
            (149, None),
            (150, None),
            (157, Some(7)),
            (158, None),
            (159, None),
            (160, None)
        ]
    );
    // Also to who wants but one kind, once.
    let wanted = Wanted {
        kinds: vec!["oom_kill"],
        ..Wanted::default()
    };
    let told = read(Some(&next), &next_bus, &wanted, Start::After(152));
    assert_eq!(accounted(&told), (vec![], 5));
    drop(store);
    close(&place, &next, &next_bus);
}

#[test]
fn what_is_too_much_goes_and_what_matters_stays_longer() {
    let place = Place::new();
    let bounds = Bounds {
        max_bytes: 2 << 20,
        ..BOUNDS
    };
    let (store, bus) = place.open(bounds);
    bus.publish(clock::now_ns(), of(1), call(Verdict::Escape));
    for round in 0..20 {
        for number in 0..2000 {
            bus.publish(clock::now_ns(), of(1 + round), exec(number));
        }
        settle(&bus);
    }
    let end = Instant::now() + Duration::from_secs(20);
    while store.stats().bytes() > bounds.max_bytes {
        assert!(Instant::now() < end, "{} bytes", store.stats().bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
    let size = fs::metadata(place.file()).unwrap().len();
    assert!(size < 2 * bounds.max_bytes, "{size}");
    let (kept, lost) = accounted(&read(
        Some(&store),
        &bus,
        &Wanted::default(),
        Start::After(0),
    ));
    assert_eq!(kept[0], 1, "the escape");
    assert!(
        kept[1] > 20_000 && kept.len() > 2000,
        "{} from {}",
        kept.len(),
        kept[1]
    );
    assert_eq!(kept.len() + usize::try_from(lost).unwrap(), 40_001);
    let gone = Wanted {
        whose: Whose::Id(of(1).id.unwrap()),
        ..Wanted::default()
    };
    assert_eq!(read(Some(&store), &bus, &gone, Start::All).len(), 1);
    close(&place, &store, &bus);
}

#[test]
fn what_is_too_old_goes() {
    let place = Place::new();
    let (store, bus) = place.open(BOUNDS);
    let old = clock::now_ns() - 2 * 3_600_000_000_000;
    for number in 0..5000 {
        bus.publish(old, of(1), exec(number));
    }
    close(&place, &store, &bus);
    let (store, bus) = place.open(BOUNDS);
    bus.publish(clock::now_ns(), of(1), exec(0));
    settle(&bus);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let (read, lost) = accounted(&read(
            Some(&store),
            &Bus::new(),
            &Wanted::default(),
            Start::All,
        ));
        // A bus that knows of nothing: only what is stored counts.
        if read.is_empty() && lost == 0 && store.find(1).is_none() {
            break;
        }
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(store.find(5001).is_some());
    close(&place, &store, &bus);
}

#[test]
fn a_bad_file_is_put_aside() {
    for content in [
        &b"no database at all, but long enough to look"[..],
        &[7; 9000],
    ] {
        let place = Place::new();
        let (store, bus) = place.open(BOUNDS);
        publish(&bus, 10);
        close(&place, &store, &bus);
        fs::write(place.file(), content).unwrap();
        let (store, bus) = place.open(BOUNDS);
        publish(&bus, 5);
        settle(&bus);
        assert!(!store.stats().failing());
        assert_eq!(
            fs::read(place.file().with_extension("db.bad")).unwrap(),
            content
        );
        assert!(store.find(5).is_some());
        close(&place, &store, &bus);
    }
    // Another's database.
    let place = Place::new();
    fs::create_dir_all(place.file().parent().unwrap()).unwrap();
    let other = rusqlite::Connection::open(place.file()).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    let (store, bus) = place.open(BOUNDS);
    publish(&bus, 5);
    settle(&bus);
    assert!(store.find(5).is_some());
    assert!(place.file().with_extension("db.bad").exists());
    close(&place, &store, &bus);
}

#[test]
fn a_file_that_breaks_under_the_writer_is_put_aside_too() {
    let place = Place::new();
    let (store, bus) = place.open(BOUNDS);
    publish(&bus, 3000);
    close(&place, &store, &bus);
    let size = fs::metadata(place.file()).unwrap().len();
    let mut bytes = fs::read(place.file()).unwrap();
    // The header and the first page are as they were.
    for byte in &mut bytes[4096..] {
        *byte = 0xa5;
    }
    fs::write(place.file(), bytes).unwrap();
    let (store, bus) = place.open(BOUNDS);
    publish(&bus, 3000);
    settle(&bus);
    let end = Instant::now() + Duration::from_secs(20);
    while store.stats().failing() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    let last = bus.snapshot().last;
    assert!(store.find(last).is_some());
    assert_eq!(
        fs::metadata(place.file().with_extension("db.bad"))
            .unwrap()
            .len(),
        size
    );
    close(&place, &store, &bus);
}

#[test]
fn what_is_anothers_is_not_touched_and_the_agent_goes_on() {
    let place = Place::new();
    fs::create_dir_all(place.file().parent().unwrap()).unwrap();
    let target = place.dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, place.file()).unwrap();
    let (store, bus) = place.open(BOUNDS);
    publish(&bus, 30_000);
    assert!(store.stats().failing() && store.stats().errors() > 0);
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    let read = read(None, &bus, &Wanted::default(), Start::All);
    assert_eq!(read.last().map(|event| event.id), Some(30_000));
    assert!(bus.dropped() > 0, "the rest has room");
    // Out of the way, and all is well again; what found no room is told.
    fs::remove_file(place.file()).unwrap();
    settle(&bus);
    let stored = accounted(&self::read(
        Some(&store),
        &bus,
        &Wanted::default(),
        Start::After(0),
    ));
    assert_eq!(stored.0.len() + usize::try_from(stored.1).unwrap(), 30_000);
    assert!(stored.1 > 0 && !store.stats().failing());
    assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o7777, 0o600);
    close(&place, &store, &bus);
}
