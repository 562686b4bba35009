//! What a container's monitor asks before a setns goes on, where no security module is asked:
//! the container's seccomp filter has stopped the caller at the entry.
//!
//! Hangs nowhere and is run by `BPF_PROG_TEST_RUN` on its pin (5.10). It finds, counts and tells
//! what the LSM program would; all is about the caller, a task that waits, not about the current
//! one. What another thread puts into the descriptor afterwards is found at the call's exit, as
//! with the LSM program.

use core::ffi::c_void;

use paddock_abi::{
    activity::Activity,
    key::InFlight,
    namespace::mask_of_flags,
    policy::{ACTION_ALLOW, ACTION_AUDIT, ACTION_KILL, action},
    question::{Question, answer, verdict},
};

use super::{Bound, anybody, namespace::strictest};
use crate::{
    count::Author,
    maps::{IN_FLIGHT, STATE},
    ns::{class_of, refused_setns},
    offsets::*,
    read::field,
    selftest,
    target::resolve_of,
    task::{self, exempt, identity},
};

/// By hand: what aya's macro makes of a raw tracepoint's program returns 0 always.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/question")]
extern "C" fn question(context: *mut c_void) -> u32 {
    let first = context.cast::<u64>();
    // SAFETY: words of the context, which has at least as many as are read of it.
    let words = unsafe {
        [
            first.read_volatile(),
            first.add(1).read_volatile(),
            first.add(2).read_volatile(),
        ]
    };
    let told = Question::of(words);
    let asker = task::find(task::current(), told.tid);
    if asker == 0 {
        return answer(verdict::GONE, 0);
    }
    if selftest::on() {
        selftest::observe(selftest::QUESTION, asker, 0);
        let found = resolve_of(asker, told.fd, u64::from(told.flags));
        selftest::observe_target(selftest::QUESTION, &found);
    }
    judge(asker, told)
}

#[inline(always)]
fn judge(asker: u64, told: Question) -> u32 {
    let tgid: u32 = field(asker, &OFF_TASK_TGID);
    let go_on = answer(verdict::GO_ON, tgid);
    if !anybody() {
        return go_on;
    }
    let who = identity(asker);
    if who.slot == 0 || exempt(tgid) {
        return go_on;
    }
    let Some(bound) = Bound::of(&who) else {
        return go_on;
    };
    let flags = u64::from(told.flags);
    let found = resolve_of(asker, told.fd, flags);
    if flags != 0 && mask_of_flags(flags) != found.mask {
        // Not of the type that was asked for: EINVAL.
        return go_on;
    }
    let thread = u64::from(tgid) << 32 | u64::from(field::<u32>(asker, &OFF_TASK_PID));
    let call = InFlight {
        flags,
        id: who.id,
        hierarchy: who.hierarchy,
        slot: who.slot,
        fd: told.fd,
        resolved: found.mask,
        inums: found.inums,
        ..InFlight::default()
    };
    // In map memory, as any other call: the verifier does not follow what is there.
    let _ = IN_FLIGHT.insert(thread, call, 0);
    let Some(call) = IN_FLIGHT.get_ptr_mut(thread) else {
        // Full (8,192 threads inside such calls): what cannot be judged does not happen.
        return answer(verdict::REFUSE, tgid);
    };
    // SAFETY: the thread's own entry, and the thread waits.
    let said = decide(&bound, unsafe { &mut *call }, asker);
    let _ = IN_FLIGHT.remove(thread);
    answer(said, tgid)
}

#[inline(always)]
fn decide(bound: &Bound, call: &mut InFlight, asker: u64) -> u32 {
    let Some(state) = STATE.get(0) else {
        return verdict::GO_ON;
    };
    let mask = call.resolved;
    let strictest = strictest(
        bound,
        Activity::Setns,
        mask,
        #[inline(always)]
        |index| class_of(call, state, index),
    );
    let action = action(strictest.cell);
    // What happens under audit is counted when it has happened.
    if action == ACTION_ALLOW || action == ACTION_AUDIT {
        return verdict::GO_ON;
    }
    let act = strictest.asked(Activity::Setns);
    bound.tell_by(strictest.cell, action, act, Author::Waiting(asker));
    // No hook of setns sees a call that is not made.
    refused_setns(call, &bound.who, asker);
    if action == ACTION_KILL {
        verdict::KILL
    } else {
        verdict::REFUSE
    }
}
