//! What policies say of peers, as the kernel half looks it up.

use std::collections::BTreeMap;

use aya::maps::{LpmTrie, MapData, MapError, lpm_trie::Key};
use paddock_abi::network::{FIXED_BITS, PEERS, PeerKey, Ports};

use crate::{
    Error, Probe,
    maps::Maps,
    tables::{Entries, Table},
};

/// Answers by net: the bits of its address that count, and where they begin.
pub type Peers = BTreeMap<(u8, PeerKey), Ports>;

impl Probe {
    /// What a ruleset says of peers; as [`Probe::set_paths`].
    pub fn set_peers(&mut self, ruleset: u32, peers: &Peers, idle: &[u32]) -> Result<bool, Error> {
        let said: Vec<_> = peers.iter().map(|(key, ports)| (*key, *ports)).collect();
        let map = &mut self.maps.peer_ports;
        self.peers.set(map, ruleset, &said, idle)
    }
}

pub(crate) fn known(maps: &Maps) -> Table<(u8, PeerKey)> {
    let all = maps.peer_ports.keys().filter_map(Result::ok).map(|key| {
        let bits = u8::try_from(key.prefix_len().saturating_sub(FIXED_BITS)).unwrap_or(u8::MAX);
        let at: PeerKey = key.data();
        (u32::from(at.ruleset), (bits, at))
    });
    let full = |nets, most| Error::PeersFull { nets, most };
    Table::known("PEER_PORTS", PEERS, full, all)
}

impl Entries<(u8, PeerKey), Ports> for LpmTrie<MapData, PeerKey, Ports> {
    fn put(&mut self, key: &(u8, PeerKey), ports: &Ports) -> Result<(), MapError> {
        self.insert(&key_of(*key), ports, 0)
    }

    fn take(&mut self, key: &(u8, PeerKey)) -> Result<(), MapError> {
        self.remove(&key_of(*key))
    }
}

fn key_of((bits, key): (u8, PeerKey)) -> Key<PeerKey> {
    Key::new(FIXED_BITS + u32::from(bits), key)
}
