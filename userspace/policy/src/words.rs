//! A policy in words: for whom it holds, and a line for each rule.

use std::fmt::Write as _;

use paddock_abi::namespace::NsType;

use crate::{
    fault::printable,
    model::{
        CAPABILITIES, Device, DeviceKind, EVERY_CAPABILITY, EVERY_TYPE, Match, Mode, Namespaces,
        Network, Origin, PathRule, Policy, Reaction, Rule, Select, Verb, WhenUnenforceable, access,
        direction, operation, protocol,
    },
    named::{TARGETS, bit, target_name},
};

/// So many things of a rule are told.
const TOLD: usize = 6;

/// Lines for people, each ended.
#[must_use]
pub fn words(policy: &Policy) -> String {
    let mut text = format!("policy {}, for {}", policy.name, whom(&policy.select));
    text.push_str(match policy.when_unenforceable {
        WhenUnenforceable::Fail => "; refused where a rule of it cannot be enforced\n",
        WhenUnenforceable::Audit => "; what cannot be enforced only counts\n",
    });
    for rule in &policy.rules {
        let _ = writeln!(text, "  {}: {}", rule.name, line(rule));
    }
    text
}

fn whom(select: &Select) -> String {
    let mut parts = Vec::new();
    let mut any = |what: &str, globs: &[String]| {
        if !globs.is_empty() {
            parts.push(format!("{what} {}", printable(&globs.join(" or "))));
        }
    };
    any("named", &select.name);
    any("of the image", &select.image);
    any("run by", &select.runtime);
    for (key, glob) in &select.label {
        parts.push(printable(&format!("labelled {key}={glob}")));
    }
    match select.origin {
        Some(Origin::Launched) => parts.push("that paddock launched".to_owned()),
        Some(Origin::Found) => parts.push("that paddock found".to_owned()),
        None => {}
    }
    if parts.is_empty() {
        "every container".to_owned()
    } else {
        format!("containers {}", parts.join(", "))
    }
}

fn line(rule: &Rule) -> String {
    let what = things(&rule.matches);
    if rule.verb == Verb::Allow {
        return format!("allows {what}, against what is less specific in this file");
    }
    let then = match rule.reaction {
        Reaction::Deny => "",
        Reaction::Pause => " and pauses the container",
        Reaction::Stop => " and stops the container",
        Reaction::Kill => " and kills the process",
    };
    let line = match rule.mode {
        Mode::Enforce => format!("denies {what}{then}"),
        Mode::Audit if then.is_empty() => format!("counts as would-deny {what}"),
        Mode::Audit => format!("counts as would-deny {what}; enforced it denies{then}"),
    };
    match rule.disarm {
        None => line,
        Some(disarm) => format!(
            "{line}; goes to audit when it hits more than {} containers in {} s",
            disarm.hits, disarm.window_s
        ),
    }
}

fn things(matches: &[Match]) -> String {
    let mut things: Vec<String> = matches.iter().take(TOLD).map(thing).collect();
    if matches.len() > TOLD {
        things.push(format!("{} more", matches.len() - TOLD));
    }
    things.join("; ")
}

fn thing(matched: &Match) -> String {
    match matched {
        Match::Named(rule) => rule.what.to_owned(),
        Match::Namespace(namespaces) => namespace(*namespaces),
        Match::Capability(EVERY_CAPABILITY) => "using any capability".to_owned(),
        Match::Capability(bits) => {
            let number = bits.trailing_zeros() as usize;
            format!("using CAP_{}", CAPABILITIES.get(number).unwrap_or(&"?"))
        }
        Match::Device(device) => self::device(device),
        Match::Network(network) => self::network(network),
        Match::Path(PathRule { path, operations }) => {
            let names = operation::NAMES.iter().enumerate();
            let names: Vec<_> = names
                .filter(|(index, _)| operations & (1 << index) != 0)
                .map(|(_, name)| *name)
                .collect();
            format!("{} of {} and below", names.join(", "), printable(path))
        }
        Match::Syscall(name) => format!("the system call {name}"),
    }
}

fn namespace(namespaces: Namespaces) -> String {
    let types: Vec<_> = NsType::ALL
        .iter()
        .filter(|ty| namespaces.types & ty.bit() != 0)
        .map(|ty| ty.name())
        .collect();
    let types = if namespaces.types == EVERY_TYPE {
        "any".to_owned()
    } else {
        types.join(", ")
    };
    let targets: Vec<_> = TARGETS
        .iter()
        .filter(|target| namespaces.targets & bit(**target) != 0)
        .map(|target| target_name(*target))
        .collect();
    format!(
        "joining or making namespaces of type {types} that are {}",
        targets.join(" or ")
    )
}

fn device(device: &Device) -> String {
    let mut does = Vec::new();
    for (bit, word) in [
        (access::READ, "reading"),
        (access::WRITE, "writing"),
        (access::MKNOD, "making"),
    ] {
        if device.access & bit != 0 {
            does.push(word);
        }
    }
    let kind = match device.kind {
        DeviceKind::Block => "block",
        DeviceKind::Char => "character",
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
    format!(
        "{} {kind} device {}:{}",
        does.join(", "),
        number(device.major),
        number(device.minor)
    )
}

fn network(network: &Network) -> String {
    let way = match network.directions {
        direction::OUT => "traffic to",
        direction::IN => "traffic from",
        _ => "traffic to and from",
    };
    let mut text = format!("{way} {}", network.net);
    match network.ports {
        (0, u16::MAX) => {}
        (from, to) if from == to => {
            let _ = write!(text, " port {from}");
        }
        (from, to) => {
            let _ = write!(text, " ports {from}-{to}");
        }
    }
    let protocols: Vec<_> = crate::rule::PROTOCOLS
        .iter()
        .filter(|(_, bit)| network.protocols & bit != 0)
        .map(|(name, _)| *name)
        .collect();
    if network.protocols != protocol::ALL {
        let _ = write!(text, " by {}", protocols.join(", "));
    }
    text
}
