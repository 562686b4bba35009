//! What policies say of peers, as the kernel half looks it up.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::Key;
use paddock_abi::network::{FIXED_BITS, PEERS, PeerKey, Ports};

use crate::{Error, Probe, swap};

/// Answers by net: the bits of its address that count, and where they begin.
pub type Peers = BTreeMap<(u8, PeerKey), Ports>;

const MAP: &str = "PEER_PORTS";

impl Probe {
    /// Writes what a ruleset says of peers in the place of what was said under its number; no
    /// slot may be bound to it meanwhile, nor to those that are `idle`: where there is no room,
    /// what those say is forgotten, which is what is returned. Fails whole.
    pub fn set_peers(&mut self, ruleset: u32, peers: &Peers, idle: &[u32]) -> Result<bool, Error> {
        self.forget_peers(ruleset)?;
        let full = self.nets() + peers.len() > PEERS;
        if full {
            // A program may still be at the word that was there before the last swap.
            swap::wait_for_running_programs();
            idle.iter().try_for_each(|one| self.forget_peers(*one))?;
        }
        let nets = self.nets() + peers.len();
        if nets > PEERS {
            return Err(Error::PeersFull { nets, most: PEERS });
        }
        for (key, ports) in peers {
            let written = self.maps.peer_ports.insert(&key_of(*key), ports, 0);
            if let Err(source) = written {
                // The first error is the one to tell.
                let _ = self.forget_peers(ruleset);
                return Err(Error::map("write", MAP, source));
            }
            self.peers.entry(ruleset).or_default().push(*key);
        }
        Ok(full)
    }

    fn nets(&self) -> usize {
        self.peers.values().map(Vec::len).sum()
    }

    fn forget_peers(&mut self, ruleset: u32) -> Result<(), Error> {
        for key in self.peers.remove(&ruleset).unwrap_or_default() {
            self.maps
                .peer_ports
                .remove(&key_of(key))
                .map_err(|source| Error::map("delete from", MAP, source))?;
        }
        Ok(())
    }
}

/// What is there by ruleset: a predecessor's, too.
pub(crate) fn known(maps: &crate::maps::Maps) -> BTreeMap<u32, Vec<(u8, PeerKey)>> {
    let mut known: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for key in maps.peer_ports.keys().filter_map(Result::ok) {
        let bits = u8::try_from(key.prefix_len().saturating_sub(FIXED_BITS)).unwrap_or(u8::MAX);
        let at: PeerKey = key.data();
        let ruleset = u32::from(at.ruleset);
        known.entry(ruleset).or_default().push((bits, at));
    }
    known
}

fn key_of((bits, key): (u8, PeerKey)) -> Key<PeerKey> {
    Key::new(FIXED_BITS + u32::from(bits), key)
}
