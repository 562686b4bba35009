//! Activities: what concerns the container's walls and is no namespace call or OOM kill.
//!
//! Most are judged at a system call's end, when its arguments still stand in the saved
//! registers and the kernel's own structures say what it reached: a path that was swapped
//! meanwhile changes nothing. The verdict is looked up in `paddock_abi::activity`.

mod exec;
mod file;
mod mount;
mod process;
mod socket;
mod surface;
mod syscalls;
mod tunable;

use core::arch::asm;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use paddock_abi::{
    activity::{Activity, TABLE, VERDICT_CELLS, VERDICT_TABLE, VERDICTS, Verdict, verdict_index},
    counters::{EscapeKind, OUTCOMES, Outcome, Ring, activity_cell, escape_cell},
    namespace::Target,
    record::{self, OBJECT_LEN, kind},
};

pub(crate) use self::{
    exec::{about_to_start, executed},
    file::{cgroup_target, door, node_target, observed, of_a_layer},
    mount::{class_of_call, root_target, tree_target},
    process::other,
    socket::runtimes,
    surface::{bpf_target, concerns_others, perf_target},
    tunable::by_name as sysctl_by_name,
};
use crate::{
    count::{bump, tell, write_header},
    enforce::{self, Asked},
    task::{self, Identity, own_identity},
};

static VERDICT_OF: [u8; VERDICT_CELLS] = VERDICT_TABLE;

/// Where a text is read from.
#[derive(Clone, Copy)]
pub(crate) enum Text {
    None,
    Kernel(u64),
    User(u64),
}

/// One activity, as its judge found it.
pub(crate) struct Act {
    pub(crate) activity: Activity,
    pub(crate) target: Target,
    pub(crate) ret: i64,
    pub(crate) args: [u64; 4],
    pub(crate) other_tgid: u32,
    pub(crate) other_slot: u32,
    pub(crate) object: Text,
    pub(crate) place: Text,
}

impl Act {
    #[inline(always)]
    pub(crate) const fn new(activity: Activity, target: Target, ret: i64) -> Self {
        Self {
            activity,
            target,
            ret,
            args: [0; 4],
            other_tgid: 0,
            other_slot: 0,
            object: Text::None,
            place: Text::None,
        }
    }
}

/// The current task, where it is a container's and not in set-up.
#[inline(always)]
pub(crate) fn watched() -> Option<(u64, Identity)> {
    let task = task::current();
    let who = own_identity();
    if who.slot == 0 || task::in_setup() {
        return None;
    }
    Some((task, who))
}

/// Counts, and tells where somebody may want to read it; what policy forbids has its consequence.
#[inline(always)]
pub(crate) fn judge(who: &Identity, act: &Act) {
    if act.ret >= 0 {
        let asked = Asked {
            activity: act.activity,
            target: act.target,
            other_tgid: act.other_tgid,
        };
        enforce::done(who, asked);
    }
    let verdict = verdict(act.activity, act.target, act.ret < 0);
    count(who.slot, act.activity, verdict);
    let serious = verdict >= Verdict::EscapeAttempt as usize;
    if serious {
        let outcome = if verdict == Verdict::Escape as usize {
            Outcome::Allowed
        } else {
            Outcome::Failed
        };
        // Which namespace it is decides whose it is.
        let mut kind = look_up(&ESCAPE_OF, act.activity as usize);
        if kind == EscapeKind::HostNamespace as usize && matches!(act.target, Target::Peer) {
            kind = EscapeKind::PeerNamespace as usize;
        }
        bump(
            who.slot,
            escape_cell(EscapeKind::HostNamespace, outcome) + kind * OUTCOMES,
        );
    }
    let told = serious
        || verdict == Verdict::Notable as usize
        || (TOLD_WHEN_BENIGN >> (act.activity as u32 & 63)) & 1 != 0;
    if !told {
        return;
    }
    let ring = if serious {
        Ring::Critical
    } else {
        Ring::Events
    };
    tell(
        ring,
        who.slot,
        #[inline(always)]
        |record: *mut record::Activity| fill(record, who, act, verdict as u32),
    );
}

/// The table's word.
#[inline(always)]
pub(crate) fn verdict(activity: Activity, target: Target, failed: bool) -> usize {
    look_up(&VERDICT_OF, verdict_index(activity, target, failed))
}

/// The gravest verdict on a call that concerns several: `classes` has a bit for each target.
#[inline(always)]
pub(crate) fn gravest(activity: Activity, classes: u32, failed: bool) -> usize {
    let mut verdicts = 0;
    for target in [
        Target::Own,
        Target::Peer,
        Target::Host,
        Target::New,
        Target::Unknown,
    ] {
        // Without branches, as in `ns`.
        let concerned = (classes >> target as u32) & 1;
        verdicts |= concerned << (verdict(activity, target, failed) & (VERDICTS - 1));
    }
    look_up(&GRAVEST_OF, verdicts as usize)
}

/// The highest of a set's verdicts; of none, benign.
static GRAVEST_OF: [u8; 1 << VERDICTS] = {
    let mut highest = [0; 1 << VERDICTS];
    let mut set = 1_usize;
    while set < highest.len() {
        highest[set] = set.ilog2() as u8;
        set += 1;
    }
    highest
};

#[inline(always)]
pub(crate) fn count(slot: u32, activity: Activity, verdict: usize) {
    bump(
        slot,
        activity_cell(activity, Verdict::Benign) + (verdict & (VERDICTS - 1)),
    );
}

/// Constant data at an index, volatile: the compiler would make a branch of each value, and the
/// verifier a path of each branch. `N` is a power of two.
#[inline(always)]
fn look_up<const N: usize>(table: &'static [u8; N], index: usize) -> usize {
    let mut index = index;
    // In assembly: where the compiler can tell that it changes nothing it leaves the bound out,
    // which the verifier cannot tell.
    // SAFETY: one instruction on one register; the index is below the length after it.
    unsafe {
        asm!("{index} &= {mask}", index = inout(reg) index, mask = in(reg) N - 1, options(pure, nomem, nostack));
        usize::from(table.as_ptr().add(index).read_volatile())
    }
}

/// [`EscapeKind`] by activity.
static ESCAPE_OF: [u8; 64] = {
    let mut kinds = [0; 64];
    let mut index = 0;
    while index < TABLE.len() {
        kinds[index] = TABLE[index].escape as u8;
        index += 1;
    }
    kinds
};

/// Seldom enough to be told each time; the others are only counted while they are harmless.
const TOLD_WHEN_BENIGN: u64 = set(&[
    Activity::Mount,
    Activity::MoveMount,
    Activity::OpenTree,
    Activity::FsOpen,
    Activity::PivotRoot,
    Activity::Chroot,
    Activity::Mknod,
    Activity::IdMap,
    Activity::Ptrace,
    Activity::ProcessVm,
    Activity::PidfdGetfd,
]);

const fn set(activities: &[Activity]) -> u64 {
    let mut bits = 0;
    let mut index = 0;
    while index < activities.len() {
        bits |= 1 << activities[index] as u64;
        index += 1;
    }
    bits
}

#[inline(always)]
fn fill(record: *mut record::Activity, who: &Identity, act: &Act, verdict: u32) {
    // SAFETY: reserved memory of this record's size and alignment; each field is written before
    // it is sent, the texts up to their NUL.
    unsafe {
        write_header(&raw mut (*record).header, kind::ACTIVITY, who.slot, who);
        (&raw mut (*record).activity).write(act.activity as u32);
        (&raw mut (*record).target).write(act.target as u32);
        (&raw mut (*record).verdict).write(verdict);
        (&raw mut (*record).ret).write(act.ret as i32);
        (&raw mut (*record).args).write(act.args);
        (&raw mut (*record).other_tgid).write(act.other_tgid);
        (&raw mut (*record).other_slot).write(act.other_slot);
        text((&raw mut (*record).object).cast(), act.object);
        text((&raw mut (*record).place).cast(), act.place);
    }
}

/// SAFETY: `to` has room for [`OBJECT_LEN`] bytes.
#[inline(always)]
unsafe fn text(to: *mut u8, from: Text) {
    // SAFETY: the helpers write at most the length that they are given.
    unsafe {
        to.write(0);
        match from {
            Text::None => 0,
            Text::Kernel(address) => {
                bpf_probe_read_kernel_str(to.cast(), OBJECT_LEN as u32, address as *const _)
            }
            Text::User(address) => {
                bpf_probe_read_user_str(to.cast(), OBJECT_LEN as u32, address as *const _)
            }
        };
    }
}
