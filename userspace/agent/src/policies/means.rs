//! By what each forbidden act is kept from happening on this kernel.
//!
//! Where the kernel asks its security modules the act is refused before it happens. Else whoever
//! did it is killed before it returns to user space, which is in time where the act leaves
//! nothing behind for others: a descriptor, a program's start, a namespace joined.

use std::collections::{BTreeMap, BTreeSet};

use paddock_cgroups::Layout;
use paddock_policy::{
    Policy, compile,
    model::{Match, Network, Rule, Verb, direction, protocol},
    named::bit,
};
use paddock_probe::{Activity, Target, policy};

use crate::shared::Shared;

/// Best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Means {
    /// Refused, with EPERM.
    Lsm,
    /// Likewise, by a program of the cgroup's.
    Cgroup,
    /// Likewise, by the container's filter, whose monitor is asked.
    Seccomp,
    /// Done, and killed before it can be used.
    Sigkill,
    /// Only counted: when it is seen there is no use in killing.
    Count,
    /// Nothing sees it.
    Unseen,
}

impl Means {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            Self::Cgroup => "cgroup",
            Self::Seccomp => "seccomp",
            Self::Sigkill => "sigkill",
            Self::Count => "count",
            Self::Unseen => "unseen",
        }
    }
}

/// Whom a policy may hold for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whom {
    /// Their monitors are asked before a setns.
    pub(crate) launched: bool,
    pub(crate) found: bool,
    /// Launched ones that run since an agent that did not see to that.
    pub(crate) unasked: bool,
}

/// What a rule about capabilities is about, where means are told.
pub(crate) const CAPABILITY: &str = "capability";

/// And one about paths.
pub(crate) const FILE: &str = "file";

/// And one about what peers begin.
pub(crate) const INGRESS: &str = "network ingress";

/// What this kernel can do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Here {
    /// Capabilities of the kernel half that are served.
    served: BTreeSet<String>,
    /// Programs that hang in the kernel.
    programs: BTreeSet<String>,
    /// Whether every container has a v2 cgroup of its own, which its sockets are known by.
    unified: bool,
}

impl Here {
    pub(crate) fn of(shared: &Shared) -> Self {
        let kernel = &shared.kernel;
        let served = kernel.capabilities().iter();
        Self {
            served: served
                .filter(|status| status.rung.is_some())
                .map(|status| status.capability.clone())
                .collect(),
            programs: kernel
                .programs()
                .into_iter()
                .map(|stats| stats.program)
                .collect(),
            unified: shared.hierarchies.layout() == Layout::V2,
        }
    }

    pub(crate) fn means(&self, activity: Activity) -> Means {
        if !self.served.contains(observer(activity)) {
            return Means::Unseen;
        }
        if self.asks(activity) {
            return Means::Lsm;
        }
        if self.kills_in_time(activity) {
            Means::Sigkill
        } else {
            Means::Count
        }
    }

    /// The same, told apart by whom it is for.
    fn means_for(&self, activity: Activity, whom: Whom) -> Vec<Means> {
        let means = self.means(activity);
        let asked = activity == Activity::Setns && self.served.contains("question");
        if !asked || means != Means::Sigkill {
            return vec![means];
        }
        let both = [
            (whom.launched, Means::Seccomp),
            (whom.found || whom.unasked, means),
        ];
        let there = both.into_iter().filter(|(there, _)| *there);
        there.map(|(_, means)| means).collect()
    }

    fn asks(&self, activity: Activity) -> bool {
        let Some(program) = question(activity) else {
            return false;
        };
        self.served.contains("enforce") && self.programs.contains(program)
    }

    fn kills_in_time(&self, activity: Activity) -> bool {
        match activity {
            // The child runs, what was mounted or made stays, what was sent or written arrived.
            Activity::Clone
            | Activity::Mount
            | Activity::MoveMount
            | Activity::PivotRoot
            | Activity::Mknod
            | Activity::ProcessVm
            | Activity::Signal
            | Activity::Module
            | Activity::Kexec
            | Activity::Keyctl
            | Activity::CgroupLeave => false,
            // unshare is; of clone's the kernel asks.
            Activity::Userns => self.served.contains("enforce"),
            _ => true,
        }
    }

    /// Of using a capability.
    pub(crate) fn capability(&self) -> Means {
        if self.served.contains("enforce") && self.programs.contains("lsm_capable") {
            Means::Lsm
        } else {
            Means::Unseen
        }
    }

    /// Of what is done to a device.
    pub(crate) fn device(&self) -> Means {
        if self.served.contains("device") {
            Means::Cgroup
        } else {
            Means::Unseen
        }
    }

    /// Of what is done to a file: opens are asked for with the others.
    pub(crate) fn paths(&self) -> Means {
        if self.served.contains("paths") && self.served.contains("enforce") {
            Means::Lsm
        } else {
            Means::Unseen
        }
    }

    /// Of what the container begins.
    pub(crate) fn network(&self) -> Means {
        if self.served.contains("network") {
            Means::Cgroup
        } else {
            Means::Unseen
        }
    }

    /// Of what peers begin with one: whose a socket is, its v2 cgroup says.
    pub(crate) fn ingress(&self, found: bool) -> Means {
        if self.served.contains("traffic") && (self.unified || !found) {
            self.network()
        } else {
            Means::Unseen
        }
    }

    /// For each rule that forbids, by what its acts are kept from happening, and which are not.
    /// `begun_by_peers`: see [`begun_by_peers`].
    pub(crate) fn of_rule(
        &self,
        rule: &Rule,
        begun_by_peers: &BTreeSet<&str>,
        whom: Whom,
    ) -> RuleMeans {
        let mut found = RuleMeans::default();
        let cells = rule.matches.iter().flat_map(cells);
        for (activity, _) in cells.filter(|cell| occurs(*cell)) {
            for means in self.means_for(activity, whom) {
                found.by.entry(means).or_default().insert(activity.name());
            }
        }
        for one in &rule.matches {
            if let Match::Network(network) = one {
                let by =
                    self.of_network(network, begun_by_peers.contains(rule.name.as_str()), whom);
                for (means, what) in by {
                    found.by.entry(means).or_default().insert(what);
                }
            }
            if let Match::Capability(_) = one {
                let by = found.by.entry(self.capability()).or_default();
                by.insert(CAPABILITY);
            }
            if let Match::Device(_) = one {
                found.by.entry(self.device()).or_default().insert("device");
            }
            if let Match::Path(_) = one {
                found.by.entry(self.paths()).or_default().insert(FILE);
            }
            if let Some(what) = unknown(one) {
                found.by.entry(Means::Unseen).or_default().insert(what);
            }
        }
        found
    }
}

impl Here {
    fn of_network(
        &self,
        network: &Network,
        by_peers: bool,
        whom: Whom,
    ) -> Vec<(Means, &'static str)> {
        if network.protocols == protocol::OTHER {
            return vec![(Means::Unseen, "network of protocol other")];
        }
        let mut all = Vec::new();
        if network.directions & direction::IN != 0 && by_peers {
            let each = [(whom.launched, false), (whom.found, true)];
            let there = each.into_iter().filter(|(there, _)| *there);
            all.extend(there.map(|(_, found)| (self.ingress(found), INGRESS)));
        }
        if network.directions & direction::OUT != 0 {
            all.push((self.network(), "network egress"));
        }
        all
    }
}

/// Rules that forbid something that peers begin: where narrower ones allow all of it, a posture
/// does not.
pub(crate) fn begun_by_peers(policy: &Policy) -> BTreeSet<&str> {
    let network = |rule: &Rule| {
        let mut all = rule.matches.iter();
        all.any(|one| matches!(one, Match::Network(_)))
    };
    if !denials(policy).any(network) {
        return BTreeSet::new();
    }
    let Ok(ruleset) = compile(&[policy]) else {
        // Refused for that.
        return BTreeSet::new();
    };
    let answers = ruleset.networks.iter().flat_map(|node| &node.answers);
    let numbers: BTreeSet<_> = answers
        .filter(|answer| answer.direction == direction::IN)
        .map(|answer| policy::rule(answer.cell))
        .collect();
    let forbid = denials(policy).enumerate();
    forbid
        .filter(|(index, _)| u16::try_from(*index).is_ok_and(|index| numbers.contains(&index)))
        .map(|(_, rule)| rule.name.as_str())
        .collect()
}

/// What a rule's acts are kept from happening by.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleMeans {
    pub(crate) by: BTreeMap<Means, BTreeSet<&'static str>>,
}

impl RuleMeans {
    pub(crate) fn named(&self) -> BTreeMap<String, Vec<String>> {
        let named = |(means, what): (&Means, &BTreeSet<&str>)| {
            let what = what.iter().map(|one| (*one).to_owned());
            (means.name().to_owned(), what.collect())
        };
        self.by.iter().map(named).collect()
    }
}

/// Rules that forbid.
pub(crate) fn denials(policy: &Policy) -> impl Iterator<Item = &Rule> {
    policy.rules.iter().filter(|rule| rule.verb == Verb::Deny)
}

fn cells(one: &Match) -> Vec<(Activity, Target)> {
    match one {
        Match::Named(named) => named.cells().collect(),
        Match::Namespace(namespaces) => {
            let mut cells = Vec::new();
            if namespaces.targets & bit(Target::New) != 0 {
                cells.extend([
                    (Activity::Unshare, Target::New),
                    (Activity::Clone, Target::New),
                ]);
            }
            for target in [Target::Own, Target::Peer, Target::Host] {
                if namespaces.targets & bit(target) != 0 {
                    cells.push((Activity::Setns, target));
                }
            }
            cells
        }
        _ => Vec::new(),
    }
}

/// What is made is new, and what only a process' own can be is its own; `any-escape` names the
/// other targets all the same.
fn occurs((activity, target): (Activity, Target)) -> bool {
    match activity {
        Activity::Unshare | Activity::Clone | Activity::Userns => target == Target::New,
        Activity::OpenByHandle
        | Activity::PivotRoot
        | Activity::IoUring
        | Activity::Keyctl
        | Activity::Userfaultfd
        | Activity::Drift
        | Activity::MemfdExec
        | Activity::SetuidExec
        | Activity::CapabilityGain => target == Target::Own,
        _ => true,
    }
}

/// What the kernel half does not know yet.
fn unknown(one: &Match) -> Option<&'static str> {
    match one {
        Match::Named(_)
        | Match::Namespace(_)
        | Match::Network(_)
        | Match::Capability(_)
        | Match::Device(_)
        | Match::Path(_) => None,
        Match::Syscall(_) => Some("syscall"),
    }
}

/// The capability of the kernel half that sees an activity.
const fn observer(activity: Activity) -> &'static str {
    match activity {
        Activity::Setns => "setns",
        Activity::Unshare => "unshare",
        Activity::Clone | Activity::Userns => "clone",
        Activity::Mount
        | Activity::MoveMount
        | Activity::OpenTree
        | Activity::FsOpen
        | Activity::PivotRoot
        | Activity::Chroot => "mount",
        Activity::Ptrace | Activity::ProcessVm | Activity::PidfdGetfd => "process",
        Activity::Signal => "signal",
        Activity::CgroupLeave => "cgroup",
        Activity::Bpf
        | Activity::Module
        | Activity::Kexec
        | Activity::PerfEvent
        | Activity::IoUring
        | Activity::Keyctl
        | Activity::Userfaultfd => "kernel",
        Activity::RuntimeSocket => "connect",
        Activity::LeakedDir
        | Activity::LeakedExec
        | Activity::Drift
        | Activity::MemfdExec
        | Activity::SetuidExec => "exec",
        Activity::CapabilityGain => "privilege",
        Activity::IdMap
        | Activity::ForeignFile
        | Activity::OpenByHandle
        | Activity::BlockDevice
        | Activity::Mknod
        | Activity::ProcMem
        | Activity::ProcNs
        | Activity::CgroupLimit
        | Activity::ReleaseAgent
        | Activity::NotifyOnRelease
        | Activity::CorePattern
        | Activity::ModprobePath
        | Activity::UeventHelper
        | Activity::Sysrq
        | Activity::BinfmtMisc
        | Activity::Debugfs
        | Activity::Tunable
        | Activity::RawMemory
        | Activity::RuntimeExe => "open",
    }
}

/// The program on the question that the kernel asks before an activity.
const fn question(activity: Activity) -> Option<&'static str> {
    Some(match activity {
        Activity::Setns
        | Activity::Unshare
        | Activity::OpenByHandle
        | Activity::OpenTree
        | Activity::FsOpen => "lsm_capable",
        Activity::Clone | Activity::CgroupLeave => "lsm_task_alloc",
        Activity::Userns => "lsm_userns_create",
        Activity::Mount => "lsm_sb_mount",
        Activity::MoveMount => "lsm_move_mount",
        Activity::PivotRoot => "lsm_sb_pivotroot",
        Activity::Mknod => "lsm_inode_mknod",
        Activity::Ptrace | Activity::ProcessVm | Activity::PidfdGetfd => "lsm_ptrace_access_check",
        Activity::Signal => "lsm_task_kill",
        Activity::Bpf => "lsm_bpf",
        Activity::Module | Activity::Kexec => "lsm_kernel_read_file",
        Activity::PerfEvent => "lsm_perf_event_open",
        Activity::IoUring | Activity::Userfaultfd => "lsm_inode_init_security_anon",
        Activity::Keyctl => "lsm_key_permission",
        Activity::IdMap
        | Activity::ForeignFile
        | Activity::BlockDevice
        | Activity::ProcMem
        | Activity::ProcNs
        | Activity::CgroupLimit
        | Activity::ReleaseAgent
        | Activity::NotifyOnRelease
        | Activity::CorePattern
        | Activity::ModprobePath
        | Activity::UeventHelper
        | Activity::Sysrq
        | Activity::BinfmtMisc
        | Activity::Debugfs
        | Activity::Tunable
        | Activity::RawMemory
        | Activity::RuntimeExe => "lsm_file_open",
        Activity::Chroot => "lsm_path_chroot",
        Activity::RuntimeSocket => "lsm_unix_stream_connect",
        Activity::LeakedExec | Activity::Drift | Activity::MemfdExec => "lsm_bprm_check_security",
        Activity::LeakedDir | Activity::SetuidExec | Activity::CapabilityGain => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(served: &[&str], unified: bool) -> Here {
        Here {
            served: served.iter().map(ToString::to_string).collect(),
            programs: BTreeSet::from(["lsm_capable".to_owned()]),
            unified,
        }
    }

    #[test]
    fn what_peers_begin_is_seen_of_sockets_that_say_whose_they_are() {
        let both = ["network", "traffic"];
        for (served, unified, launched, found) in [
            (&both[..], true, Means::Cgroup, Means::Cgroup),
            (&both, false, Means::Cgroup, Means::Unseen),
            (&both[..1], true, Means::Unseen, Means::Unseen),
            (&both[1..], true, Means::Unseen, Means::Unseen),
        ] {
            let here = here(served, unified);
            assert_eq!((here.ingress(false), here.ingress(true)), (launched, found));
        }
    }

    #[test]
    fn setns_is_by_what_whoever_it_is_for_has() {
        let whom = |launched, found, unasked| Whom {
            launched,
            found,
            unasked,
        };
        let without = here(&["setns", "question"], true);
        for (whom, want) in [
            (whom(true, false, false), &[Means::Seccomp][..]),
            (whom(false, true, false), &[Means::Sigkill]),
            (whom(true, false, true), &[Means::Seccomp, Means::Sigkill]),
            (whom(true, true, false), &[Means::Seccomp, Means::Sigkill]),
        ] {
            assert_eq!(without.means_for(Activity::Setns, whom), want);
        }
        let both = whom(true, true, false);
        let with = here(&["setns", "enforce"], true);
        assert_eq!(with.means_for(Activity::Setns, both), [Means::Lsm]);
        let older = here(&["setns"], true);
        assert_eq!(older.means_for(Activity::Setns, both), [Means::Sigkill]);
        let other = here(&["open", "question"], true);
        assert_eq!(other.means_for(Activity::Sysrq, both), [Means::Sigkill]);
    }
}
