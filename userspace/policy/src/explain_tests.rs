use super::*;
use crate::{compile, model::direction, parse};

const WALLS: &str = "name = \"walls\"\nmode = \"enforce\"\ndeny = [\"any-escape\", \"namespace-escape\"]\n\
    [[rule]]\nname = \"joining\"\nreaction = \"kill\"\nnamespace = { target = [\"host\", \"peer\"] }\n\
    [[rule]]\nname = \"uts\"\neffect = \"allow\"\nnamespace = { type = \"uts\", target = \"host\" }\n";
const CALM: &str = "name = \"calm\"\ndeny = [\"sysrq\"]\n";

fn act<'a>(activity: &'a str, target: &'a str) -> Act<'a> {
    Act::Activity { activity, target }
}

fn said(policies: &[&str], act: Act<'_>) -> Vec<(String, Standing)> {
    let policies: Vec<Policy> = policies
        .iter()
        .map(|text| parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}")))
        .collect();
    let policies: Vec<&Policy> = policies.iter().collect();
    let held = explain(&policies, act).into_iter();
    held.map(|held| (format!("{}/{}", held.policy, held.rule), held.standing))
        .collect()
}

fn wider(rule: &str) -> Standing {
    Standing::Wider { rule: rule.into() }
}

#[test]
fn the_one_that_decides_is_first_and_the_others_say_why_not() {
    let by = |policy: &str, rule: &str| Standing::Milder {
        policy: policy.into(),
        rule: rule.into(),
    };
    assert_eq!(
        said(&[CALM, WALLS], act("sysrq", "host")),
        [
            ("walls/any-escape".into(), Standing::Decides),
            ("calm/sysrq".into(), by("walls", "any-escape")),
        ]
    );
    let call = Act::Namespaces {
        syscall: "setns",
        targets: &[("uts", "host"), ("net", "host")],
    };
    assert_eq!(
        said(&[WALLS], call),
        [
            ("walls/joining".into(), Standing::Decides),
            ("walls/namespace-escape".into(), by("walls", "joining")),
            ("walls/uts".into(), by("walls", "joining")),
            ("walls/any-escape".into(), wider("namespace-escape")),
        ]
    );
    assert!(said(&[WALLS, CALM], act("mount", "own")).is_empty());
    assert!(said(&[WALLS], act("teleport", "host")).is_empty());
}

/// Whatever is asked, the kernel half's table says the same.
#[test]
fn it_agrees_with_what_is_compiled() {
    let hardened = crate::PACKS[1].text;
    let policies = [WALLS, CALM, hardened].map(|text| parse(text.as_bytes()).unwrap());
    let policies: Vec<&Policy> = policies.iter().collect();
    let rules = compile(&policies).unwrap();
    for activity in Activity::ALL {
        for target in TARGETS {
            let (activity, target) = (activity.name(), target_name(target));
            let held = explain(&policies, act(activity, target));
            let held = held
                .first()
                .and_then(|one| one.action.map(|action| (action, &one.rule)));
            let table = rules.activity(activity, target);
            let table = table.map(|one| (one.action, &one.rule.rule));
            assert_eq!(held, table, "{activity} {target}");
        }
    }
    for ty in NsType::ALL {
        for (syscall, target) in [("setns", "own"), ("setns", "host"), ("unshare", "new")] {
            let targets = [(ty.name(), target)];
            let held = explain(
                &policies,
                Act::Namespaces {
                    syscall,
                    targets: &targets,
                },
            );
            let held = held
                .first()
                .and_then(|one| one.action.map(|action| (action, &one.rule)));
            let table = rules.namespace_call(syscall, targets.into_iter());
            let table = table.map(|one| (one.action, &one.rule.rule));
            assert_eq!(held, table, "{syscall} {ty:?} {target}");
        }
    }
}

#[test]
fn what_is_advised_lets_it_pass() {
    let passes = |text: &str, act: Act<'_>| match allowing(text, Overrides::default(), act) {
        Some(Advice::Add(lines)) => {
            let policy = parse(format!("{text}\n{lines}").as_bytes()).unwrap();
            let held = explain(&[&policy], act);
            assert!(
                held.first().is_none_or(|one| one.action.is_none()),
                "{held:?}"
            );
            Some(lines)
        }
        other => panic!("{other:?}"),
    };
    let lines = passes(WALLS, act("sysrq", "host")).unwrap();
    assert_eq!(
        lines,
        "\n[[rule]]\nname = \"allow-sysrq\"\neffect = \"allow\"\nnamed = \"sysrq\"\n"
    );
    let text = "name = \"p\"\n[[rule]]\nname = \"allow-host\"\nnamespace = { target = \"host\" }\n";
    let call = Act::Namespaces {
        syscall: "setns",
        targets: &[("uts", "host"), ("net", "host")],
    };
    let lines = passes(text, call).unwrap();
    assert!(
        lines.contains("\"allow-host-2\"") && lines.contains("type = [\"uts\", \"net\"]"),
        "{lines}"
    );
    // Nothing is narrower than that.
    assert_eq!(
        allowing(CALM, Overrides::default(), act("sysrq", "host")),
        Some(Advice::Replace {
            rule: "sysrq".into(),
            with: "\n[[rule]]\nname = \"sysrq\"\nmode = \"audit\"\nnamed = \"sysrq\"\n".into()
        })
    );
    assert_eq!(
        allowing(CALM, Overrides::default(), act("mount", "host")),
        None
    );
}

/// Capabilities and devices: the table says the same, and what is advised lets them pass.
#[test]
fn what_is_used_is_explained() {
    let text = "name = \"p\"\nmode = \"enforce\"\n\
        [[rule]]\nname = \"any\"\ncapability = \"ALL\"\n\
        [[rule]]\nname = \"admin\"\nreaction = \"kill\"\ncapability = \"SYS_ADMIN\"\n\
        [[rule]]\nname = \"disks\"\ndevice = \"b 8:*\"\n\
        [[rule]]\nname = \"one\"\neffect = \"allow\"\ndevice = \"b 8:1 r\"\n";
    let policy = parse(text.as_bytes()).unwrap();
    let rules = compile(&[&policy]).unwrap();
    let chown = Act::Capability { name: "CAP_CHOWN" };
    let admin = Act::Capability {
        name: "CAP_SYS_ADMIN",
    };
    assert_eq!(said(&[text], chown), [("p/any".into(), Standing::Decides)]);
    assert_eq!(
        said(&[text], admin),
        [
            ("p/admin".into(), Standing::Decides),
            ("p/any".into(), wider("admin"))
        ]
    );
    assert!(said(&[text], Act::Capability { name: "CAP_FLIGHT" }).is_empty());
    for (what, rule) in [
        ("b 8:0 r", Some("disks")),
        ("b 8:1 r", None),
        ("b 8:1 rw", Some("disks")),
        ("b 8:1 m", Some("disks")),
        ("c 8:1 rw", None),
        ("nonsense", None),
    ] {
        let held = explain(&[&policy], Act::Device { what });
        let denies = held.first().filter(|one| one.action.is_some());
        assert_eq!(denies.map(|one| one.rule.as_str()), rule, "{what}");
        let table = rules.device(what);
        assert_eq!(table.map(|one| one.rule.rule.as_str()), rule, "{what}");
    }
    for (act, want) in [
        (
            chown,
            "name = \"allow-chown\"\neffect = \"allow\"\ncapability = \"CHOWN\"",
        ),
        (
            Act::Device { what: "b 8:0 rw" },
            "name = \"allow-device\"\neffect = \"allow\"\ndevice = \"b 8:0 rw\"",
        ),
    ] {
        let Some(Advice::Add(lines)) = allowing(text, Overrides::default(), act) else {
            panic!("no advice for {act:?}");
        };
        assert!(lines.contains(want), "{lines}");
        let more = parse(format!("{text}\n{lines}").as_bytes()).unwrap();
        assert!(explain(&[&more], act)[0].action.is_none(), "{lines}");
    }
    // Nothing is narrower than one.
    assert_eq!(
        allowing(text, Overrides::default(), admin),
        Some(Advice::Replace {
            rule: "admin".into(),
            with: String::new()
        })
    );
}

/// Peers: the table of the longest net says the same, and what is advised lets them pass.
#[test]
fn whom_it_talks_to_is_explained() {
    let text = "name = \"p\"\nmode = \"enforce\"\ndefault = { network = \"deny\" }\n\
        [[rule]]\nname = \"in\"\neffect = \"allow\"\nnetwork = { direction = \"ingress\" }\n\
        [[rule]]\nname = \"web\"\neffect = \"allow\"\n\
        network = { direction = \"egress\", net = \"10.0.0.0/8\", port = 443, protocol = \"tcp\" }\n\
        [[rule]]\nname = \"one\"\nreaction = \"kill\"\n\
        network = { direction = \"egress\", net = \"10.1.2.3\", port = \"440-450\", protocol = \"tcp\" }\n\
        [[rule]]\nname = \"six\"\nmode = \"audit\"\n\
        network = { direction = \"egress\", net = \"fd00::/8\" }\n";
    let policy = parse(text.as_bytes()).unwrap();
    let rules = compile(&[&policy]).unwrap();
    let (tcp, udp) = (protocol::TCP, protocol::UDP);
    for (address, port, protocol, rule) in [
        ("10.9.9.9", 443, tcp, None),
        ("10.9.9.9", 443, udp, Some("default-network")),
        ("10.9.9.9", 80, tcp, Some("default-network")),
        ("10.1.2.3", 443, tcp, Some("one")),
        ("10.1.2.3", 451, tcp, Some("default-network")),
        ("fd00::1", 53, udp, Some("six")),
        ("2001:db8::1", 53, udp, Some("default-network")),
        ("127.0.0.1", 0, protocol::OTHER, Some("default-network")),
    ] {
        let peer = Peer {
            address: address.parse().unwrap(),
            port,
            protocol,
            direction: direction::OUT,
        };
        let act = Act::Peer(peer);
        let held = explain(&[&policy], act);
        let denies = held.first().filter(|one| one.action.is_some());
        assert_eq!(denies.map(|one| one.rule.as_str()), rule, "{peer:?}");
        let table = rules.peer(peer).map(|one| one.rule.rule.as_str());
        assert_eq!(table, rule, "{peer:?}");
        let incoming = Act::Peer(Peer {
            direction: direction::IN,
            ..peer
        });
        assert!(explain(&[&policy], incoming)[0].action.is_none());
        if rule.is_none() {
            continue;
        }
        let Some(Advice::Add(lines)) = allowing(text, Overrides::default(), act) else {
            panic!("no advice for {peer:?}");
        };
        let more = parse(format!("{text}\n{lines}").as_bytes()).unwrap();
        assert!(explain(&[&more], act)[0].action.is_none(), "{lines}");
    }
}

/// Files: the table says the same, and what is advised lets them pass.
#[test]
fn what_is_done_to_files_is_explained() {
    let text = "name = \"p\"\nmode = \"enforce\"\n\
        [[rule]]\nname = \"keys\"\nfile = { path = \"/keys\", operation = [\"read\", \"write\"] }\n\
        [[rule]]\nname = \"public\"\neffect = \"allow\"\n\
        file = { path = \"/keys/pub\", operation = \"read\" }\n\
        [[rule]]\nname = \"tools\"\nexec = \"/keys/tools\"\n";
    let policy = parse(text.as_bytes()).unwrap();
    let rules = compile(&[&policy]).unwrap();
    for (operation, path, rule) in [
        ("read", "/keys/a", Some("keys")),
        ("read", "/keys/pub", None),
        ("write", "/keys/pub/b", Some("keys")),
        ("exec", "/keys/tools/x", Some("tools")),
        ("remove", "/keys/a", None),
        ("remove", "/key", None),
        ("read", "/keyster", None),
        ("dance", "/keys/a", None),
    ] {
        let act = Act::File { operation, path };
        let held = explain(&[&policy], act);
        let denies = held.first().filter(|one| one.action.is_some());
        assert_eq!(
            denies.map(|one| one.rule.as_str()),
            rule,
            "{operation} {path}"
        );
        let table = rules.file(operation, path);
        assert_eq!(
            table.map(|one| one.rule.rule.as_str()),
            rule,
            "{operation} {path}"
        );
        if rule.is_none() {
            continue;
        }
        let Some(Advice::Add(lines)) = allowing(text, Overrides::default(), act) else {
            panic!("no advice for {act:?}");
        };
        let more = parse(format!("{text}\n{lines}").as_bytes()).unwrap();
        assert!(explain(&[&more], act)[0].action.is_none(), "{lines}");
    }
    // Nothing is narrower than the path itself.
    let itself = Act::File {
        operation: "read",
        path: "/keys",
    };
    assert!(matches!(
        allowing(text, Overrides::default(), itself),
        Some(Advice::Replace { rule, .. }) if rule == "keys"
    ));
}

/// Its new name would be out of the reach of what names files below it. The kernel half's table
/// says so of the directory, in `policies/paths.rs` of the agent.
#[test]
fn a_directory_that_takes_files_along_is_explained() {
    let text = "name = \"p\"\nmode = \"enforce\"\n\
        [[rule]]\nname = \"open\"\neffect = \"allow\"\nfile = { path = \"/srv/a/open\", operation = \"write\" }\n\
        [[rule]]\nname = \"deep\"\nfile = { path = \"/srv/a/b/keys\", operation = \"read\" }\n\
        [[rule]]\nname = \"counted\"\nmode = \"audit\"\nfile = { path = \"/srv/a\", operation = \"write\" }\n";
    let policy = parse(text.as_bytes()).unwrap();
    let rules = compile(&[&policy]).unwrap();
    let decides = |operation, path| {
        let held = explain(&[&policy], Act::File { operation, path });
        let forbids = held.into_iter().next().filter(|one| one.action.is_some());
        let table = rules.file(operation, path);
        let table = table.map(|one| one.rule.rule.clone());
        let rule = forbids.map(|one| one.rule);
        assert_eq!(table, rule, "{operation} {path}");
        rule
    };
    for above in ["/", "/srv", "/srv/a", "/srv/a/b"] {
        assert_eq!(decides("remove", above).as_deref(), Some("deep"), "{above}");
        assert_eq!(decides("create", above), None, "{above}");
    }
    for beside in ["/srv/a/b/keys", "/srv/a/c", "/srv/a/open", "/srv/ab", "/sr"] {
        assert_eq!(decides("remove", beside), None, "{beside}");
    }
    let act = Act::File {
        operation: "remove",
        path: "/srv",
    };
    // To let the directory itself be renamed says nothing of what is below it.
    assert!(matches!(
        allowing(text, Overrides::default(), act),
        Some(Advice::Replace { rule, .. }) if rule == "deep"
    ));
}
