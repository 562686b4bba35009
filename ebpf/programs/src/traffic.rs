//! What the network carries for a container: each packet of IP that a socket of it takes or sends,
//! on whatever interface. What policy refuses was carried all the same.
//!
//! Programs of the root cgroup, often in no task's context: whose a packet is, its socket's cgroup
//! says. A socket keeps the cgroup that its maker was in.

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_skb_cgroup_id},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use paddock_abi::{
    counters::{Way, traffic_cell},
    key::SELFTEST_PACKET,
    record::hierarchy,
};

use crate::{
    count::bump_by,
    enforce::answer_packet,
    once::{Runs, once_of},
    selftest,
    task::slot_of,
};

const PASS: i32 = 1;

#[cgroup_skb(ingress)]
fn cgroup_ingress(ctx: SkBuffContext) -> i32 {
    count(&ctx, Way::Received)
}

#[cgroup_skb(egress)]
fn cgroup_egress(ctx: SkBuffContext) -> i32 {
    count(&ctx, Way::Sent)
}

#[inline(always)]
fn count(ctx: &SkBuffContext, way: Way) -> i32 {
    let packet = ctx.skb.skb;
    // SAFETY: the context that the kernel handed over, and a field of it.
    let (cgroup, bytes) = unsafe { (bpf_skb_cgroup_id(packet), (*packet).len) };
    if bytes == SELFTEST_PACKET {
        selftest::observe_packet(cgroup, bytes);
    }
    let slot = slot_of(hierarchy::UNIFIED, cgroup);
    if slot == 0 {
        return PASS;
    }
    let mine = once_of(Runs::NewestLast, || about(way, bytes));
    if mine {
        // SAFETY: as above. What leaves in one piece for the device to cut counts as the pieces.
        let pieces = unsafe { (*packet).gso_segs };
        bump_by(slot, traffic_cell(way), u64::from(pieces.max(1)));
        bump_by(slot, traffic_cell(way) + 1, u64::from(bytes));
    }
    match way {
        Way::Received => answer_packet(ctx, slot, cgroup, mine),
        Way::Sent => PASS,
    }
}

/// Tells one packet from others while two generations see it, one right after the other on the same
/// processor. No thread's id has that bit.
#[inline(always)]
fn about(way: Way, bytes: u32) -> u64 {
    const NO_THREAD: u64 = 1 << 31;
    // SAFETY: the helper has no preconditions.
    let processor = u64::from(unsafe { bpf_get_smp_processor_id() });
    (way as u64) << 63 | u64::from(bytes) << 32 | NO_THREAD | processor
}
