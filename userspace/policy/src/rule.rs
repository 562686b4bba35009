//! One `[[rule]]`: what it is about, and what follows.

use paddock_abi::namespace::NsType;
use toml::de::DeTable;

use crate::{
    fault::{Sink, quote},
    fields::{Fields, one_of},
    model::{
        Disarm, EVERY_CAPABILITY, EVERY_TYPE, FOREIGN, Match, Mode, NAMESPACE_TARGETS, Namespaces,
        Network, PathRule, Reaction, Rule, Verb, direction, operation, protocol,
    },
    named::{bit, target_name},
    read::{Draft, MODES, VERBS, everywhere, named_rule},
    values,
};

/// Keys that say what a rule is about, one of which it has.
pub(crate) const KINDS: [&str; 8] = [
    "named",
    "namespace",
    "capability",
    "device",
    "network",
    "file",
    "exec",
    "syscall",
];
pub(crate) const KEYS: [&str; 13] = [
    "name",
    "effect",
    "mode",
    "reaction",
    "disarm",
    "named",
    "namespace",
    "capability",
    "device",
    "network",
    "file",
    "exec",
    "syscall",
];
pub(crate) const NAMESPACE_KEYS: [&str; 2] = ["type", "target"];
pub(crate) const NETWORK_KEYS: [&str; 4] = ["direction", "net", "port", "protocol"];
pub(crate) const FILE_KEYS: [&str; 2] = ["path", "operation"];
pub(crate) const DISARM_KEYS: [&str; 2] = ["hits", "window"];

pub(crate) const REACTIONS: [(&str, Reaction); 4] = [
    ("deny", Reaction::Deny),
    ("kill", Reaction::Kill),
    ("pause", Reaction::Pause),
    ("stop", Reaction::Stop),
];
pub(crate) const DIRECTIONS: [(&str, u8); 2] =
    [("egress", direction::OUT), ("ingress", direction::IN)];
pub(crate) const PROTOCOLS: [(&str, u8); 3] = [
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("other", protocol::OTHER),
];
pub(crate) const MOST_HITS: u32 = 1_000_000;

/// A statement with its place.
type Placed = (usize, Match);

/// `index` is the rule's among the file's, from 0.
pub(crate) fn read(
    table: &DeTable<'_>,
    at: usize,
    index: usize,
    mode: Mode,
    sink: &mut Sink<'_>,
) -> Option<Draft> {
    let fields = Fields::of(table, &KEYS, "a rule", sink);
    let name = match fields.get("name") {
        Some(_) => fields.string("name", sink, values::name)?,
        None => format!("rule-{}", index + 1),
    };
    let verb = fields.word("effect", &VERBS, sink).unwrap_or(Verb::Deny);
    if verb == Verb::Allow {
        let idle = ["mode", "reaction", "disarm"];
        if let Some(field) = idle.into_iter().find_map(|key| fields.get(key)) {
            sink.add(
                field.at,
                format!(
                    "{} in a rule that allows; nothing follows an allow, so leave it out",
                    quote(field.key)
                ),
            );
        }
    }
    let own_mode = fields.word("mode", &MODES, sink);
    let reaction = fields
        .word("reaction", &REACTIONS, sink)
        .unwrap_or_default();
    let disarm = disarm(&fields, sink);
    let mut kinds = fields.iter().filter(|field| KINDS.contains(&field.key));
    let Some(kind) = kinds.next() else {
        let message = format!(
            "the rule is about nothing; give it one of {}",
            KINDS.join(", ")
        );
        fields.missing(at, message, sink);
        return None;
    };
    if let Some(second) = kinds.next() {
        sink.add(
            second.at,
            format!(
                "{} beside {} in one rule; make two rules of it",
                quote(second.key),
                quote(kind.key)
            ),
        );
        return None;
    }
    let statements = matches(kind.key, kind.at, &fields, verb, sink)?;
    let begun_by_peers = |(_, one): &Placed| matches!(one, Match::Network(network) if network.directions & direction::IN != 0);
    if reaction == Reaction::Kill
        && statements.iter().any(begun_by_peers)
        && let Some(field) = fields.get("reaction")
    {
        sink.add(
            field.at,
            "'kill' in a rule about ingress, where no process of the container's acts; write deny, \
             pause or stop, or make a rule of egress alone",
        );
    }
    let (places, matches) = statements.into_iter().unzip();
    Some(Draft {
        rule: Rule {
            name,
            verb,
            mode: own_mode.unwrap_or(mode),
            reaction,
            disarm,
            matches,
            posture: false,
        },
        at,
        places,
    })
}

fn matches(
    kind: &str,
    at: usize,
    fields: &Fields<'_>,
    verb: Verb,
    sink: &mut Sink<'_>,
) -> Option<Vec<Placed>> {
    fn all<T>(items: Vec<(usize, T)>, of: impl Fn(T) -> Match) -> Vec<Placed> {
        items.into_iter().map(|(at, item)| (at, of(item))).collect()
    }
    match kind {
        "named" => Some(all(fields.list(kind, sink, named_rule)?, Match::Named)),
        "namespace" => {
            let value = namespaces(fields.table(kind, sink)?, at, sink);
            Some(vec![(at, Match::Namespace(value))])
        }
        "capability" => {
            let items = fields.list(kind, sink, values::capability)?;
            if items.len() > 1
                && let Some((at, _)) = items.iter().find(|(_, bits)| *bits == EVERY_CAPABILITY)
            {
                sink.add(*at, "'ALL' beside others; leave the others out");
            }
            Some(all(items, Match::Capability))
        }
        "device" => {
            let items = fields.list(kind, sink, values::devices)?;
            let one = |(at, devices): (usize, Vec<_>)| {
                let of = move |device| (at, Match::Device(device));
                devices.into_iter().map(of)
            };
            Some(items.into_iter().flat_map(one).collect())
        }
        "network" => networks(fields.table(kind, sink)?, at, sink),
        "file" => files(fields.table(kind, sink)?, at, sink),
        "exec" => {
            let operations = operation::EXEC;
            let items = fields.list(kind, sink, values::path)?;
            let of = |path| Match::Path(PathRule { path, operations });
            Some(all(items, of))
        }
        _ => {
            if verb == Verb::Allow {
                sink.add(
                    at,
                    "system calls can only be denied; a list of what is allowed is a seccomp profile: --security-opt seccomp=FILE",
                );
            }
            Some(all(
                fields.list(kind, sink, values::syscall)?,
                Match::Syscall,
            ))
        }
    }
}

fn namespaces(table: &DeTable<'_>, at: usize, sink: &mut Sink<'_>) -> Namespaces {
    let fields = Fields::of(table, &NAMESPACE_KEYS, "'namespace'", sink);
    if table.is_empty() {
        sink.add(at, "'namespace' is empty; give it type, target or both");
    }
    let types = NsType::ALL.map(|ty| (ty.name(), ty.bit()));
    let targets = NAMESPACE_TARGETS.map(|target| (target_name(target), bit(target)));
    let types = fields.list("type", sink, |text| one_of("namespace", text, &types));
    let targets = fields.list("target", sink, |text| one_of("target", text, &targets));
    Namespaces {
        types: types.map_or(EVERY_TYPE, |items| {
            items.iter().fold(0, |mask, (_, bit)| mask | bit)
        }),
        targets: targets.map_or(FOREIGN, |items| union(&items)),
    }
}

fn union(items: &[(usize, u8)]) -> u8 {
    items.iter().fold(0, |mask, (_, bit)| mask | bit)
}

/// Every net with every range of ports.
fn networks(table: &DeTable<'_>, at: usize, sink: &mut Sink<'_>) -> Option<Vec<Placed>> {
    let fields = Fields::of(table, &NETWORK_KEYS, "'network'", sink);
    let directions = fields.list("direction", sink, |text| {
        one_of("direction", text, &DIRECTIONS)
    });
    if directions.is_none() {
        fields.missing(
            at,
            "'network' without direction; say egress, ingress or both in a list",
            sink,
        );
    }
    let nets = fields.list("net", sink, values::cidr);
    let ports = fields.list("port", sink, values::ports);
    let protocols = fields.list("protocol", sink, |text| {
        one_of("protocol", text, &PROTOCOLS)
    });
    if let (Some(_), Some(protocols)) = (&ports, &protocols)
        && let Some((at, _)) = protocols.iter().find(|(_, bit)| *bit == protocol::OTHER)
    {
        sink.add(*at, "'other' beside port; only tcp and udp have ports");
    }
    let all = if ports.is_some() {
        protocol::TCP | protocol::UDP
    } else {
        protocol::ALL
    };
    let protocols = protocols.map_or(all, |items| union(&items));
    let nets = nets.unwrap_or_else(|| everywhere().map(|network| (at, network.net)).to_vec());
    let ports = ports.unwrap_or_else(|| vec![(at, (0, u16::MAX))]);
    let directions = union(&directions?);
    if nets.len().saturating_mul(ports.len()) > crate::read::MAX_STATEMENTS {
        sink.add(
            at,
            "too many nets with too many ports each; divide the rule",
        );
        return None;
    }
    let one = |(net_at, net): &(usize, _)| {
        let (net_at, net) = (*net_at, *net);
        let of = move |(_, ports): &(usize, (u16, u16))| {
            let network = Network {
                net,
                ports: *ports,
                protocols,
                directions,
            };
            (net_at, Match::Network(network))
        };
        ports.iter().map(of).collect::<Vec<_>>()
    };
    Some(nets.iter().flat_map(one).collect())
}

fn files(table: &DeTable<'_>, at: usize, sink: &mut Sink<'_>) -> Option<Vec<Placed>> {
    let fields = Fields::of(table, &FILE_KEYS, "'file'", sink);
    let words: Vec<(&str, u8)> = operation::NAMES
        .iter()
        .enumerate()
        .map(|(index, name)| (*name, 1 << index))
        .collect();
    let operations = fields.list("operation", sink, |text| one_of("operation", text, &words));
    let paths = fields.list("path", sink, values::path);
    if paths.is_none() {
        let message = "'file' without path; name the files or directories";
        fields.missing(at, message, sink);
    }
    if operations.is_none() {
        let message = format!(
            "'file' without operation; name what of {} is meant",
            operation::NAMES.join(", ")
        );
        fields.missing(at, message, sink);
    }
    let operations = union(&operations?);
    let of = |(at, path)| (at, Match::Path(PathRule { path, operations }));
    Some(paths?.into_iter().map(of).collect())
}

fn disarm(fields: &Fields<'_>, sink: &mut Sink<'_>) -> Option<Disarm> {
    let at = fields.get("disarm")?.at;
    let table = fields.table("disarm", sink)?;
    let fields = Fields::of(table, &DISARM_KEYS, "'disarm'", sink);
    if DISARM_KEYS.iter().any(|key| fields.get(key).is_none()) {
        fields.missing(
            at,
            "'disarm' needs hits and window; write disarm = { hits = 5, window = \"10m\" }",
            sink,
        );
    }
    let hits = fields.count("hits", MOST_HITS, sink);
    let window_s = fields.string("window", sink, values::window);
    Some(Disarm {
        hits: hits?,
        window_s: window_s?,
    })
}
