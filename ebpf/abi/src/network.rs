//! What policy says of peers: by ruleset, who begins, protocol and the longest net, the ports cut
//! into pieces that each have one cell.
//!
//! User space has resolved which rule holds; the kernel half finds one entry and one piece of it.

/// Who begins.
pub mod direction {
    /// To the peer.
    pub const OUT: u8 = 1;
    /// From the peer.
    pub const IN: u8 = 2;
    pub const ALL: u8 = 3;
}

pub mod protocol {
    pub const TCP: u8 = 1;
    pub const UDP: u8 = 2;
    /// Neither of the two; it has no ports.
    pub const OTHER: u8 = 4;
    pub const ALL: u8 = 7;
}

/// Nets of all rulesets together, each once for every direction and protocol that it has an
/// answer of its own for.
pub const PEERS: usize = 32_768;
/// Pieces that the ports of a net are cut into, a power of two: halves are tried until one is left.
pub const PORT_PIECES: usize = 64;

/// Bits of [`PeerKey`] in front of the address, all of which have to fit.
pub const FIXED_BITS: u32 = 32;

/// Data of a key of the trie, behind its length in bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    pub ruleset: u16,
    /// [`way`].
    pub way: u8,
    /// 4 or 6. An IPv4 address in IPv6's form is one of IPv4.
    pub family: u8,
    /// In the order of the net; of IPv4 the first four.
    pub address: [u8; 16],
}

/// Peers that sockets without one have sent to, of all containers.
pub const CONTACTS: usize = 16_384;
/// So long after the last datagram to a peer what comes from it is its answer: as long as the
/// kernel's own connection tracking has it (`nf_conntrack_udp_timeout_stream`).
pub const CONTACT_NS: u64 = 120_000_000_000;

/// Whom a socket has sent to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The kernel's number of the socket.
    pub socket: u64,
    /// As in [`PeerKey`].
    pub address: [u8; 16],
    pub port: u16,
    pub family: u8,
    pub pad: [u8; 5],
}

/// One of [`direction`] and one of [`protocol`].
#[must_use]
#[inline]
pub const fn way(direction: u8, protocol: u8) -> u8 {
    direction << 4 | protocol
}

/// The ports of a net; each piece is [`piece`], in the order of the ports. The first begins at
/// 0, the last is there until the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    pub pieces: [u32; PORT_PIECES],
}

/// Ports from `start` on.
#[must_use]
#[inline]
pub const fn piece(start: u16, cell: u16) -> u32 {
    (start as u32) << 16 | cell as u32
}

#[must_use]
#[inline]
pub const fn piece_start(piece: u32) -> u32 {
    piece >> 16
}

#[must_use]
#[inline]
pub const fn piece_cell(piece: u32) -> u16 {
    (piece & 0xffff) as u16
}

const _: () = assert!(size_of::<PeerKey>() == 20);
const _: () = assert!(size_of::<Contact>() == 32);
const _: () = assert!(size_of::<Ports>() == 4 * PORT_PIECES);
const _: () = assert!(PORT_PIECES.is_power_of_two());
