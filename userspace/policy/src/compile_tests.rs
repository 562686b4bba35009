//! What policies come to, and that the stated precedence holds.

use paddock_abi::{
    activity::{Activity, TABLE},
    namespace::{NsType, Target},
    policy::{
        ACTION_ALLOW, ACTION_AUDIT, ACTION_DENY, ACTION_KILL, POLICY_CELLS, action, policy_index,
        rule,
    },
};

use crate::{Policy, Ruleset, compile, model::operation, named::TARGETS, parse};

fn policy(text: &str) -> Policy {
    let text = format!("name = \"p\"\n{text}");
    parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// A policy for each text, in that order.
fn ruleset(texts: &[&str]) -> Ruleset {
    let policies: Vec<_> = texts.iter().map(|text| policy(text)).collect();
    compile(&policies.iter().collect::<Vec<_>>()).unwrap()
}

fn at(rules: &Ruleset, activity: Activity, target: Target) -> u16 {
    rules.cells[policy_index(activity, target)]
}

fn name(rules: &Ruleset, cell: u16) -> &str {
    &rules.rules[usize::from(rule(cell))].rule
}

/// The answer for a path, as the kernel half finds it: the longest node decides.
fn path(rules: &Ruleset, path: &str, operation: u8) -> u16 {
    let nodes = rules
        .paths
        .iter()
        .filter(|node| crate::model::below(&node.path, path));
    let node = nodes.max_by_key(|node| node.path.len());
    node.map_or(0, |node| node.cells[operation.trailing_zeros() as usize])
}

/// The answer for a TCP connection to a peer.
fn connect(rules: &Ruleset, address: &str, port: u16) -> u16 {
    let address = crate::values::cidr(address).unwrap();
    let nodes = rules
        .networks
        .iter()
        .filter(|node| node.net.covers(&address));
    let Some(node) = nodes.max_by_key(|node| node.net.bits) else {
        return 0;
    };
    let mut answers = node.answers.iter().filter(|answer| {
        answer.direction == 1
            && answer.protocol == 1
            && (answer.ports.0..=answer.ports.1).contains(&port)
    });
    let answer = answers.next().map_or(0, |answer| answer.cell);
    assert!(answers.next().is_none(), "two answers");
    answer
}

#[test]
fn nothing_said_is_nothing_forbidden() {
    let rules = compile(&[]).unwrap();
    assert_eq!(rules.cells, vec![0; POLICY_CELLS]);
    assert!(rules.rules.is_empty() && rules.paths.is_empty());
}

#[test]
fn mode_and_reaction_make_the_action() {
    let rules = ruleset(&["deny = [\"sysrq\"]
        [[rule]]
        named = \"kexec\"
        mode = \"enforce\"
        disarm = { hits = 5, window = \"10m\" }
        [[rule]]
        named = \"module-load\"
        mode = \"enforce\"
        reaction = \"kill\"
        [[rule]]
        named = \"mknod\"
        mode = \"enforce\"
        reaction = \"pause\"
        [[rule]]
        named = \"debugfs\"
        reaction = \"kill\""]);
    let of = |activity| action(at(&rules, activity, Target::Host));
    assert_eq!(of(Activity::Sysrq), ACTION_AUDIT);
    assert_eq!(of(Activity::Kexec), ACTION_DENY);
    assert_eq!(of(Activity::Module), ACTION_KILL);
    assert_eq!(of(Activity::Mknod), ACTION_DENY);
    // Audit stops nothing, whatever would follow.
    assert_eq!(of(Activity::Debugfs), ACTION_AUDIT);
    assert_eq!(of(Activity::Mount), ACTION_ALLOW);
    let kexec = &rules.rules[usize::from(rule(at(&rules, Activity::Kexec, Target::Host)))];
    assert_eq!(
        (kexec.policy.as_str(), kexec.rule.as_str()),
        ("p", "rule-1")
    );
    let disarm = kexec.disarm.unwrap();
    assert_eq!((disarm.hits, disarm.window_s), (5, 600));
}

#[test]
fn a_named_rule_fills_its_cells_and_no_others() {
    for named in crate::named::NAMED {
        let rules = ruleset(&[&format!("deny = [\"{}\"]", named.name)]);
        for row in TABLE {
            for target in TARGETS {
                let denied = action(at(&rules, row.activity, target)) != ACTION_ALLOW;
                assert_eq!(
                    denied,
                    named.holds(row.activity, target),
                    "{} {}",
                    named.name,
                    row.name
                );
            }
            let (none, unknown) = (Target::None, Target::Unknown);
            assert_eq!(
                at(&rules, row.activity, none),
                at(&rules, row.activity, unknown)
            );
        }
    }
}

#[test]
fn of_names_the_one_for_fewer_acts_decides() {
    let rules = ruleset(&["deny = [\"any-escape\", \"mount\"]\nallow = [\"mount-outside\"]"]);
    assert_eq!(at(&rules, Activity::Mount, Target::Host), 0);
    let own = at(&rules, Activity::Mount, Target::Own);
    assert_eq!((action(own), name(&rules, own)), (ACTION_AUDIT, "mount"));
    let rules = ruleset(&["deny = [\"any-escape\"]\nallow = [\"sysrq\"]"]);
    assert_eq!(at(&rules, Activity::Sysrq, Target::Host), 0);
    let kexec = at(&rules, Activity::Kexec, Target::Host);
    assert_eq!(
        (action(kexec), name(&rules, kexec)),
        (ACTION_AUDIT, "any-escape")
    );
    // And it is the one that is told.
    let rules = ruleset(&["deny = [\"any-escape\", \"sysrq\"]"]);
    assert_eq!(
        name(&rules, at(&rules, Activity::Sysrq, Target::Host)),
        "sysrq"
    );
}

#[test]
fn between_policies_the_strictest_holds() {
    let deny = "mode = \"enforce\"\ndeny = [\"any-escape\"]";
    let lifted = "deny = [\"any-escape\"]\nallow = [\"sysrq\"]";
    let kill = "[[rule]]\nnamed = \"sysrq\"\nmode = \"enforce\"\nreaction = \"kill\"";
    for texts in [[deny, lifted], [lifted, deny]] {
        let rules = ruleset(&texts);
        assert_eq!(
            action(at(&rules, Activity::Sysrq, Target::Host)),
            ACTION_DENY
        );
    }
    let rules = ruleset(&[lifted, deny, kill]);
    let cell = at(&rules, Activity::Sysrq, Target::Host);
    assert_eq!((action(cell), name(&rules, cell)), (ACTION_KILL, "rule-1"));
}

#[test]
fn the_longer_path_decides_and_each_operation_by_itself() {
    let rules = ruleset(&["mode = \"enforce\"
        [[rule]]
        name = \"etc\"
        file = { path = \"/etc\", operation = [\"write\", \"read\"] }
        [[rule]]
        effect = \"allow\"
        file = { path = \"/etc/app\", operation = \"write\" }
        [[rule]]
        name = \"keys\"
        file = { path = \"/etc/app/keys\", operation = \"write\" }"]);
    let of = |text, operation| action(path(&rules, text, operation));
    assert_eq!(of("/etc/passwd", operation::WRITE), ACTION_DENY);
    assert_eq!(of("/etcetera", operation::WRITE), ACTION_ALLOW);
    assert_eq!(of("/etc/app/x", operation::WRITE), ACTION_ALLOW);
    assert_eq!(of("/etc/app/x", operation::READ), ACTION_DENY);
    assert_eq!(of("/etc/app/keys/1", operation::WRITE), ACTION_DENY);
    assert_eq!(
        name(&rules, path(&rules, "/etc/app/keys/1", operation::WRITE)),
        "keys"
    );
    assert_eq!(of("/etc/app/keys/1", operation::EXEC), ACTION_ALLOW);
}

#[test]
fn a_longer_allow_of_one_policy_lifts_nothing_of_another() {
    let closed =
        "mode = \"enforce\"\n[[rule]]\nnetwork = { direction = \"egress\", net = \"10.0.0.0/8\" }";
    let opened = "mode = \"enforce\"
        default = { network = \"deny\" }
        [[rule]]
        effect = \"allow\"
        network = { direction = \"egress\", net = \"10.1.0.0/16\", port = [443, \"8000-8080\"] }
        [[rule]]
        effect = \"allow\"
        network = { direction = \"egress\", net = \"192.168.0.0/16\" }";
    let alone = ruleset(&[opened]);
    assert_eq!(connect(&alone, "10.1.2.3", 443), 0);
    assert_eq!(connect(&alone, "10.1.2.3", 8080), 0);
    assert_eq!(action(connect(&alone, "10.1.2.3", 8081)), ACTION_DENY);
    assert_eq!(action(connect(&alone, "10.2.0.1", 443)), ACTION_DENY);
    assert_eq!(action(connect(&alone, "2001:db8::1", 443)), ACTION_DENY);
    let both = ruleset(&[opened, closed]);
    assert_eq!(action(connect(&both, "10.1.2.3", 443)), ACTION_DENY);
    assert_eq!(connect(&both, "192.168.1.1", 443), 0);
}

#[test]
fn of_one_network_the_fewer_ports_decide() {
    let rules = ruleset(&["mode = \"enforce\"
        [[rule]]
        name = \"range\"
        network = { direction = \"egress\", port = \"1-1023\" }
        [[rule]]
        effect = \"allow\"
        network = { direction = \"egress\", port = 443 }"]);
    assert_eq!(action(connect(&rules, "1.2.3.4", 442)), ACTION_DENY);
    assert_eq!(connect(&rules, "1.2.3.4", 443), 0);
    assert_eq!(action(connect(&rules, "::1", 444)), ACTION_DENY);
    assert_eq!(connect(&rules, "1.2.3.4", 1024), 0);
}

/// Answers that are cut and merged are those of asking each policy by itself.
#[test]
fn cut_ports_are_what_policies_say() {
    let mut seed = 1_u32;
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    let mut good = 0;
    for _ in 0..500 {
        let mut policies = Vec::new();
        for _ in 0..3 {
            let mut rule = |_| {
                let effect = ["deny", "allow"][random(2) as usize];
                let how = match (effect, random(2)) {
                    ("deny", 0) => "mode = \"enforce\"",
                    _ => "",
                };
                let bits = random(3) * 8;
                let (first, more) = (random(12), random(6));
                let address = ["0.0.0.0", "10.0.0.0", "10.1.0.0"][bits as usize / 8];
                format!(
                    "[[rule]]\neffect = \"{effect}\"\n{how}\nnetwork = {{ direction = \"egress\", \
                     net = \"{address}/{bits}\", port = \"{first}-{}\" }}\n",
                    first + more
                )
            };
            let text = (0..6).map(&mut rule).collect::<Vec<_>>().concat();
            let text = format!("default = {{ network = \"deny\" }}\n{text}");
            // What contradicts itself is refused, and left out here.
            let text = format!("name = \"p\"\n{text}");
            policies.extend(parse(text.as_bytes()));
        }
        good += policies.len();
        let rules = compile(&policies.iter().collect::<Vec<_>>()).unwrap();
        for address in ["10.1.1.1", "10.2.1.1", "11.1.1.1"] {
            for port in 0..20 {
                let want = policies
                    .iter()
                    .map(|policy| asked(policy, address, port))
                    .max();
                let have = action(connect(&rules, address, port));
                assert_eq!(Some(have), want.or(Some(ACTION_ALLOW)), "{address}:{port}");
            }
        }
    }
    assert!(good > 200, "{good} policies were good");
}

/// By the words of the docs: the longest net, of one net the fewest ports, the posture last.
fn asked(policy: &Policy, address: &str, port: u16) -> u16 {
    use crate::model::{Match, Mode, Verb};
    let address = crate::values::cidr(address).unwrap();
    let mut best = None;
    for rule in &policy.rules {
        for matched in &rule.matches {
            let Match::Network(network) = matched else {
                continue;
            };
            if network.net.covers(&address) && (network.ports.0..=network.ports.1).contains(&port) {
                let action = match (rule.verb, rule.mode) {
                    (Verb::Allow, _) => ACTION_ALLOW,
                    (Verb::Deny, Mode::Audit) => ACTION_AUDIT,
                    (Verb::Deny, Mode::Enforce) => ACTION_DENY,
                };
                let ports = u16::MAX - (network.ports.1 - network.ports.0);
                let candidate = (!rule.posture, network.net.bits, ports, action);
                best = best.max(Some(candidate));
            }
        }
    }
    best.map_or(ACTION_ALLOW, |(.., action)| action)
}

#[test]
fn a_posture_is_the_least_specific() {
    let rules = ruleset(&["mode = \"enforce\"
        default = { exec = \"deny\", files = \"deny\" }
        [[rule]]
        effect = \"allow\"
        exec = \"/app\"
        [[rule]]
        effect = \"allow\"
        file = { path = \"/\", operation = \"read\" }"]);
    assert_eq!(path(&rules, "/app/run", operation::EXEC), 0);
    let shell = path(&rules, "/bin/sh", operation::EXEC);
    assert_eq!(
        (action(shell), name(&rules, shell)),
        (ACTION_DENY, "default-exec")
    );
    assert_eq!(path(&rules, "/etc/passwd", operation::READ), 0);
    assert_eq!(
        action(path(&rules, "/etc/passwd", operation::WRITE)),
        ACTION_DENY
    );
}

#[test]
fn devices_capabilities_and_namespaces() {
    let rules = ruleset(&["mode = \"enforce\"
        [[rule]]
        device = \"a *:*\"
        [[rule]]
        effect = \"allow\"
        device = [\"c 1:*\", \"c 5:2 rw\"]
        [[rule]]
        device = \"c 1:9 r\"
        [[rule]]
        capability = \"ALL\"
        [[rule]]
        effect = \"allow\"
        capability = \"CAP_NET_BIND_SERVICE\"
        [[rule]]
        namespace = { target = [\"host\", \"new\"] }
        [[rule]]
        effect = \"allow\"
        namespace = { type = \"net\", target = \"new\" }
        [[rule]]
        syscall = [\"ptrace\", \"bpf\"]"]);
    let device = |major, minor| {
        let node = rules.devices.iter().find(|node| {
            node.kind == crate::model::DeviceKind::Char
                && node.major == major
                && node.minor == minor
        });
        node.unwrap().cells.map(action)
    };
    assert_eq!(device(None, None), [ACTION_DENY; 3]);
    assert_eq!(device(Some(1), None), [ACTION_ALLOW; 3]);
    assert_eq!(
        device(Some(1), Some(9)),
        [ACTION_DENY, ACTION_ALLOW, ACTION_ALLOW]
    );
    assert_eq!(
        device(Some(5), Some(2)),
        [ACTION_ALLOW, ACTION_ALLOW, ACTION_DENY]
    );
    assert_eq!(action(rules.capabilities[21]), ACTION_DENY);
    assert_eq!(rules.capabilities[10], 0);
    let namespace = |ty: NsType, target| action(rules.namespaces[ty.index()][target as usize]);
    assert_eq!(namespace(NsType::Net, Target::Host), ACTION_DENY);
    assert_eq!(namespace(NsType::Net, Target::New), ACTION_ALLOW);
    assert_eq!(namespace(NsType::Mnt, Target::New), ACTION_DENY);
    assert_eq!(namespace(NsType::Mnt, Target::Peer), ACTION_ALLOW);
    let names: Vec<_> = rules
        .syscalls
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["bpf", "ptrace"]);
    assert!(
        rules
            .syscalls
            .iter()
            .all(|(_, cell)| action(*cell) == ACTION_DENY)
    );
}

/// A policy of a thousand rules is to be swapped in 50 ms; this is the part that is ours.
#[test]
fn a_thousand_rules_are_soon_compiled() {
    let rules = |number: u32| {
        let (high, low) = (number / 256, number % 256);
        format!(
            "[[rule]]\nnetwork = {{ direction = \"egress\", net = \"10.{high}.{low}.0/24\" }}\n\
             [[rule]]\nfile = {{ path = \"/srv/{number}\", operation = \"write\" }}\n"
        )
    };
    let text = (0..500).map(rules).collect::<Vec<_>>().concat();
    let start = std::time::Instant::now();
    let rules = ruleset(&[&text]);
    assert_eq!(
        (rules.rules.len(), rules.networks.len(), rules.paths.len()),
        // And the one about mounts that goes with those by path.
        (1001, 500, 500)
    );
    let took = start.elapsed();
    println!("{took:?} to read, check and compile");
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

#[test]
fn too_many_rules_are_refused() {
    let rule = |number: u32| format!("[[rule]]\nexec = \"/{number}\"\n");
    let one = policy(&(0..1000).map(rule).collect::<Vec<_>>().concat());
    let error = compile(&[&one; 17]).unwrap_err();
    // With each policy's about mounts.
    assert_eq!(error.rules, 17 * 1001);
}

#[test]
fn where_paths_are_denied_mounts_are() {
    let file = "[[rule]]\nname = \"keys\"\nfile = { path = \"/keys\", operation = \"read\" }\n";
    let mounts = |text: &str| {
        let rules = ruleset(&[text]);
        let answer = rules.activity("mount", "own");
        answer.map(|answer| (answer.action.name(), answer.rule.rule.clone()))
    };
    let by = |action, rule: &str| Some((action, rule.to_owned()));
    assert_eq!(mounts(file), by("audit", "mount"));
    assert_eq!(
        mounts(&format!("mode = \"enforce\"\n{file}")),
        by("deny", "mount")
    );
    // Whatever the file says of it itself holds.
    assert_eq!(mounts(&format!("allow = [\"mount\"]\n{file}")), None);
    assert_eq!(
        mounts(&format!(
            "mode = \"enforce\"\n{file}[[rule]]\nname = \"own\"\nmode = \"audit\"\nnamed = \"mount\"\n"
        )),
        by("audit", "own")
    );
    assert_eq!(
        mounts(
            "default = { exec = \"deny\" }\n[[rule]]\nname = \"mount\"\neffect = \"allow\"\nexec = \"/bin\"\n"
        ),
        by("audit", "mount-2")
    );
    assert_eq!(mounts("deny = [\"sysrq\"]\n"), None);
    // Where nothing may be started, what has no path may not.
    let fileless = |text: &str| {
        let rules = ruleset(&[text]);
        let answer = rules.activity("memfd_exec", "own");
        answer.map(|answer| (answer.action.name(), answer.rule.rule.clone()))
    };
    let only = "default = { exec = \"deny\" }\n[[rule]]\neffect = \"allow\"\nexec = \"/bin\"\n";
    assert_eq!(fileless(only), by("audit", "fileless-exec"));
    assert_eq!(
        fileless(&format!("allow = [\"fileless-exec\"]\n{only}")),
        None
    );
    assert_eq!(fileless(file), None);
}
