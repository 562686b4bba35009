//! What policy forbids does not happen: LSM programs that refuse it before the act.
//!
//! An act is told apart as its record's is (`activity`), and its cell looked up in the answers of
//! the container's ruleset. What happened all the same, since nothing asks before it or nobody
//! may refuse here, ends in [`done`]: under audit it is counted as what would have been denied,
//! else whoever did it is killed before it can use what it got. Each is counted by its rule
//! before it is told, so that a full ring loses no count.

mod call;
mod capable;
mod device;
mod file;
mod ingress;
mod kernel;
mod mount;
mod namespace;
mod network;
mod path;
mod process;
mod question;
mod sysctl;

use core::ops::Deref;

use aya_ebpf::helpers::generated::bpf_send_signal;
use paddock_abi::{
    activity::Activity,
    counters::Ring,
    namespace::Target,
    policy::{
        ACTION_ALLOW, ACTION_AUDIT, ACTION_KILL, Answers, HitKey, POLICY_CELLS, action,
        policy_index, rule,
    },
    record::{Denial, kind},
};

pub(crate) use self::{ingress::answer as answer_packet, namespace::done_to_namespaces};
use crate::{
    count::{Author, NESTED, add, parent, tell, write_header_by},
    maps::{ANSWERS, HITS, HITS_LOST, SLOT_RULESET},
    task::{Identity, in_setup, own_identity, own_identity_anywhere},
};

const EPERM: i32 = -1;
const SIGKILL: u32 = 9;
/// `BPF_NOEXIST`.
const NEW: u64 = 1;

/// Who acts, and by which ruleset.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) who: Identity,
    ruleset: u32,
}

/// The same with what it says.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    held: Held,
    answers: &'static Answers,
}

impl Deref for Bound {
    type Target = Held;

    #[inline(always)]
    fn deref(&self) -> &Held {
        &self.held
    }
}

/// An act that policy may have a word on.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) activity: Activity,
    pub(crate) target: Target,
    /// The process that it concerns, or 0.
    pub(crate) other_tgid: u32,
}

/// The current task, where a policy holds for it, be it in set-up or not.
#[inline(always)]
pub(crate) fn bound() -> Option<Bound> {
    if !anybody() {
        return None;
    }
    Bound::of(&own_identity())
}

/// The same for programs that may not ask for the current task by its type, and whose answers are
/// in a map of their own.
#[inline(always)]
fn held_anywhere() -> Option<Held> {
    Held::of(&own_identity_anywhere())
}

/// Whether a policy holds for anybody: the word of nobody's slot. Without, a hook ends here.
#[inline(always)]
pub(crate) fn anybody() -> bool {
    SLOT_RULESET.get(0).is_some_and(|any| *any != 0)
}

/// Judges what has happened.
#[inline(always)]
pub(crate) fn done(who: &Identity, asked: Asked) {
    if anybody()
        && let Some(bound) = Bound::of(who)
    {
        bound.done(bound.cell(asked.activity, asked.target), asked);
    }
}

/// What comes of a cell for the current task. Whether that is in set-up, which may do all, is
/// asked last: few are.
#[inline(always)]
fn own_action(cell: u16) -> u16 {
    let action = action(cell);
    if action != ACTION_ALLOW && in_setup() {
        return ACTION_ALLOW;
    }
    action
}

/// What holds for a container holds for what it nests; of a nested one that has a word of its
/// own user space has put both together. 0 is nothing.
#[inline(always)]
fn ruleset_of(slot: u32) -> u32 {
    let mut slot = slot;
    let mut ruleset = own_ruleset(slot);
    // Not all in the loop: its count costs as much as the look.
    for _ in 0..NESTED {
        if ruleset != 0 || slot == 0 {
            break;
        }
        slot = parent(slot);
        ruleset = own_ruleset(slot);
    }
    ruleset
}

/// Nobody's word is another's.
#[inline(always)]
fn own_ruleset(slot: u32) -> u32 {
    if slot == 0 {
        return 0;
    }
    SLOT_RULESET.get(slot).copied().unwrap_or(0)
}

impl Held {
    #[inline(always)]
    fn of(who: &Identity) -> Option<Self> {
        let ruleset = ruleset_of(who.slot);
        (ruleset != 0).then_some(Self { who: *who, ruleset })
    }

    /// As whose a hit is counted.
    #[inline(always)]
    fn hit(&self, cell: u16, action: u16) -> HitKey {
        HitKey {
            slot: self.who.slot,
            ruleset: self.ruleset,
            rule: u32::from(rule(cell)),
            action: u32::from(action),
        }
    }
}

impl Bound {
    #[inline(always)]
    fn of(who: &Identity) -> Option<Self> {
        Self::by(Held::of(who)?)
    }

    #[inline(always)]
    fn by(held: Held) -> Option<Self> {
        Some(Self {
            held,
            answers: ANSWERS.get(held.ruleset)?,
        })
    }

    /// The cell of an activity.
    #[inline(always)]
    pub(crate) fn cell(&self, activity: Activity, target: Target) -> u16 {
        let index = policy_index(activity, target) & (POLICY_CELLS - 1);
        // SAFETY: below the array's length; user space may write it meanwhile, a cell at once.
        unsafe { self.answers.cells.as_ptr().add(index).read_volatile() }
    }

    /// What a hook returns: 0 lets it happen.
    #[inline(always)]
    pub(crate) fn refuse(&self, cell: u16, asked: Asked) -> i32 {
        let action = own_action(cell);
        // What happens under audit is counted when it has happened.
        if action == ACTION_ALLOW || action == ACTION_AUDIT {
            return 0;
        }
        self.tell(cell, action, asked);
        if action == ACTION_KILL {
            // SAFETY: the helper has no preconditions. Where it fails the act does, too.
            unsafe { bpf_send_signal(SIGKILL) };
        }
        EPERM
    }

    #[inline(always)]
    pub(crate) fn refuse_act(&self, activity: Activity, target: Target) -> i32 {
        let asked = Asked {
            activity,
            target,
            other_tgid: 0,
        };
        self.refuse(self.cell(activity, target), asked)
    }

    #[inline(always)]
    fn done(&self, cell: u16, asked: Asked) {
        let action = action(cell);
        if action == ACTION_ALLOW {
            return;
        }
        if action == ACTION_AUDIT {
            self.tell(cell, ACTION_AUDIT, asked);
        } else {
            self.tell(cell, ACTION_KILL, asked);
            // SAFETY: as above; the signal comes before the return to user space.
            unsafe { bpf_send_signal(SIGKILL) };
        }
    }

    #[inline(always)]
    fn tell(&self, cell: u16, action: u16, asked: Asked) {
        self.tell_by(cell, action, asked, Author::Current);
    }

    #[inline(always)]
    fn tell_by(&self, cell: u16, action: u16, asked: Asked, author: Author) {
        let key = self.hit(cell, action);
        count(key);
        tell(
            Ring::Critical,
            self.who.slot,
            #[inline(always)]
            |record: *mut Denial| {
                // SAFETY: reserved memory of this record's size; each field is written.
                unsafe {
                    write_header_by(
                        &raw mut (*record).header,
                        kind::DENIAL,
                        self.who.slot,
                        &self.who,
                        author,
                    );
                    (&raw mut (*record).activity).write(asked.activity as u32);
                    (&raw mut (*record).target).write(asked.target as u32);
                    (&raw mut (*record).ruleset).write(key.ruleset);
                    (&raw mut (*record).rule).write(key.rule);
                    (&raw mut (*record).action).write(key.action);
                    (&raw mut (*record).other_tgid).write(asked.other_tgid);
                }
            },
        );
    }
}

/// Adds one; the first of a rule makes the entry.
#[inline(always)]
fn count(key: HitKey) {
    let mut cell = HITS.get_ptr_mut(key);
    if cell.is_none() {
        // Another processor may be first.
        let _ = HITS.insert(key, 0, NEW);
        cell = HITS.get_ptr_mut(key).or_else(|| HITS_LOST.get_ptr_mut(0));
    }
    if let Some(cell) = cell {
        // SAFETY: a live element that is only written atomically.
        unsafe { add(cell, 1) };
    }
}
