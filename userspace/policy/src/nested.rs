//! Nets in nets, and paths below paths: of such things any two contain one another or have
//! nothing in common, so that sorted by their keys each stands behind those that it lies in.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{model::Cidr, scope::Scope};

/// What lies in a thing has a key that begins with that thing's; `None` for what does not nest.
pub(crate) fn key(scope: &Scope<'_>) -> Option<Vec<u8>> {
    match scope {
        Scope::Network(network) => Some(key_of_net(&network.net)),
        Scope::Path { path, .. } => Some(key_of_path(path)),
        _ => None,
    }
}

/// The family, and a byte for each bit.
fn key_of_net(net: &Cidr) -> Vec<u8> {
    let (family, bits, first) = match net.address {
        IpAddr::V4(address) => (b'4', u128::from(address.to_bits()), 31),
        IpAddr::V6(address) => (b'6', address.to_bits(), 127),
    };
    let bit = |place: u8| b'0' + u8::from(bits >> (first - place) & 1 != 0);
    [family].into_iter().chain((0..net.bits).map(bit)).collect()
}

fn key_of_path(path: &str) -> Vec<u8> {
    let end = if path.ends_with('/') { "" } else { "/" };
    [path, end].concat().into_bytes()
}

/// Things by their places in a list, and how they lie in one another.
#[derive(Debug)]
pub(crate) struct Nested {
    /// Sorted by key, so that what lies in a thing follows it.
    nodes: Vec<Node>,
    node_of: BTreeMap<usize, usize>,
}

/// Those of one key.
#[derive(Debug)]
struct Node {
    places: Vec<usize>,
    around: Option<usize>,
    /// Behind the last that lies in it.
    end: usize,
}

impl Nested {
    pub(crate) fn of(mut keys: Vec<(usize, Vec<u8>)>) -> Self {
        keys.sort_by(|(one, a), (two, b)| a.cmp(b).then(one.cmp(two)));
        let (mut nodes, mut node_of) = (Vec::<Node>::new(), BTreeMap::new());
        // Those around the next one, each with its key.
        let mut open: Vec<(usize, &[u8])> = Vec::new();
        for same in keys.chunk_by(|(_, a), (_, b)| a == b) {
            let number = nodes.len();
            let Some((_, key)) = same.first() else {
                continue;
            };
            while let Some((closed, outer)) = open.last()
                && !key.starts_with(outer)
            {
                if let Some(node) = nodes.get_mut(*closed) {
                    node.end = number;
                }
                open.pop();
            }
            let places: Vec<usize> = same.iter().map(|(place, _)| *place).collect();
            node_of.extend(places.iter().map(|place| (*place, number)));
            nodes.push(Node {
                places,
                around: open.last().map(|(outer, _)| *outer),
                end: usize::MAX,
            });
            open.push((number, key));
        }
        Self { nodes, node_of }
    }

    /// Those that the one at `place` lies in, and those of the same key, itself too.
    pub(crate) fn around(&self, place: usize) -> Vec<usize> {
        let mut next = self.node_of.get(&place).copied();
        let mut places = Vec::new();
        while let Some(node) = next.and_then(|number| self.nodes.get(number)) {
            places.extend(&node.places);
            next = node.around;
        }
        places.sort_unstable();
        places
    }

    /// The same, and those that lie in it. `None` where it is none of the things.
    pub(crate) fn meeting(&self, place: usize) -> Option<Vec<usize>> {
        let number = *self.node_of.get(&place)?;
        let node = self.nodes.get(number)?;
        let inside = number + 1..node.end.min(self.nodes.len());
        let mut places = self.around(place);
        let nodes = self.nodes.get(inside).unwrap_or_default();
        places.extend(nodes.iter().flat_map(|node| &node.places));
        places.sort_unstable();
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::below;

    fn check<T>(things: &[T], key: impl Fn(&T) -> Vec<u8>, covers: impl Fn(&T, &T) -> bool) {
        // What is no such thing has a place in the list, too.
        let keys = things.iter().enumerate();
        let nested = Nested::of(keys.map(|(place, thing)| (place * 2, key(thing))).collect());
        for (place, thing) in things.iter().enumerate() {
            let those = |holds: &dyn Fn(&T) -> bool| -> Vec<usize> {
                let others = things.iter().enumerate();
                others
                    .filter(|(_, other)| holds(other))
                    .map(|(other, _)| other * 2)
                    .collect()
            };
            let outer = those(&|wide| covers(wide, thing));
            assert_eq!(nested.around(place * 2), outer, "{place}");
            let all = those(&|other| covers(other, thing) || covers(thing, other));
            assert_eq!(nested.meeting(place * 2), Some(all), "{place}");
            assert_eq!(nested.meeting(place * 2 + 1), None);
        }
    }

    #[test]
    fn paths_are_below_what_the_order_of_precedence_says() {
        let paths = [
            "/a/b", "/", "/a", "/ab", "/a/b/c", "/a-b", "/b", "/a/b", "/a/bc", "/a.d/x", "/a",
            "/z/y",
        ];
        check(
            &paths,
            |path| key_of_path(path),
            |wide, path| below(wide, path),
        );
    }

    #[test]
    fn nets_are_in_those_that_cover_them() {
        let nets: Vec<Cidr> = [
            ("10.0.0.0", 8),
            ("0.0.0.0", 0),
            ("10.1.0.0", 16),
            ("10.1.2.0", 24),
            ("10.1.2.0", 24),
            ("11.0.0.0", 8),
            ("10.128.0.0", 9),
            ("10.1.2.3", 32),
            ("::", 0),
            ("fd00::", 8),
            ("fd00:1::", 32),
            ("::ffff:10.1.2.3", 128),
            ("fd00::1", 128),
        ]
        .map(|(address, bits)| Cidr {
            address: address.parse().unwrap(),
            bits,
        })
        .to_vec();
        check(&nets, key_of_net, Cidr::covers);
    }
}
