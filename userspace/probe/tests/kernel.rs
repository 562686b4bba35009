//! The kernel half on the running kernel: what containers do is attributed, judged and counted.
//!
//! Needs root, a cgroup v2 mount, and util-linux. The truth is stated by what the test itself
//! did: known numbers of calls, inode numbers from procfs.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use paddock_probe::{
    Body, CgroupKey, Config, EscapeKind, NsSyscall, NsType, Outcome, Probe, Record, Ring, Shares,
    Slot, Target, Verdict,
};

/// A v2 cgroup that goes away with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts
            .lines()
            .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
            .unwrap();
        let root = Path::new(mount.split(' ').nth(1).unwrap());
        let path = root.join(format!("paddock-probe-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn key(&self) -> CgroupKey {
        CgroupKey::Unified(fs::metadata(&self.0).unwrap().ino())
    }

    /// Starts a shell script inside; `$1` is `argument`.
    fn spawn(&self, script: &str, argument: &str) -> Child {
        let entered = format!("echo $$ > {}/cgroup.procs\n{script}", self.0.display());
        Command::new("sh")
            .args(["-c", &entered, "sh", argument])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn run(&self, script: &str, argument: &str) -> bool {
        self.spawn(script, argument).wait().unwrap().success()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Killed with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inum(pid: u32, ns: &str) -> u32 {
    let link = fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap_or_default();
    let text = link.to_string_lossy().into_owned();
    let number = text
        .split_once('[')
        .and_then(|(_, rest)| rest.strip_suffix(']'));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "timed out: {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// A process that sleeps in a network namespace of its own.
fn sleeper(cgroup: &Cgroup) -> (Process, String, u32) {
    let child = cgroup.spawn("exec unshare -n sleep 60", "");
    let pid = child.id();
    let ours = inum(std::process::id(), "net");
    wait_until("the sleeper's namespace", || {
        let found = inum(pid, "net");
        found != 0 && found != ours
    });
    (
        Process(child),
        format!("/proc/{pid}/ns/net"),
        inum(pid, "net"),
    )
}

fn setns_calls(records: &[Record]) -> Vec<(Verdict, Target, Option<u32>)> {
    records
        .iter()
        .filter_map(|record| match &record.body {
            Body::NsCall {
                syscall: NsSyscall::Setns,
                verdict,
                targets,
                ..
            } => targets
                .first()
                .map(|target| (*verdict, target.target, target.inum)),
            _ => None,
        })
        .collect()
}

/// What a test that fails leaves in the kernel goes with it.
struct Pins(PathBuf);

impl Pins {
    fn new(name: &str) -> Self {
        let own = format!("paddock-probe-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(own))
    }

    fn config(&self) -> Config {
        Config {
            pin_dir: self.0.join("bpf"),
            force: Vec::new(),
            program_log: false,
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = Probe::unload_pins(&self.0.join("bpf"));
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn containers_are_judged_by_whose_the_target_is() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let pins = Pins::new("judged");
    let config = pins.config();
    let mut probe = Probe::load(&config).unwrap();
    // Whether anything is enforced differs by kernel, and nothing is here.
    let enforces = |capability: &str| matches!(capability, "enforce" | "paths" | "guard");
    let off: Vec<_> = probe
        .capabilities()
        .into_iter()
        .filter(|status| status.rung.is_none() && !enforces(&status.capability))
        .collect();
    assert!(off.is_empty(), "off: {off:?}");
    let mut events = probe.take_events().unwrap();
    let (one, two) = (Cgroup::new("one"), Cgroup::new("two"));
    let (first, second) = (
        probe.allocate_slot().unwrap(),
        probe.allocate_slot().unwrap(),
    );
    probe.track(one.key(), first).unwrap();
    probe.track(two.key(), second).unwrap();

    // Own, peer, host.
    let (_sleeper, net, net_inum) = sleeper(&one);
    let host = inum(std::process::id(), "net");
    assert_eq!(probe.host_namespaces()[NsType::Net.index()], host);
    assert!(one.run("nsenter --net=$1 true", &net));
    assert!(two.run("nsenter --net=$1 true", &net));
    assert!(two.run("nsenter --net=$1 true", "/proc/self/ns/net"));
    // What the container shares with the host by its configuration is its own.
    let mut shares = Shares {
        with_host: NsType::Net.bit(),
        ..Shares::default()
    };
    probe.configure_slot(second, &shares).unwrap();
    assert!(two.run("nsenter --net=$1 true", "/proc/self/ns/net"));
    // What it was put into is its own, too.
    shares.joined[NsType::Net.index()] = net_inum;
    probe.configure_slot(second, &shares).unwrap();
    assert!(two.run("nsenter --net=$1 true", &net));
    shares.joined = Default::default();
    probe.configure_slot(second, &shares).unwrap();
    // A try without the right to it.
    let denied =
        "exec 9<$1; setpriv --reuid 65534 --clear-groups nsenter --net=/proc/self/fd/9 true 2>&-";
    assert!(!two.run(denied, &net));
    let records = events.drain().records;
    assert_eq!(
        setns_calls(&records),
        [
            // The critical ring comes first.
            (Verdict::Escape, Target::Peer, Some(net_inum)),
            (Verdict::Escape, Target::Host, Some(host)),
            // nsenter tries twice: before a user namespace would be joined, and after.
            (Verdict::EscapeAttempt, Target::Peer, Some(net_inum)),
            (Verdict::EscapeAttempt, Target::Peer, Some(net_inum)),
            (Verdict::Benign, Target::Own, Some(net_inum)),
            (Verdict::Benign, Target::Own, Some(host)),
            (Verdict::Benign, Target::Own, Some(net_inum)),
        ]
    );
    let counters = probe.slot_counters(second).unwrap();
    assert_eq!(
        counters.escapes(EscapeKind::PeerNamespace, Outcome::Allowed),
        1
    );
    assert_eq!(
        counters.escapes(EscapeKind::PeerNamespace, Outcome::Failed),
        2
    );
    assert_eq!(
        counters.escapes(EscapeKind::HostNamespace, Outcome::Allowed),
        1
    );
    assert_eq!(counters.calls(NsSyscall::Setns, Outcome::Allowed), 4);
    assert_eq!(
        counters.ns_calls(NsSyscall::Setns, NsType::Net, Outcome::Failed),
        2
    );
    assert_eq!(
        probe
            .slot_counters(first)
            .unwrap()
            .calls(NsSyscall::Setns, Outcome::Allowed),
        1
    );

    exempt_until_exec(&mut probe, &two, second);
    nested_cgroups_inherit(&probe, &one, first);
    floods_are_accounted(&probe, &mut events, &one, first);

    probe.release_slots(&[first]).unwrap();
    assert_eq!(
        probe
            .slot_counters(first)
            .unwrap()
            .calls(NsSyscall::Unshare, Outcome::Allowed),
        0
    );
    assert_eq!(probe.slots(), [second]);
    assert_eq!(probe.tracked().unwrap(), [(two.key(), second)]);
    probe.unload().unwrap();
    assert!(!config.pin_dir.exists());
}

/// Set-up makes a namespace outside of the slot; the child's exec inside makes it the slot's.
fn exempt_until_exec(probe: &mut Probe, cgroup: &Cgroup, slot: Slot) {
    let script = format!(
        "read go; echo $$ > {}/cgroup.procs; (exec sleep 60) & wait",
        cgroup.0.display()
    );
    let mut setup = Process(
        Command::new("unshare")
            .args(["-n", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let pid = setup.0.id();
    let ours = inum(std::process::id(), "net");
    wait_until("the set-up's namespace", || {
        ![0, ours].contains(&inum(pid, "net"))
    });
    wait_until("the set-up's shell", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sh\n")
    });
    let before = probe.slot_counters(slot).unwrap();
    probe.exempt(pid).unwrap();
    setup.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    let procs = cgroup.0.join("cgroup.procs");
    wait_until("the set-up's child", || {
        fs::read_to_string(&procs).is_ok_and(|pids| {
            // Asleep: it has its name before the kernel tells that it runs.
            pids.lines().any(|pid| {
                fs::read_to_string(format!("/proc/{pid}/stat"))
                    .is_ok_and(|stat| stat.contains(" (sleep) S "))
            })
        })
    });
    assert!(cgroup.run("nsenter --net=$1 true", &format!("/proc/{pid}/ns/net")));
    let after = probe.slot_counters(slot).unwrap();
    let peer = |counters: &paddock_probe::SlotCounters| {
        counters.escapes(EscapeKind::PeerNamespace, Outcome::Allowed)
    };
    assert_eq!(
        peer(&after),
        peer(&before),
        "the set-up's namespace is the container's own"
    );
    for pid in fs::read_to_string(&procs).unwrap().lines() {
        let _ = Command::new("kill").args(["-9", pid]).status();
    }
}

fn nested_cgroups_inherit(probe: &Probe, cgroup: &Cgroup, slot: Slot) {
    let sub = Cgroup(cgroup.0.join("sub"));
    fs::create_dir(&sub.0).unwrap();
    assert!(probe.tracked().unwrap().contains(&(sub.key(), slot)));
    let before = probe
        .slot_counters(slot)
        .unwrap()
        .calls(NsSyscall::Unshare, Outcome::Allowed);
    assert!(sub.run("for i in $(seq 23); do unshare -u true; done", ""));
    let after = probe
        .slot_counters(slot)
        .unwrap()
        .calls(NsSyscall::Unshare, Outcome::Allowed);
    assert_eq!(after - before, 23);
    let key = sub.key();
    drop(sub);
    assert!(!probe.tracked().unwrap().contains(&(key, slot)));
}

/// Nobody reads while thousands of records come: the account must still be even.
fn floods_are_accounted(
    probe: &Probe,
    events: &mut paddock_probe::EventReader,
    cgroup: &Cgroup,
    slot: Slot,
) {
    for _ in 0..3000 {
        let sub = cgroup.0.join("flood");
        fs::create_dir(&sub).unwrap();
        fs::remove_dir(&sub).unwrap();
    }
    while !events.drain().records.is_empty() {}
    let delivered = events.delivered();
    for (ring, counters) in probe.ring_counters().unwrap() {
        assert_eq!(
            counters.seen,
            counters.parts().iter().map(|(_, count)| count).sum::<u64>(),
            "{ring:?}"
        );
        assert_eq!(counters.submitted, delivered[ring as usize], "{ring:?}");
        assert_eq!(
            counters.lost_ring_full > 0,
            ring == Ring::Events,
            "{ring:?}"
        );
    }
    let own = probe.slot_counters(slot).unwrap().ring(Ring::Events);
    assert_eq!(
        own.seen,
        own.parts().iter().map(|(_, count)| count).sum::<u64>()
    );
    assert!(own.seen >= 6000);
}

#[test]
fn a_successor_takes_over_without_a_gap() {
    let pins = Pins::new("adopted");
    let config = pins.config();
    let cgroup = Cgroup::new("adopted");
    let mut probe = Probe::load(&config).unwrap();
    let slot = probe.allocate_slot().unwrap();
    probe.track(cgroup.key(), slot).unwrap();
    let capabilities = probe.capabilities();
    drop(probe);
    // Nobody is there, and still it counts.
    assert!(cgroup.run("for i in 1 2 3 4 5; do unshare -u true; done", ""));
    let probe = Probe::load(&config).unwrap();
    assert!(probe.adopted());
    assert_eq!(probe.capabilities(), capabilities);
    assert_eq!(probe.slots(), [slot]);
    assert_eq!(probe.tracked().unwrap(), [(cgroup.key(), slot)]);
    let counted = probe
        .slot_counters(slot)
        .unwrap()
        .calls(NsSyscall::Unshare, Outcome::Allowed);
    assert_eq!(counted, 5);
    drop(probe);
    // Another rung is another kernel half: its programs are put in the place of those, and the
    // maps stay.
    let force = vec![("setns".to_owned(), "tracepoint".to_owned())];
    let probe = Probe::load(&Config {
        force,
        ..config.clone()
    })
    .unwrap();
    assert!(probe.adopted());
    assert_eq!(probe.slots(), [slot]);
    assert_eq!(probe.capabilities()[0].rung.as_deref(), Some("tracepoint"));
    assert!(cgroup.run("for i in 1 2 3 4 5 6 7; do unshare -u true; done", ""));
    let counted = probe
        .slot_counters(slot)
        .unwrap()
        .calls(NsSyscall::Unshare, Outcome::Allowed);
    assert_eq!(counted, 12);
    drop(probe);
    Probe::unload_pins(&config.pin_dir).unwrap();
    Probe::unload_pins(&config.pin_dir).unwrap();
    assert!(!config.pin_dir.exists());
}
