//! From the kernel half's records to events: named, timed from the epoch, on the bus.
//!
//! The ring only tells; what counts is in the kernel's maps. So a record that cannot be
//! attributed any more is still told, without a name.

use std::{sync::Arc, time::Duration};

use nix::errno::Errno;
use paddock_policy::model::{CAPABILITIES, operation};
use paddock_probe::{
    Actor as Task, BATCH, Body, CapabilityDenial, CgroupOp, Denial, DeviceDenial, EventReader,
    NsSyscall, PathDenial, PeerDenial, Record, Ring, Slot, Tampering, Target, Verdict as Judged,
    network::{direction, protocol},
    policy,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{sync::watch, time::sleep};

use crate::{
    bus::Subject,
    clock,
    container::Container,
    event::{Actor, FileAct, Kind, NamespaceTarget, Peer, Verdict},
    found,
    oom::{self, constraint_name},
    shared::Shared,
};

/// From the rings' end to the next look. Whoever submits to a ring that was read to its end wakes
/// the agent, which costs it more than all else the hook does; what comes in this time is read at
/// once.
const PAUSE: Duration = Duration::from_millis(1);

/// Reads the rings until the agent ends.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut reader: EventReader,
    mut shutdown: watch::Receiver<bool>,
) {
    let before = handed_to_predecessors(&shared, &mut reader);
    let mut early = Vec::new();
    loop {
        let delivered = reader.delivered();
        shared
            .kernel
            .set_delivered([0, 1].map(|ring: usize| before[ring] + delivered[ring]));
        let batch = tokio::select! {
            batch = reader.next() => batch,
            _ = shutdown.wait_for(|down| *down) => return,
        };
        match batch {
            Ok(batch) => {
                shared.kernel.add_undecodable(batch.undecodable);
                let boot_ns = clock::boot_ns();
                let whole = batch.records.len() < BATCH;
                for record in batch.records {
                    if is_early(&shared, &record) {
                        early.push(record);
                    } else {
                        tell(&shared, boot_ns, &record);
                    }
                }
                // Both rings were seen to their end.
                if whole || early.len() >= BATCH {
                    for record in early.drain(..) {
                        tell(&shared, boot_ns, &record);
                    }
                }
                if whole {
                    sleep(PAUSE).await;
                }
            }
            Err(error) => {
                tracing::error!("events end here: {}", crate::chain::chain(&error));
                return;
            }
        }
    }
}

/// The critical ring is read first: what its container was born with is in the other one.
fn is_early(shared: &Shared, record: &Record) -> bool {
    record.ring == Ring::Critical
        && record.slot != Slot(0)
        && shared.registry.of_slot(record.slot).is_none()
}

/// Records that were submitted and are not in the rings any more when this agent starts.
fn handed_to_predecessors(shared: &Arc<Shared>, reader: &mut EventReader) -> [u64; 2] {
    let submitted = || {
        let mut counts = [0; 2];
        for (ring, counters) in shared.kernel.rings().into_iter().flatten() {
            counts[usize::from(ring == Ring::Events)] = counters.submitted;
        }
        counts
    };
    // What comes between the two readings would be counted twice: until nothing does, or for long enough.
    let mut before = submitted();
    for _ in 0..10 {
        let batch = reader.drain();
        let boot_ns = clock::boot_ns();
        shared.kernel.add_undecodable(batch.undecodable);
        for record in &batch.records {
            tell(shared, boot_ns, record);
        }
        let after = submitted();
        if after == before {
            break;
        }
        before = after;
    }
    let delivered = reader.delivered();
    [0, 1].map(|ring: usize| before[ring].saturating_sub(delivered[ring]))
}

fn tell(shared: &Arc<Shared>, boot_ns: u64, record: &Record) {
    found::born(shared, record);
    if shared.canary.hears(record, boot_ns) {
        return;
    }
    let container = if record.slot == Slot(0) {
        None
    } else {
        shared.registry.of_slot(record.slot)
    };
    if container.is_none() && shared.found.is_nobodys(record.slot) {
        if let Body::Cgroup { op, path, .. } = &record.body {
            found::noticed(shared, *op, path);
        }
        return;
    }
    let refused = match &record.body {
        Body::PeerDenial(denial) => denial.action,
        Body::DeviceDenial(denial) => denial.action,
        _ => policy::ACTION_ALLOW,
    };
    if refused == policy::ACTION_KILL {
        // The program that refused it may not send a signal.
        kill(&record.actor, record.time_ns);
    }
    let kind = kind(shared, record, container.as_deref());
    if let (
        Some(container),
        Body::OomKill {
            constraint,
            limit_bytes,
            ..
        },
    ) = (&container, &record.body)
    {
        let main = matches!(
            kind,
            Kind::OomKill {
                main_process: true,
                ..
            }
        );
        container.told_oom_kill(main, constraint_name(*constraint), *limit_bytes);
    }
    if let Body::Cgroup { op, path, .. } = &record.body {
        found::noticed(shared, *op, path);
        if container.is_none() {
            // Told for finding containers; what it makes one is an event of its own.
            return;
        }
    }
    if let Body::Denial(_) = &record.body {
        shared.policies.stir();
    }
    if let (Some(container), Body::NsCall { .. }) = (&container, &record.body) {
        found::unsettled(container);
    }
    let subject = container.map_or_else(Subject::default, |container| container.subject());
    shared.bus.publish(boot_ns + record.time_ns, subject, kind);
}

fn kind(shared: &Shared, record: &Record, container: Option<&Container>) -> Kind {
    match &record.body {
        Body::NsCall {
            syscall,
            flags,
            fd,
            ret,
            verdict,
            targets,
        } => Kind::NamespaceCall {
            syscall: syscall_name(*syscall).to_owned(),
            actor: actor(&record.actor),
            outcome: outcome(*ret),
            errno: errno(*ret),
            flags: *flags,
            fd: *fd,
            targets: targets
                .iter()
                .map(|target| NamespaceTarget {
                    namespace: target.namespace.name().to_owned(),
                    target: target_name(target.target).to_owned(),
                    inode: target.inum.map(u64::from),
                })
                .collect(),
            verdict: judged(*verdict),
        },
        Body::Activity {
            activity,
            target,
            verdict,
            ret,
            args,
            other_tgid,
            other_slot,
            object,
            place,
        } => Kind::Activity {
            activity: activity.name().to_owned(),
            actor: actor(&record.actor),
            target: target_name(*target).to_owned(),
            outcome: outcome(*ret),
            errno: errno(*ret),
            object: given(object),
            place: given(place),
            other_pid: other_tgid.map(u32::cast_signed),
            other_container: (*other_slot != Slot(0))
                .then(|| shared.registry.of_slot(*other_slot))
                .flatten()
                .map(|other| other.name.clone()),
            arguments: args.to_vec(),
            verdict: judged(*verdict),
        },
        Body::Denial(denial) => denied(shared, &record.actor, denial),
        Body::PeerDenial(denial) => refused_peer(shared, &record.actor, denial),
        Body::PathDenial(denial) => refused_path(shared, &record.actor, denial),
        Body::CapabilityDenial(denial) => refused_use(shared, &record.actor, *denial),
        Body::DeviceDenial(denial) => refused_device(shared, &record.actor, *denial),
        Body::Tampering(tampering) => tampered(&record.actor, *tampering),
        Body::OomKill {
            victim,
            memory,
            constraint,
            level,
            group,
            limit_bytes,
            limit_cgroup,
            ..
        } => Kind::OomKill {
            main_process: container
                .is_some_and(|one| one.is_main(victim.tgid) || one.is_main(victim.tid)),
            victim: actor(victim),
            trigger: actor(&record.actor),
            constraint: constraint_name(*constraint).to_owned(),
            limit_bytes: *limit_bytes,
            // Nobody's processes have no inside.
            level: container.map(|_| oom::level_name(*level).to_owned()),
            limit_cgroup: container.zip(*limit_cgroup).and_then(|(container, key)| {
                oom::limit_cgroup(&shared.hierarchies, container, key, *level)
            }),
            group: *group,
            rss_anon_bytes: memory.rss_anon,
            rss_file_bytes: memory.rss_file,
            rss_shmem_bytes: memory.rss_shmem,
            total_vm_bytes: memory.total_vm,
            oom_score_adj: memory.oom_score_adj,
        },
        Body::Cgroup { op, id, path, .. } => Kind::Cgroup {
            action: cgroup_action(*op).to_owned(),
            actor: actor(&record.actor),
            path: path.clone(),
            cgroup_id: *id,
        },
        Body::Exec { filename } => Kind::Exec {
            actor: actor(&record.actor),
            filename: filename.clone(),
        },
        Body::Exit { code, signal } => Kind::Exit {
            actor: actor(&record.actor),
            exit_code: code.or(signal.map(|signal| 128 + signal)).unwrap_or(0),
            signal: *signal,
        },
    }
}

const fn cgroup_action(op: CgroupOp) -> &'static str {
    match op {
        CgroupOp::Mkdir => "mkdir",
        CgroupOp::Attach => "attach",
        CgroupOp::Rmdir => "rmdir",
    }
}

fn outcome(ret: i32) -> String {
    if ret < 0 { "failed" } else { "allowed" }.to_owned()
}

fn errno(ret: i32) -> Option<String> {
    (ret < 0).then(|| format!("{:?}", Errno::from_raw(ret.saturating_neg())))
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn judged(verdict: Judged) -> Verdict {
    match verdict {
        Judged::Benign => Verdict::Benign,
        Judged::Notable => Verdict::Notable,
        Judged::EscapeAttempt => Verdict::EscapeAttempt,
        Judged::Escape => Verdict::Escape,
    }
}

pub(crate) fn syscall_name(syscall: NsSyscall) -> &'static str {
    match syscall {
        NsSyscall::Setns => "setns",
        NsSyscall::Unshare => "unshare",
        NsSyscall::Clone => "clone",
    }
}

fn target_name(target: Target) -> &'static str {
    match target {
        Target::Own => "own",
        Target::Peer => "peer",
        Target::Host => "host",
        Target::New => "new",
        Target::None | Target::Unknown => "unknown",
    }
}

fn denied(shared: &Shared, task: &Task, denial: &Denial) -> Kind {
    let (policy, rule) = shared.policies.rule(denial.ruleset, denial.rule).unzip();
    Kind::Denial {
        activity: denial.activity.name().to_owned(),
        actor: Some(actor(task)),
        target: target_name(denial.target).to_owned(),
        action: action_name(u32::from(denial.action)).to_owned(),
        policy,
        rule,
        other_pid: denial.other_tgid.map(u32::cast_signed),
        peer: None,
        capability: None,
        device: None,
        file: None,
    }
}

fn refused_device(shared: &Shared, task: &Task, denial: DeviceDenial) -> Kind {
    let (policy, rule) = shared.policies.rule(denial.ruleset, denial.rule).unzip();
    let kind = match denial.kind {
        policy::device_kind::BLOCK => 'b',
        _ => 'c',
    };
    let letters = ["r", "w", "m"].iter().enumerate();
    let access: String = letters
        .filter(|(place, _)| denial.access & (1 << place) != 0)
        .map(|(_, letter)| *letter)
        .collect();
    Kind::Denial {
        activity: "device".to_owned(),
        actor: Some(actor(task)),
        target: "unknown".to_owned(),
        action: action_name(u32::from(denial.action)).to_owned(),
        policy,
        rule,
        other_pid: None,
        peer: None,
        capability: None,
        device: Some(format!("{kind} {}:{} {access}", denial.major, denial.minor)),
        file: None,
    }
}

fn refused_use(shared: &Shared, task: &Task, denial: CapabilityDenial) -> Kind {
    let (policy, rule) = shared.policies.rule(denial.ruleset, denial.rule).unzip();
    let number = denial.capability;
    let name = usize::try_from(number)
        .ok()
        .and_then(|number| CAPABILITIES.get(number));
    Kind::Denial {
        activity: "capability".to_owned(),
        actor: Some(actor(task)),
        target: "unknown".to_owned(),
        action: action_name(u32::from(denial.action)).to_owned(),
        policy,
        rule,
        other_pid: None,
        peer: None,
        capability: Some(name.map_or_else(|| number.to_string(), |name| format!("CAP_{name}"))),
        device: None,
        file: None,
    }
}

fn refused_path(shared: &Shared, task: &Task, denial: &PathDenial) -> Kind {
    let (policy, rule) = shared.policies.rule(denial.ruleset, denial.rule).unzip();
    let operation = operation::NAMES.get(denial.operation);
    Kind::Denial {
        activity: "file".to_owned(),
        actor: Some(actor(task)),
        target: "own".to_owned(),
        action: action_name(u32::from(denial.action)).to_owned(),
        policy,
        rule,
        other_pid: None,
        peer: None,
        capability: None,
        device: None,
        file: Some(FileAct {
            operation: operation.copied().unwrap_or("unknown").to_owned(),
            path: denial.path.clone(),
        }),
    }
}

fn refused_peer(shared: &Shared, task: &Task, denial: &PeerDenial) -> Kind {
    let (policy, rule) = shared.policies.rule(denial.ruleset, denial.rule).unzip();
    let direction = match denial.direction {
        direction::IN => "ingress",
        _ => "egress",
    };
    let protocol = match denial.protocol {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        _ => "other",
    };
    Kind::Denial {
        activity: "network".to_owned(),
        // What a peer begins is nobody's doing here.
        actor: (denial.direction != direction::IN).then(|| actor(task)),
        target: "unknown".to_owned(),
        action: action_name(u32::from(denial.action)).to_owned(),
        policy,
        rule,
        other_pid: None,
        peer: Some(Peer {
            direction: direction.to_owned(),
            protocol: protocol.to_owned(),
            address: denial.address.to_string(),
            port: denial.port,
        }),
        capability: None,
        device: None,
        file: None,
    }
}

/// Kills a process that was there at `time_ns` since boot; one that came later is another's.
fn kill(task: &Task, time_ns: u64) {
    let Some(pid) = Pid::from_raw(task.tgid.cast_signed()) else {
        return;
    };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        // It has ended.
        return;
    };
    let stat = procfs::process::Process::new(task.tgid.cast_signed()).and_then(|one| one.stat());
    let Ok(stat) = stat else { return };
    let tick_ns = 1_000_000_000 / procfs::ticks_per_second();
    if stat.starttime.saturating_mul(tick_ns) > time_ns {
        return;
    }
    if let Err(error) = pidfd_send_signal(process, Signal::KILL) {
        tracing::warn!("process {} is to be killed by a policy: {error}", task.tgid);
    }
}

fn tampered(task: &Task, tampering: Tampering) -> Kind {
    Kind::Tampering {
        what: tampering.what.name().to_owned(),
        outcome: if tampering.denied { "denied" } else { "seen" }.to_owned(),
        actor: Some(actor(task)),
        object: tampering.id.map(|id| id.to_string()),
    }
}

/// As the kernel half has them: `paddock_abi::policy`.
pub(crate) fn action_name(action: u32) -> &'static str {
    match action {
        1 => "audit",
        2 => "deny",
        3 => "kill",
        _ => "unknown",
    }
}

fn actor(task: &Task) -> Actor {
    Actor {
        pid: task.tgid.cast_signed(),
        tid: task.tid.cast_signed(),
        uid: task.uid,
        comm: task.comm.clone(),
        inner_pid: known(task.inner_tgid),
        parent_pid: known(task.parent_tgid),
        inner_uid: task.inner_uid,
        exe: (!task.exe.is_empty()).then(|| task.exe.clone()),
    }
}

fn known(pid: u32) -> Option<i32> {
    (pid != 0).then_some(pid.cast_signed())
}
