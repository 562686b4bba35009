//! setns and unshare: arguments at entry, result and judgement at exit.
//!
//! Two rungs: fentry/fexit on the syscall's body (nothing else gets slower), else the syscall
//! tracepoints. 32-bit entries have bodies of their own, hooked on the first rung only.
//! A success is judged by the namespaces the thread has after it, a failure by what its
//! descriptor resolved to before it.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, kprobe, kretprobe, tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use paddock_abi::{
    activity::{Activity, Verdict},
    counters::{EscapeKind, NsSyscall, Outcome, Ring, call_cell, escape_cell, ns_call_cell},
    key::{InFlight, State},
    namespace::{NS_TYPES, NsType, Target, mask_of_flags},
    record::{NsCall, kind},
};

use crate::{
    activity::{self, Act, gravest, judge, verdict},
    count::{Author, bump, debug_call, tell, write_header_by},
    enforce::done_to_namespaces,
    maps::{IN_FLIGHT, STATE},
    offsets::*,
    owner::{REPLACE, forget, own, whose},
    read::{at, field},
    selftest,
    target::resolve,
    task::{self, Identity, own_identity, own_namespaces},
};

/// `sys_enter_*`: the arguments, 8 bytes each; `sys_exit_*`: the result.
const TP_ARG0: u64 = 16;
const TP_ARG1: u64 = 24;
const TP_RET: u64 = 16;

const EPERM: i64 = 1;

#[fentry]
fn fentry_setns(ctx: FEntryContext) -> i32 {
    let regs = ctx.arg::<u64>(0);
    enter_setns(reg(regs, &OFF_REGS_ARG0), reg(regs, &OFF_REGS_ARG1))
}

#[fentry]
fn fentry_setns_compat(ctx: FEntryContext) -> i32 {
    let regs = ctx.arg::<u64>(0);
    enter_setns(
        reg(regs, &OFF_COMPAT_REGS_ARG0),
        reg(regs, &OFF_COMPAT_REGS_ARG1),
    )
}

#[fexit]
fn fexit_setns(ctx: FExitContext) -> i32 {
    exit_setns(&ctx, result(&ctx))
}

#[fexit]
fn fexit_setns_compat(ctx: FExitContext) -> i32 {
    exit_setns(&ctx, result(&ctx))
}

#[fentry]
fn fentry_unshare(ctx: FEntryContext) -> i32 {
    enter_unshare(reg(ctx.arg::<u64>(0), &OFF_REGS_ARG0))
}

#[fentry]
fn fentry_unshare_compat(ctx: FEntryContext) -> i32 {
    enter_unshare(reg(ctx.arg::<u64>(0), &OFF_COMPAT_REGS_ARG0))
}

#[fexit]
fn fexit_unshare(ctx: FExitContext) -> i32 {
    let flags = reg(ctx.arg::<u64>(0), &OFF_REGS_ARG0);
    exit_unshare(&ctx, result(&ctx), flags)
}

#[fexit]
fn fexit_unshare_compat(ctx: FExitContext) -> i32 {
    let flags = reg(ctx.arg::<u64>(0), &OFF_COMPAT_REGS_ARG0);
    exit_unshare(&ctx, result(&ctx), flags)
}

// Beside the above where a kernel has them. A kernel that preempts itself may take a processor
// from a task inside one of these programs; until it goes on, the kernel passes over that program
// for every other task there (`recursion_misses`). Probes run without preemption: what the one
// kind left out the other does, and what was done is found done.

#[kprobe]
fn kprobe_setns(ctx: ProbeContext) -> u32 {
    let regs = ctx.arg::<u64>(0).unwrap_or(0);
    enter_setns(reg(regs, &OFF_REGS_ARG0), reg(regs, &OFF_REGS_ARG1));
    0
}

#[kretprobe]
fn kretprobe_setns(ctx: RetProbeContext) -> u32 {
    exit_setns(&ctx, ctx.ret::<u64>().cast_signed());
    0
}

#[kprobe]
fn kprobe_unshare(ctx: ProbeContext) -> u32 {
    enter_unshare(reg(ctx.arg::<u64>(0).unwrap_or(0), &OFF_REGS_ARG0));
    0
}

#[kretprobe]
fn kretprobe_unshare(ctx: RetProbeContext) -> u32 {
    let flags = reg(task::registers(), &OFF_REGS_ARG0);
    exit_unshare(&ctx, ctx.ret::<u64>().cast_signed(), flags);
    0
}

#[tracepoint]
fn sys_enter_setns(ctx: TracePointContext) -> u32 {
    enter_setns(tp(&ctx, TP_ARG0), tp(&ctx, TP_ARG1));
    0
}

#[tracepoint]
fn sys_exit_setns(ctx: TracePointContext) -> u32 {
    exit_setns(&ctx, tp(&ctx, TP_RET).cast_signed());
    0
}

#[tracepoint]
fn sys_enter_unshare(ctx: TracePointContext) -> u32 {
    enter_unshare(tp(&ctx, TP_ARG0));
    0
}

#[tracepoint]
fn sys_exit_unshare(ctx: TracePointContext) -> u32 {
    let flags = reg(task::registers(), &OFF_REGS_ARG0);
    exit_unshare(&ctx, tp(&ctx, TP_RET).cast_signed(), flags);
    0
}

/// Behind the only argument of a syscall's body. The helper for it is there since 5.17 only.
#[inline(always)]
fn result(ctx: &FExitContext) -> i64 {
    ctx.arg(1)
}

#[inline(always)]
fn reg(regs: u64, offset: &aya_ebpf::Global<u32>) -> u64 {
    field(regs, offset)
}

#[inline(always)]
fn tp(ctx: &TracePointContext, offset: u64) -> u64 {
    at(ctx.as_ptr() as u64 + offset)
}

#[inline(always)]
fn enter_setns(fd: u64, flags: u64) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let task = task::current();
    let who = own_identity();
    let testing = selftest::on();
    if !testing && (who.slot == 0 || task::in_setup()) {
        return 0;
    }
    let fd = fd as i32;
    let flags = flags & 0xffff_ffff;
    let found = resolve(fd, flags);
    if testing {
        selftest::observe(selftest::SETNS, task, 0);
        selftest::observe_target(selftest::SETNS, &found);
        selftest::observe_first(task);
        return 0;
    }
    let call = InFlight {
        flags,
        id: who.id,
        hierarchy: who.hierarchy,
        slot: who.slot,
        fd,
        exempt: 0,
        resolved: found.mask,
        before: own_namespaces(),
        inums: found.inums,
        ..InFlight::default()
    };
    // Full (8,192 threads inside the call): the exit finds nothing and the call goes unseen.
    let _ = IN_FLIGHT.insert(pid_tgid, call, 0);
    0
}

#[inline(always)]
fn enter_unshare(flags: u64) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let task = task::current();
    if selftest::on() {
        selftest::observe(selftest::UNSHARE, task, 0);
        return 0;
    }
    let who = own_identity();
    // What others make is looked at when it is made.
    if who.slot == 0 {
        return 0;
    }
    let call = InFlight {
        flags,
        id: who.id,
        hierarchy: who.hierarchy,
        slot: who.slot,
        fd: -1,
        exempt: u32::from(task::in_setup()),
        resolved: mask_of_flags(flags),
        before: own_namespaces(),
        ..InFlight::default()
    };
    let _ = IN_FLIGHT.insert(pid_tgid, call, 0);
    0
}

#[inline(always)]
fn exit_setns(ctx: &impl EbpfContext, ret: i64) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(call) = IN_FLIGHT.get_ptr_mut(pid_tgid) else {
        return 0;
    };
    // SAFETY: the entry is this thread's own: nobody else writes it, and it is removed last.
    judge_setns(unsafe { &mut *call }, ret);
    debug_call(ctx, "setns", ret);
    let _ = IN_FLIGHT.remove(pid_tgid);
    0
}

#[inline(always)]
fn judge_setns(call: &mut InFlight, ret: i64) {
    let Some(state) = STATE.get(0) else { return };
    if ret >= 0 {
        after(call, &own_namespaces());
    }
    let mask = classify(call, state);
    let who = Identity::of_call(call);
    if ret >= 0 {
        done_to_namespaces(
            &who,
            Activity::Setns,
            mask,
            #[inline(always)]
            |index| Target::of(call.class[index]),
        );
    }
    tell_setns(call, mask, ret, &who, Author::Current);
}

/// A setns of another task's that was refused before it was made.
#[inline(always)]
pub(crate) fn refused_setns(call: &mut InFlight, who: &Identity, asker: u64) {
    let Some(state) = STATE.get(0) else { return };
    let mask = classify(call, state);
    tell_setns(call, mask, -EPERM, who, Author::Waiting(asker));
}

/// Whose each type is that the call is about; which those are.
#[inline(always)]
fn classify(call: &mut InFlight, state: &State) -> u32 {
    if call.resolved == 0 {
        call.resolved = mask_of_flags(call.flags);
    }
    let mask = call.resolved | call.changed;
    each_type(
        mask,
        #[inline(always)]
        |index| {
            let class = class_of(call, state, index);
            or(&mut call.classes, 1 << class as u32);
        },
    );
    mask
}

/// Whose the namespace of type `index` is; found once, unless another one was joined.
#[inline(always)]
pub(crate) fn class_of(call: &mut InFlight, state: &State, index: usize) -> Target {
    if call.classed & (1 << index) == 0 {
        let class = whose(state, call.slot, index, call.inums[index]);
        call.class[index] = class as u8;
        or(&mut call.classed, 1 << index);
    }
    Target::of(call.class[index])
}

#[inline(always)]
fn tell_setns(call: &InFlight, mask: u32, ret: i64, who: &Identity, author: Author) {
    let failed = ret < 0;
    let outcome = if failed {
        Outcome::Failed
    } else {
        Outcome::Allowed
    };
    for (target, kind) in [
        (Target::Host, EscapeKind::HostNamespace),
        (Target::Peer, EscapeKind::PeerNamespace),
    ] {
        let concerned = call.classes & (1 << target as u32) != 0;
        let serious = Verdict::EscapeAttempt as usize;
        if concerned && verdict(Activity::Setns, target, failed) >= serious {
            bump(call.slot, escape_cell(kind, outcome));
        }
    }
    count(NsSyscall::Setns, call.slot, mask, outcome);
    let judged = gravest(Activity::Setns, call.classes, failed);
    activity::count(call.slot, Activity::Setns, judged);
    report_by(NsSyscall::Setns, call, ret, who, judged as u32, author);
}

#[inline(always)]
fn exit_unshare(ctx: &impl EbpfContext, ret: i64, flags: u64) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(call) = IN_FLIGHT.get_ptr_mut(pid_tgid) else {
        if ret >= 0 {
            made_outside(mask_of_flags(flags));
        }
        return 0;
    };
    // SAFETY: as in `exit_setns`.
    judge_unshare(unsafe { &mut *call }, ret);
    debug_call(ctx, "unshare", ret);
    let _ = IN_FLIGHT.remove(pid_tgid);
    0
}

/// What nobody's task makes must not stay that of a container whose namespace had its number.
#[inline(always)]
fn made_outside(mask: u32) {
    // A container's call that another program has judged already has no entry either.
    if mask == 0 || own_identity().slot != 0 {
        return;
    }
    let inums = own_namespaces();
    for index in 0..NS_TYPES {
        if mask & (1 << index) != 0 {
            forget(inums[index]);
        }
    }
}

#[inline(always)]
fn judge_unshare(call: &mut InFlight, ret: i64) {
    if ret >= 0 {
        after(call, &own_namespaces());
        own(&call.inums, call.changed, call.slot, REPLACE);
    }
    if call.slot == 0 || call.exempt != 0 {
        return;
    }
    let mask = call.resolved | call.changed;
    for index in 0..NS_TYPES {
        // Without branches: with them the verifier took seven times the steps for this hook.
        call.class[index] = ((mask >> index) & 1) as u8 * Target::New as u8;
    }
    let outcome = if ret < 0 {
        Outcome::Failed
    } else {
        Outcome::Allowed
    };
    count(NsSyscall::Unshare, call.slot, mask, outcome);
    let who = Identity::of_call(call);
    if ret >= 0 {
        done_to_namespaces(&who, Activity::Unshare, mask, |_| Target::New);
    }
    user_namespace(&who, mask, ret);
    let judged = verdict(Activity::Unshare, Target::New, ret < 0);
    activity::count(call.slot, Activity::Unshare, judged);
    report(NsSyscall::Unshare, call, ret, &who, judged as u32);
}

/// A user namespace, made or asked for, is told by itself: it brings every capability inside.
#[inline(always)]
pub(crate) fn user_namespace(who: &Identity, mask: u32, ret: i64) {
    if mask & NsType::User.bit() != 0 {
        judge(who, &Act::new(Activity::Userns, Target::New, ret));
    }
}

/// Takes in what the thread is in after a success.
///
/// Results go to the entry, in map memory, whose content the verifier does not follow: as
/// constants on the stack every combination of types would be a path of its own.
#[inline(always)]
fn after(call: &mut InFlight, now: &[u32; NS_TYPES]) {
    for index in 0..NS_TYPES {
        if call.before[index] != now[index] {
            or(&mut call.changed, 1 << index);
        }
        if call.inums[index] != now[index] {
            call.inums[index] = now[index];
            and(&mut call.classed, !(1 << index));
        }
    }
}

/// Volatile, so that the compiler keeps nothing in registers from one type to the next.
#[inline(always)]
fn or(word: &mut u32, bits: u32) {
    let word: *mut u32 = word;
    // SAFETY: from a reference.
    unsafe { word.write_volatile(word.read_volatile() | bits) };
}

#[inline(always)]
fn and(word: &mut u32, bits: u32) {
    let word: *mut u32 = word;
    // SAFETY: from a reference.
    unsafe { word.write_volatile(word.read_volatile() & bits) };
}

/// Does something for each type of a mask, in their order; most calls are of one.
///
/// Its place is not known to the verifier: what is looked up by it is to be in a map.
#[inline(always)]
pub(crate) fn each_type(mask: u32, mut act: impl FnMut(usize)) {
    let mut left = mask & 0xff;
    for _ in 0..NS_TYPES {
        if left == 0 {
            break;
        }
        let lowest = left & left.wrapping_neg();
        act(index_of(lowest));
        left &= left - 1;
    }
}

/// The place of the only bit, which is below eight: by a de Bruijn sequence of eight bits, whose
/// order the nibbles undo.
#[inline(always)]
const fn index_of(bit: u32) -> usize {
    const SEQUENCE: u32 = 0x1d;
    const PLACES: u32 = 0x3457_2610;
    let place = ((bit * SEQUENCE) & 0xff) >> 5;
    ((PLACES >> (4 * place)) & 7) as usize
}

const _: () = {
    let mut index = 0;
    while index < NS_TYPES {
        assert!(index_of(1 << index) == index);
        index += 1;
    }
};

/// One call, and one per type in `mask`.
#[inline(always)]
pub(crate) fn count(syscall: NsSyscall, slot: u32, mask: u32, outcome: Outcome) {
    bump(slot, call_cell(syscall, outcome));
    for index in 0..NS_TYPES {
        if mask & (1 << index) != 0 {
            bump(slot, ns_call_cell(syscall, index, outcome));
        }
    }
}

#[inline(always)]
pub(crate) fn report(syscall: NsSyscall, call: &InFlight, ret: i64, actor: &Identity, judged: u32) {
    report_by(syscall, call, ret, actor, judged, Author::Current);
}

#[inline(always)]
fn report_by(
    syscall: NsSyscall,
    call: &InFlight,
    ret: i64,
    actor: &Identity,
    judged: u32,
    author: Author,
) {
    let ring = if judged < Verdict::EscapeAttempt as u32 {
        Ring::Events
    } else {
        Ring::Critical
    };
    tell(
        ring,
        call.slot,
        #[inline(always)]
        |record: *mut NsCall| {
            // SAFETY: reserved memory of this record's size; each field is written.
            unsafe {
                let header = &raw mut (*record).header;
                write_header_by(header, kind::NS_CALL, call.slot, actor, author);
                (&raw mut (*record).flags).write(call.flags);
                (&raw mut (*record).syscall).write(syscall as u32);
                (&raw mut (*record).fd).write(call.fd);
                (&raw mut (*record).ret).write(ret as i32);
                (&raw mut (*record).verdict).write(judged);
                (&raw mut (*record).requested).write(call.resolved);
                (&raw mut (*record).changed).write(call.changed);
                (&raw mut (*record).target).write(call.class);
                (&raw mut (*record).inums).write(call.inums);
            }
        },
    );
}
