//! Who talks to a container: asked for each packet by which a peer begins something with a socket
//! of it, by `traffic`, in no task's context.
//!
//! Of TCP that is a SYN to a listening socket. UDP knows no beginning: a datagram to a socket that
//! is not connected, unless it comes from where that socket has sent one to shortly before, which
//! [`sent`] writes down. What is refused is dropped; whoever sent it is told nothing.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{
        bpf_get_socket_cookie,
        generated::{bpf_ktime_get_boot_ns, bpf_sk_fullsock},
    },
    programs::{SkBuffContext, SockAddrContext},
};
use paddock_abi::{
    counters::Ring,
    network::{CONTACT_NS, Contact, direction, protocol, way},
    policy::{ACTION_ALLOW, ACTION_AUDIT, ACTION_DENY, action},
    record::{PeerDenial, hierarchy, kind},
};

use super::{
    Held, anybody, count,
    network::{MAPPED, PASS, Peer, REFUSE, bytes, protocol_of, write_denial},
};
use crate::{
    admit::asking_is_told,
    count::{tell, write_header_of_nobody},
    maps::{ANSWERS, CONTACTS},
    task::Identity,
};

/// In the order of the net, as the context has them:
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/if_ether.h>
const IPV4: u32 = u16::to_be(0x0800) as u32;
const IPV6: u32 = u16::to_be(0x86dd) as u32;
/// <https://github.com/torvalds/linux/blob/v6.18/include/net/tcp_states.h>
const ESTABLISHED: u32 = 1;
const LISTEN: u32 = 10;
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/net.h>
const STREAM: u32 = 1;
const DATAGRAM: u32 = 2;
/// Where a TCP header has its flags, and two of them.
const FLAGS: u32 = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Of a socket, as far as the verifier lets it be read.
struct Socket {
    kind: u32,
    protocol: u8,
    state: u32,
    port: u16,
}

/// Whether a packet may go on to a socket of the slot's; `mine` says who counts.
#[inline(always)]
pub(crate) fn answer(ctx: &SkBuffContext, slot: u32, cgroup: u64, mine: bool) -> i32 {
    if !anybody() {
        return PASS;
    }
    let who = Identity {
        id: cgroup,
        hierarchy: hierarchy::UNIFIED,
        slot,
    };
    let Some(held) = Held::of(&who) else {
        return PASS;
    };
    if !held.asks_of_peers() {
        return PASS;
    }
    let Some(peer) = begun(ctx) else {
        return PASS;
    };
    let cell = held.peer_cell(&peer);
    let asked = action(cell);
    if asked == ACTION_ALLOW {
        return PASS;
    }
    // There is no process to kill.
    let action = asked.min(ACTION_DENY);
    if mine {
        held.tell_of_peer(cell, action, &peer);
    }
    if action == ACTION_AUDIT { PASS } else { REFUSE }
}

/// A datagram of an unconnected socket goes out: what comes from there is its answer.
#[inline(always)]
pub(super) fn sent(ctx: &SockAddrContext, held: &Held, peer: &Peer) {
    if !held.asks_of_peers() {
        return;
    }
    // SAFETY: the context that the kernel handed over; the helpers have no other preconditions.
    let (socket, now) = unsafe {
        (
            bpf_get_socket_cookie(ctx.sock_addr.cast()),
            bpf_ktime_get_boot_ns(),
        )
    };
    // Full: LRU makes room.
    let _ = CONTACTS.insert(contact(socket, peer.port, peer), now, 0);
}

#[inline(always)]
fn contact(socket: u64, port: u16, peer: &Peer) -> Contact {
    Contact {
        socket,
        address: bytes(peer.address),
        port,
        family: peer.family,
        pad: [0; 5],
    }
}

/// Whom from, if something begins with the packet.
#[inline(always)]
fn begun(ctx: &SkBuffContext) -> Option<Peer> {
    let socket = socket(ctx)?;
    let of_tcp = socket.protocol == protocol::TCP;
    let waits = if of_tcp {
        socket.kind == STREAM && socket.state == LISTEN
    } else {
        socket.kind == DATAGRAM && socket.state != ESTABLISHED
    };
    // Raw sockets, which see copies, are not asked for.
    if !waits {
        return None;
    }
    let (family, address, at) = sender(ctx)?;
    let peer = Peer {
        family,
        way: way(direction::IN, socket.protocol),
        port: socket.port,
        address,
    };
    // Where the header is not found it is taken for a beginning.
    if at == 0 {
        return Some(peer);
    }
    if of_tcp {
        let flags: u8 = load(ctx, at + FLAGS).unwrap_or(SYN);
        // The others end a handshake of which the beginning was asked for.
        return (flags & (SYN | ACK) == SYN).then_some(peer);
    }
    let from = u16::from_be(load(ctx, at).unwrap_or(0));
    (!is_answer(ctx, from, &peer)).then_some(peer)
}

#[inline(always)]
fn is_answer(ctx: &SkBuffContext, from: u16, peer: &Peer) -> bool {
    // SAFETY: as in `sent`.
    let (socket, now) = unsafe {
        (
            bpf_get_socket_cookie(ctx.skb.skb.cast()),
            bpf_ktime_get_boot_ns(),
        )
    };
    // SAFETY: the value is copied at once.
    let sent = unsafe { CONTACTS.get(contact(socket, from, peer)) }.copied();
    sent.is_some_and(|sent| now.saturating_sub(sent) < CONTACT_NS)
}

#[inline(always)]
fn socket(ctx: &SkBuffContext) -> Option<Socket> {
    // SAFETY: a field of the context, a pointer that the verifier knows.
    let common = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if common.is_null() {
        return None;
    }
    // SAFETY: a socket that the kernel handed over; what comes back lives as long.
    let full: *const bpf_sock = unsafe { bpf_sk_fullsock(common) };
    if full.is_null() {
        return None;
    }
    // SAFETY: fields of a socket, read word by word.
    let (kind, number, state, port) = unsafe {
        (
            (&raw const (*full).type_).read_volatile(),
            (&raw const (*full).protocol).read_volatile(),
            (&raw const (*full).state).read_volatile(),
            (&raw const (*full).src_port).read_volatile(),
        )
    };
    Some(Socket {
        kind,
        protocol: protocol_of(number)?,
        state,
        port: port as u16,
    })
}

/// Family and address, and where the header behind that of IP is, or 0.
#[inline(always)]
fn sender(ctx: &SkBuffContext) -> Option<(u8, [u32; 4], u32)> {
    const WORD: u32 = 4;
    // SAFETY: a field of the context.
    let family = unsafe { (*ctx.skb.skb).protocol };
    if family == IPV4 {
        let first: u8 = load(ctx, 0)?;
        let address = load(ctx, 12)?;
        return Some((4, [address, 0, 0, 0], u32::from(first & 0xf) * WORD));
    }
    if family != IPV6 {
        return None;
    }
    let [a, b, c, d]: [u32; 4] = load(ctx, 8)?;
    let at = behind_extensions(ctx);
    if a | b == 0 && c == MAPPED {
        return Some((4, [d, 0, 0, 0], at));
    }
    Some((6, [a, b, c, d], at))
}

/// Of IPv6, whose headers may be followed by others that a peer chooses.
/// <https://github.com/torvalds/linux/blob/v6.18/net/ipv6/exthdrs_core.c>, `ipv6_skip_exthdr`
#[inline(always)]
fn behind_extensions(ctx: &SkBuffContext) -> u32 {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const OPTIONS: u8 = 60;
    const MOST: usize = 8;
    let mut at = 40;
    let mut next: u8 = load(ctx, 6).unwrap_or(0);
    for _ in 0..MOST {
        if !matches!(
            next,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | OPTIONS
        ) {
            return at;
        }
        let Some([following, length]) = load::<[u8; 2]>(ctx, at) else {
            return 0;
        };
        let length = u32::from(length);
        at += match next {
            FRAGMENT => 8,
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = following;
    }
    0
}

/// From the beginning of IP's header.
#[inline(always)]
fn load<T>(ctx: &SkBuffContext, at: u32) -> Option<T> {
    ctx.load(at as usize).ok()
}

impl Held {
    /// Whether a rule about ingress holds.
    #[inline(always)]
    fn asks_of_peers(&self) -> bool {
        ANSWERS.get(self.ruleset).is_some_and(|answers| {
            // SAFETY: a field; user space may write it meanwhile, at once.
            unsafe { (&raw const answers.ingress).read_volatile() != 0 }
        })
    }

    #[inline(always)]
    fn tell_of_peer(&self, cell: u16, action: u16, peer: &Peer) {
        let key = self.hit(cell, action);
        count(key);
        // Whoever likes may send packets: those of one port.
        if !asking_is_told(
            self.who.slot,
            u32::from(peer.way) << 16 | u32::from(peer.port),
        ) {
            return;
        }
        tell(
            Ring::Critical,
            self.who.slot,
            #[inline(always)]
            |record: *mut PeerDenial| {
                // SAFETY: reserved memory of this record's size; each field is written.
                unsafe {
                    write_header_of_nobody(
                        &raw mut (*record).header,
                        kind::PEER_DENIAL,
                        self.who.slot,
                        &self.who,
                    );
                    write_denial(record, &key, peer);
                }
            },
        );
    }
}
