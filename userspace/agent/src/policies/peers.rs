//! What a ruleset says of peers, as the kernel half looks it up: one entry for each net, direction
//! and protocol whose answer is not that of the net around it.

use std::collections::BTreeMap;

use paddock_policy::{
    NetworkAnswer, Ruleset,
    model::{Cidr, direction, protocol},
};
use paddock_probe::{
    PeerKey, Peers, Ports,
    network::{PORT_PIECES, piece, piece_cell, way},
};

/// More separate ports than the kernel half looks through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what policies say of {net} changes at more than {PORT_PIECES} ports; let rules name ranges, \
     or fewer ports"
)]
pub(crate) struct TooManyPorts {
    net: Cidr,
}

/// `number` is the ruleset's.
pub(super) fn peers(ruleset: &Ruleset, number: u32) -> Result<Peers, TooManyPorts> {
    let mut peers = BTreeMap::new();
    for direction in DIRECTIONS {
        for protocol in PROTOCOLS {
            // The nets around the one at hand, in the order of their length: they come before it.
            let mut around: Vec<(Cidr, Ports)> = Vec::new();
            for node in &ruleset.networks {
                let of = |answer: &&NetworkAnswer| {
                    answer.direction == direction && answer.protocol == protocol
                };
                let ports =
                    ports(node.answers.iter().filter(of)).ok_or(TooManyPorts { net: node.net })?;
                while around.last().is_some_and(|(net, _)| !net.covers(&node.net)) {
                    around.pop();
                }
                if around.last().map_or(NOTHING, |(_, ports)| *ports) != ports {
                    let key = key(number, way(direction, protocol), &node.net);
                    peers.insert((node.net.bits, key), ports);
                }
                around.push((node.net, ports));
            }
        }
    }
    Ok(peers)
}

const DIRECTIONS: [u8; 2] = [direction::OUT, direction::IN];
const PROTOCOLS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::OTHER];

/// Whether anything is said of what peers begin.
pub(super) fn asks_of_peers(ruleset: &Ruleset) -> bool {
    let mut all = ruleset.networks.iter().flat_map(|node| &node.answers);
    all.any(|answer| answer.direction == direction::IN)
}

/// Every port allowed, as where there is no entry.
const NOTHING: Ports = Ports {
    pieces: {
        let mut pieces = [piece(u16::MAX, 0); PORT_PIECES];
        pieces[0] = 0;
        pieces
    },
};

fn key(number: u32, way: u8, net: &Cidr) -> PeerKey {
    let mut address = [0; 16];
    let family = match net.address {
        std::net::IpAddr::V4(four) => {
            for (to, byte) in address.iter_mut().zip(four.octets()) {
                *to = byte;
            }
            4
        }
        std::net::IpAddr::V6(six) => {
            address = six.octets();
            6
        }
    };
    PeerKey {
        // There are fewer rulesets.
        ruleset: u16::try_from(number).unwrap_or(u16::MAX),
        way,
        family,
        address,
    }
}

/// Answers are in the order of their ports; between them all is allowed. None: too many pieces.
fn ports<'a>(answers: impl Iterator<Item = &'a NetworkAnswer>) -> Option<Ports> {
    let mut pieces = Vec::new();
    let mut next = Some(0);
    for answer in answers {
        let (from, to) = answer.ports;
        if let Some(start) = next.filter(|start| *start < from) {
            pieces.push(piece(start, 0));
        }
        pieces.push(piece(from, answer.cell));
        next = to.checked_add(1);
    }
    pieces.extend(next.map(|start| piece(start, 0)));
    // What is behind the last begins nowhere but at the last port, and says the same.
    let last = pieces.last().copied().map_or(0, piece_cell);
    let mut ports = Ports {
        pieces: [piece(u16::MAX, last); PORT_PIECES],
    };
    for (index, piece) in pieces.into_iter().enumerate() {
        *ports.pieces.get_mut(index)? = piece;
    }
    Some(ports)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use paddock_policy::{
        Policy, compile,
        model::{Match, Mode, Verb},
        parse,
    };
    use paddock_probe::{
        network::{FIXED_BITS, piece_start},
        policy::{ACTION_ALLOW, ACTION_AUDIT, ACTION_DENY, action},
    };

    use super::*;

    /// As the kernel's trie and `cell_of` in `enforce/network.rs` look it up.
    fn looked_up(peers: &Peers, number: u32, way: u8, address: IpAddr, port: u16) -> u16 {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let asked = key(number, way, &Cidr { address, bits });
        let fits = |(bits, one): &&(u8, PeerKey)| {
            let same = (one.ruleset, one.way, one.family);
            let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
            let apart = u128::from_be_bytes(one.address) ^ u128::from_be_bytes(asked.address);
            same == (asked.ruleset, asked.way, asked.family) && apart & mask == 0
        };
        let longest = peers.keys().filter(fits).max_by_key(|(bits, _)| *bits);
        let Some(ports) = longest.and_then(|key| peers.get(key)) else {
            return ACTION_ALLOW;
        };
        let mut index = 0;
        let mut step = PORT_PIECES / 2;
        while step > 0 {
            if piece_start(ports.pieces[index + step]) <= u32::from(port) {
                index += step;
            }
            step /= 2;
        }
        action(piece_cell(ports.pieces[index]))
    }

    /// By the words of docs/policy.md: the longest net, of one net the fewer ports and protocols,
    /// the posture last.
    fn asked(policy: &Policy, direction: u8, protocol: u8, address: IpAddr, port: u16) -> u16 {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let peer = Cidr { address, bits };
        let mut best = None;
        for rule in &policy.rules {
            for matched in &rule.matches {
                let Match::Network(network) = matched else {
                    continue;
                };
                if network.net.covers(&peer)
                    && network.directions & direction != 0
                    && network.protocols & protocol != 0
                    && (network.ports.0..=network.ports.1).contains(&port)
                {
                    let action = match (rule.verb, rule.mode) {
                        (Verb::Allow, _) => ACTION_ALLOW,
                        (Verb::Deny, Mode::Audit) => ACTION_AUDIT,
                        (Verb::Deny, Mode::Enforce) => ACTION_DENY,
                    };
                    let ports = u16::MAX - (network.ports.1 - network.ports.0);
                    let protocols = 3 - network.protocols.count_ones();
                    let one = (!rule.posture, network.net.bits, ports, protocols, action);
                    best = best.max(Some(one));
                }
            }
        }
        best.map_or(ACTION_ALLOW, |(.., action)| action)
    }

    #[test]
    fn tables_say_what_the_rules_say() {
        let mut seed = 7_u32;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as usize % below
        };
        let nets = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/24",
            "10.1.2.3",
            "::/0",
            "fd00::/8",
            "fd00:1::/32",
            "fd00:1::7",
            "::1",
        ];
        let asked_of = [
            "10.1.2.3",
            "10.1.2.4",
            "10.1.3.1",
            "10.2.0.1",
            "11.0.0.1",
            "fd00:1::7",
            "fd00:1::8",
            "fd01::1",
            "fe80::1",
            "::1",
            // An IPv6 address that merely ends as an IPv4 one.
            "::10.1.2.3",
        ];
        let mut good = 0;
        for round in 0..1500 {
            let mut policies = Vec::new();
            for _ in 0..=random(2) {
                let mut text = String::from("name = \"p\"\n");
                if random(2) == 0 {
                    text += "default = { network = \"deny\" }\n";
                }
                for _ in 0..4 {
                    let effect = ["deny", "allow"][random(2)];
                    let mode = match (effect, random(2)) {
                        ("deny", 0) => "mode = \"enforce\"\n",
                        _ => "",
                    };
                    let net = nets[random(nets.len())];
                    let protocol = [
                        "",
                        ", protocol = \"tcp\"",
                        ", protocol = [\"udp\", \"tcp\"]",
                    ][random(3)];
                    let from = [0, 1, 5, 65_530][random(4)];
                    let port = match random(3) {
                        0 => String::new(),
                        1 => format!(", port = {from}"),
                        _ => format!(", port = \"{from}-{}\"", from + random(6)),
                    };
                    let direction =
                        ["\"egress\"", "[\"egress\", \"ingress\"]", "\"ingress\""][random(3)];
                    let rule = format!(
                        "[[rule]]\neffect = \"{effect}\"\n{mode}network = {{ direction = \
                         {direction}, net = \"{net}\"{protocol}{port} }}\n"
                    );
                    text.push_str(&rule);
                }
                // What contradicts itself is refused, and left out here.
                policies.extend(parse(text.as_bytes()));
            }
            if policies.is_empty() {
                continue;
            }
            good += policies.len();
            let rules = compile(&policies.iter().collect::<Vec<_>>()).unwrap();
            let number = 1 + round % 63;
            let tables = peers(&rules, number).unwrap();
            for address in asked_of {
                let address: IpAddr = address.parse().unwrap();
                for port in [
                    0, 1, 2, 4, 5, 6, 9, 10, 11, 443, 65_529, 65_530, 65_534, 65_535,
                ] {
                    let ways = DIRECTIONS
                        .iter()
                        .flat_map(|direction| PROTOCOLS.map(|protocol| (*direction, protocol)));
                    for (direction, protocol) in ways {
                        let want = policies
                            .iter()
                            .map(|policy| asked(policy, direction, protocol, address, port));
                        let want = want.max().unwrap_or(ACTION_ALLOW);
                        let way = way(direction, protocol);
                        let have = looked_up(&tables, number, way, address, port);
                        assert_eq!(have, want, "{address} {port} {way:#x}: {policies:#?}");
                    }
                }
            }
        }
        assert!(good > 200, "{good} policies were good");
        assert_eq!(FIXED_BITS, 8 * 4);
    }

    #[test]
    fn a_net_that_says_what_is_around_it_costs_nothing() {
        let policy = parse(
            b"name = \"p\"\n[[rule]]\nnetwork = { direction = \"egress\", net = \"10.0.0.0/8\" }\n\
              [[rule]]\neffect = \"allow\"\n\
              network = { direction = \"egress\", net = \"10.1.0.0/16\", port = 5, protocol = \"udp\" }\n",
        )
        .unwrap();
        let peers = peers(&compile(&[&policy]).unwrap(), 3).unwrap();
        let mut said: Vec<_> = peers.keys().map(|(bits, key)| (*bits, key.way)).collect();
        said.sort_unstable();
        let of = |protocol| way(direction::OUT, protocol);
        let want = [
            (8, of(protocol::TCP)),
            (8, of(protocol::UDP)),
            (8, of(protocol::OTHER)),
            (16, of(protocol::UDP)),
        ];
        assert_eq!(said, want);
    }

    #[test]
    fn more_pieces_than_there_is_room_for_are_an_error() {
        let with = |ports: usize| {
            let list: Vec<_> = (0..ports)
                .map(|index| (2 * index + 1).to_string())
                .collect();
            let text = format!(
                "name = \"p\"\n[[rule]]\nnetwork = {{ direction = \"egress\", net = \"10.0.0.0/8\", \
                 port = [{}] }}\n",
                list.join(", ")
            );
            let policy = parse(text.as_bytes()).unwrap();
            peers(&compile(&[&policy]).unwrap(), 1)
        };
        // Each port is a piece, and so is what is between two, before the first, after the last.
        assert!(with(31).is_ok());
        let said = with(32).unwrap_err().to_string();
        let want = "what policies say of 10.0.0.0/8 changes at more than 64 ports; let rules name \
                    ranges, or fewer ports";
        assert_eq!(said, want);
    }
}
