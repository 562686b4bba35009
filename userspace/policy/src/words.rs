//! A policy in words: for whom it holds, and a line for each rule.

use std::fmt::Write as _;

use paddock_abi::namespace::{NsType, Target};

use crate::{
    fault::printable,
    model::{
        CAPABILITIES, Device, DeviceKind, EVERY_CAPABILITY, EVERY_TYPE, Match, Mode, Namespaces,
        Network, Origin, PathRule, Policy, Reaction, Rule, Select, Verb, WhenUnenforceable, access,
        direction, operation, protocol,
    },
    named::{TARGETS, bit},
};

/// So many things of a rule are told.
const TOLD: usize = 6;

/// For whom it holds, one line without its end.
#[must_use]
pub fn head(policy: &Policy) -> String {
    let unenforceable = match policy.when_unenforceable {
        WhenUnenforceable::Fail => "refused where a rule of it cannot be enforced",
        WhenUnenforceable::Audit => "what cannot be enforced only counts",
    };
    let whom = whom(&policy.select);
    format!("policy {}, for {whom}; {unenforceable}", policy.name)
}

/// A rule's name, what it is about and what follows, one line without its end.
#[must_use]
pub fn rule_words(rule: &Rule) -> String {
    format!("{}: {}", rule.name, line(rule))
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
    let then = match (rule.verb, rule.mode, rule.reaction) {
        (Verb::Allow, ..) => "allowed, against what is less specific in this file",
        (Verb::Deny, Mode::Audit, _) => "passes, counted as would-deny",
        (Verb::Deny, Mode::Enforce, Reaction::Deny) => "denied",
        (Verb::Deny, Mode::Enforce, Reaction::Pause) => "denied, and the container is paused",
        (Verb::Deny, Mode::Enforce, Reaction::Stop) => "denied, and the container is stopped",
        (Verb::Deny, Mode::Enforce, Reaction::Kill) => "denied, and the process is killed",
    };
    let line = format!("{what}: {then}");
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

pub(crate) fn thing(matched: &Match) -> String {
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
        "of any type".to_owned()
    } else {
        format!("of type {}", types.join(", "))
    };
    let joined: Vec<_> = TARGETS
        .iter()
        .filter(|target| **target != Target::New && namespaces.targets & bit(**target) != 0)
        .map(|target| match target {
            Target::Own => "the container's own",
            Target::Peer => "another container's",
            _ => "the host's",
        })
        .collect();
    let mut does = Vec::new();
    if !joined.is_empty() {
        let whose = joined.join(" or ");
        does.push(format!("joining namespaces {types} that are {whose}"));
    }
    if namespaces.targets & bit(Target::New) != 0 {
        does.push(format!("making namespaces {types}"));
    }
    does.join(" and ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_a_line_with_what_follows() {
        let text = "name = \"p\"
            mode = \"enforce\"
            when_unenforceable = \"audit\"
            deny = [\"mount\"]
            allow = [\"mount-outside\"]
            select = { image = [\"a*\", \"b\"], runtime = \"docker\", label = { k = \"\\u001b\" }, origin = \"found\" }
            [[rule]]
            namespace = { type = \"net\", target = [\"host\", \"new\"] }
            reaction = \"kill\"
            disarm = { hits = 5, window = \"1m\" }
            [[rule]]
            device = \"b 8:* rw\"
            reaction = \"pause\"
            [[rule]]
            network = { direction = [\"egress\", \"ingress\"], net = \"10.0.0.0/8\", port = [1, \"5-9\"], protocol = \"udp\" }
            reaction = \"stop\"
            [[rule]]
            mode = \"audit\"
            syscall = [\"ptrace\", \"bpf\", \"keyctl\", \"mount\", \"umount2\", \"swapon\", \"swapoff\", \"reboot\"]
            [[rule]]
            capability = \"ALL\"
            [[rule]]
            capability = \"CHOWN\"
            effect = \"allow\"";
        let policy = crate::parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        let allowed = "allowed, against what is less specific in this file";
        let want = [
            "policy p, for containers of the image a* or b, run by docker, labelled k=\\u{1b}, that paddock found; what cannot be enforced only counts",
            "  mount: every mount, the container's own too: denied",
            &format!(
                "  mount-outside: mounting, picking up or taking as root what is the host's or another container's: {allowed}"
            ),
            "  rule-1: joining namespaces of type net that are the host's and making namespaces of type net: denied, and the process is killed; goes to audit when it hits more than 5 containers in 60 s",
            "  rule-2: reading, writing block device 8:*: denied, and the container is paused",
            "  rule-3: traffic to and from 10.0.0.0/8 port 1 by udp; traffic to and from 10.0.0.0/8 ports 5-9 by udp: denied, and the container is stopped",
            "  rule-4: the system call ptrace; the system call bpf; the system call keyctl; the system call mount; the system call umount2; the system call swapon; 2 more: passes, counted as would-deny",
            "  rule-5: using any capability: denied",
            &format!("  rule-6: using CAP_CHOWN: {allowed}"),
        ];
        assert_eq!(head(&policy), want[0]);
        let words: Vec<String> = policy.rules.iter().map(rule_words).collect();
        for (words, want) in words.iter().zip(&want[1..]) {
            assert_eq!(&format!("  {words}"), want);
        }
        assert_eq!(words.len() + 1, want.len());
    }
}
