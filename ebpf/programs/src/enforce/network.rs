//! Whom a container talks to: asked before a connection and before a datagram to an address.
//!
//! Programs of the root cgroup, in the context of the caller's task (io_uring's calls too), on
//! every kernel without LSM. They may not send a signal: a process that is to be killed is
//! refused here, and the agent kills it. Counted here in audit, too: nobody sees it afterwards.

use aya_ebpf::{
    bindings::bpf_sock_addr, btf_maps::lpm_trie::Key, helpers::bpf_get_current_uid_gid,
    macros::cgroup_sock_addr, programs::SockAddrContext,
};
use paddock_abi::{
    counters::Ring,
    network::{
        FIXED_BITS, PORT_PIECES, PeerKey, Ports, direction, piece_cell, piece_start, protocol, way,
    },
    policy::{ACTION_ALLOW, ACTION_AUDIT, HitKey, action},
    record::{PeerDenial, kind},
};

use super::{Held, anybody, count, held_anywhere, ingress, own_action};
use crate::{
    count::{tell, write_header_about},
    maps::PEER_PORTS,
    once::{Runs, once},
    selftest, task,
};

pub(super) const PASS: i32 = 1;
pub(super) const REFUSE: i32 = 0;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_UDPLITE: u32 = 136;
/// 127.0.0.1 and the beginning of an IPv4 address in IPv6's form, in the order of the net.
const LOOPBACK: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
pub(super) const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
const ONE: u32 = u32::from_ne_bytes([0, 0, 0, 1]);

/// Whom somebody wants to talk to, or who wants to talk to them.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) family: u8,
    pub(super) way: u8,
    /// The peer's, or where the peer begins the socket's own.
    pub(super) port: u16,
    /// In the order of the net.
    pub(super) address: [u32; 4],
}

/// What a program is asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Connect,
    Send,
}

#[cgroup_sock_addr(connect4)]
fn cgroup_connect4(ctx: SockAddrContext) -> i32 {
    if selftest::on() {
        let port = port(&ctx);
        selftest::observe(selftest::NETWORK, task::current(), i64::from(port));
        return PASS;
    }
    four(&ctx, Act::Connect)
}

#[cgroup_sock_addr(sendmsg4)]
fn cgroup_sendmsg4(ctx: SockAddrContext) -> i32 {
    four(&ctx, Act::Send)
}

#[cgroup_sock_addr(connect6)]
fn cgroup_connect6(ctx: SockAddrContext) -> i32 {
    six(&ctx, Act::Connect)
}

#[cgroup_sock_addr(sendmsg6)]
fn cgroup_sendmsg6(ctx: SockAddrContext) -> i32 {
    six(&ctx, Act::Send)
}

#[inline(always)]
fn four(ctx: &SockAddrContext, act: Act) -> i32 {
    if !anybody() {
        return PASS;
    }
    let Some(held) = held_anywhere() else {
        return PASS;
    };
    // SAFETY: a field of the context, of a word.
    let address = unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() };
    judge(
        ctx,
        act,
        &held,
        &peer(ctx, 4, [of_nobody(address), 0, 0, 0]),
    )
}

#[inline(always)]
fn six(ctx: &SockAddrContext, act: Act) -> i32 {
    if !anybody() {
        return PASS;
    }
    let Some(held) = held_anywhere() else {
        return PASS;
    };
    let at = ctx.sock_addr;
    // SAFETY: fields of the context, read word by word.
    let address = unsafe {
        let first = (&raw const (*at).user_ip6).cast::<u32>();
        [
            first.read_volatile(),
            first.add(1).read_volatile(),
            first.add(2).read_volatile(),
            first.add(3).read_volatile(),
        ]
    };
    let [a, b, c, d] = address;
    if a | b == 0 && c == MAPPED {
        return judge(ctx, act, &held, &peer(ctx, 4, [of_nobody(d), 0, 0, 0]));
    }
    if a | b | c | d == 0 {
        // The kernel's own choice: IPv4's loopback where the socket is bound to such an address.
        let (one, other) = (
            peer(ctx, 6, [0, 0, 0, ONE]),
            peer(ctx, 4, [LOOPBACK, 0, 0, 0]),
        );
        let (cell, cell_of_four) = (held.peer_cell(&one), held.peer_cell(&other));
        return if action(cell_of_four) > action(cell) {
            answer(ctx, act, &held, cell_of_four, &other)
        } else {
            answer(ctx, act, &held, cell, &one)
        };
    }
    judge(ctx, act, &held, &peer(ctx, 6, address))
}

/// To no address is to one's own machine.
#[inline(always)]
fn of_nobody(address: u32) -> u32 {
    if address == 0 { LOOPBACK } else { address }
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: a field of the context, of a word whose first half is the port.
    let port = unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() };
    u16::from_be(port as u16)
}

#[inline(always)]
fn peer(ctx: &SockAddrContext, family: u8, address: [u32; 4]) -> Peer {
    let at: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: a field of the context, of a word.
    let number = unsafe { (&raw const (*at).protocol).read_volatile() };
    Peer {
        family,
        way: way(
            direction::OUT,
            protocol_of(number).unwrap_or(protocol::OTHER),
        ),
        port: port(ctx),
        address,
    }
}

/// By the kernel's number; none where the hooks of TCP and UDP are not asked for it.
#[inline(always)]
pub(super) fn protocol_of(number: u32) -> Option<u8> {
    Some(match number {
        IPPROTO_TCP => protocol::TCP,
        IPPROTO_UDP => protocol::UDP,
        IPPROTO_UDPLITE => protocol::OTHER,
        _ => return None,
    })
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, act: Act, held: &Held, peer: &Peer) -> i32 {
    answer(ctx, act, held, held.peer_cell(peer), peer)
}

#[inline(always)]
fn answer(ctx: &SockAddrContext, act: Act, held: &Held, cell: u16, peer: &Peer) -> i32 {
    let answer = held.answer_peer(cell, peer);
    if act == Act::Send && answer == PASS {
        ingress::sent(ctx, held, peer);
    }
    answer
}

impl Held {
    #[inline(always)]
    fn answer_peer(&self, cell: u16, peer: &Peer) -> i32 {
        let action = own_action(cell);
        if action == ACTION_ALLOW {
            return PASS;
        }
        // While two generations of programs are here both refuse, and one counts.
        if once(Runs::NewestLast) {
            self.tell_peer(cell, action, peer);
        }
        if action == ACTION_AUDIT { PASS } else { REFUSE }
    }

    #[inline(always)]
    pub(super) fn peer_cell(&self, peer: &Peer) -> u16 {
        let key = PeerKey {
            ruleset: self.ruleset as u16,
            way: peer.way,
            family: peer.family,
            address: bytes(peer.address),
        };
        let all = FIXED_BITS + if peer.family == 4 { 32 } else { 128 };
        match PEER_PORTS.get(&Key::new(all, key)) {
            Some(ports) => cell_of(ports, u32::from(peer.port)),
            None => 0,
        }
    }

    #[inline(always)]
    fn tell_peer(&self, cell: u16, action: u16, peer: &Peer) {
        let key = self.hit(cell, action);
        count(key);
        tell(
            Ring::Critical,
            self.who.slot,
            #[inline(always)]
            |record: *mut PeerDenial| {
                let uid = bpf_get_current_uid_gid() as u32;
                // SAFETY: reserved memory of this record's size; each field is written.
                unsafe {
                    write_header_about(
                        &raw mut (*record).header,
                        kind::PEER_DENIAL,
                        self.who.slot,
                        &self.who,
                        &task::about_anywhere(uid),
                    );
                    write_denial(record, &key, peer);
                }
            },
        );
    }
}

/// Which rule, and whom; the header is the caller's.
///
/// SAFETY: memory that is reserved for the record.
#[inline(always)]
pub(super) unsafe fn write_denial(record: *mut PeerDenial, key: &HitKey, peer: &Peer) {
    // SAFETY: as the caller vouches.
    unsafe {
        (&raw mut (*record).ruleset).write(key.ruleset);
        (&raw mut (*record).rule).write(key.rule);
        (&raw mut (*record).action).write(key.action);
        (&raw mut (*record).port).write(peer.port);
        (&raw mut (*record).way).write(peer.way);
        (&raw mut (*record).family).write(peer.family);
        (&raw mut (*record).address).write(peer.address);
    }
}

/// Of the last piece that begins at the port or before it.
#[inline(always)]
fn cell_of(ports: &Ports, port: u32) -> u16 {
    let first = ports.pieces.as_ptr();
    let at = |index: usize| {
        // SAFETY: below the array's length by the mask.
        unsafe { first.add(index & (PORT_PIECES - 1)).read_volatile() }
    };
    // Most nets have one for all ports.
    if port < piece_start(at(1)) {
        return piece_cell(at(0));
    }
    let mut index = 0;
    let mut step = PORT_PIECES / 2;
    for _ in 0..PORT_PIECES.trailing_zeros() {
        if piece_start(at(index + step)) <= port {
            index += step;
        }
        step /= 2;
    }
    piece_cell(at(index))
}

#[inline(always)]
pub(super) fn bytes(address: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are of 16 bytes of which any are a value.
    unsafe { core::mem::transmute(address) }
}
