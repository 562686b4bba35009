//! Files that are wrong, each in one way, and the lines that say so.

use crate::{MAX_BYTES, MAX_RULES, fault::Faults, parse};

/// Files with what is told of them, the file being `f`. A head names the policy and denies
/// something in line 1 and 2, so that the fault stands from line 3 on.
const HEADED: &[(&str, &str)] = &[
    (
        "mod = \"audit\"",
        "3:1: unknown key 'mod' in a policy; did you mean 'mode'?",
    ),
    (
        "colour = \"red\"",
        "3:1: unknown key 'colour' in a policy; use one of name, description, mode, when_unenforceable, select, default, deny, allow, rule",
    ),
    (
        "mode = \"enforced\"",
        "3:8: 'enforced' is no mode; did you mean 'enforce'?",
    ),
    ("mode = 1", "3:8: 'mode' is an integer; write a string"),
    (
        "mode = [\"audit\"]",
        "3:8: 'mode' is an array; write a string",
    ),
    (
        "when_unenforceable = \"warn\"",
        "3:22: 'warn' is no when_unenforceable; use one of fail, audit",
    ),
    (
        "description = true",
        "3:15: 'description' is a boolean; write a string",
    ),
    (
        "allow = [\"mount\"]",
        "3:10: 'mount' is allowed here and denied in line 2; keep one of the two",
    ),
    (
        "allow = [\"muont\"]",
        "3:10: unknown rule 'muont'; did you mean 'mount'?",
    ),
    (
        "allow = [\"sysrq\"]",
        "3:10: allows what nothing in this file denies, and lifts no other file's denial; leave it out",
    ),
    (
        "allow = []",
        "3:9: 'allow' is empty; leave it out or fill it",
    ),
    (
        "allow = [1]",
        "3:10: 'allow' is an integer; write a string or an array of strings",
    ),
    (
        "allow = \"nothing-like-it-at-all\"",
        "3:9: unknown rule 'nothing-like-it-at-all'; docs/policy.md has the list",
    ),
    ("select = 3", "3:10: 'select' is an integer; write a table"),
    (
        "[select]",
        "3:2: [select] is empty; leave it out to select every container",
    ),
    (
        "[select]\nnmae = \"web\"",
        "4:1: unknown key 'nmae' in [select]; did you mean 'name'?",
    ),
    (
        "[select]\nname = \"\"",
        "4:8: an empty pattern fits nothing; write '*' for any",
    ),
    (
        "[select]\nruntime = \"dokcer\"",
        "4:11: 'dokcer' is no runtime; did you mean 'docker'?",
    ),
    (
        "[select]\norigin = \"lauched\"",
        "4:10: 'lauched' is no origin; did you mean 'launched'?",
    ),
    (
        "[select]\nlabel = \"a=b\"",
        "4:9: 'label' is a string; write a table",
    ),
    (
        "[select]\nlabel = {}",
        "4:9: 'label' is empty; leave it out or write label = { key = \"value\" }",
    ),
    (
        "[select]\nlabel = { a = 1 }",
        "4:15: the label 'a' is an integer; write a string",
    ),
    (
        "[default]",
        "3:2: [default] is empty; leave it out or name network, exec or files",
    ),
    (
        "[default]\nnetwork = \"block\"",
        "4:11: 'block' is no posture; use one of deny, allow",
    ),
    (
        "[default]\nnet = \"deny\"",
        "4:1: unknown key 'net' in [default]; use one of network, exec, files",
    ),
    (
        "[default]\nexec = \"deny\"",
        "4:1: denied by default and nothing allowed: no program could be started; allow some by a rule with exec",
    ),
    (
        "[default]\nfiles = \"deny\"",
        "4:1: denied by default and nothing allowed: no file could be opened; allow some by a rule with file",
    ),
    (
        "rule = \"x\"",
        "3:1: 'rule' is a string; write each rule below a line [[rule]]",
    ),
    (
        "rule = [1]",
        "3:9: rule 1 is an integer; write each rule below a line [[rule]]",
    ),
    (
        "[rule]\nexec = \"/bin\"",
        "3:2: 'rule' is a table; write each rule below a line [[rule]]",
    ),
    (
        "[[rule]]",
        "3:1: the rule is about nothing; give it one of named, namespace, capability, device, network, file, exec, syscall",
    ),
    (
        "[[rule]]\nname = \"a b\"\nexec = \"/bin\"",
        "4:8: the name 'a b' has other characters than letters, digits, '_', '.', '-', or begins with one of the last three; rename it",
    ),
    (
        "[[rule]]\nexec = \"bin/sh\"",
        "4:8: the path 'bin/sh' is not absolute; begin it with '/'",
    ),
    (
        "[[rule]]\nexec = \"/bin/../sh\"",
        "4:8: the path '/bin/../sh' has '.', '..' or '//' in it; write it as the kernel has it",
    ),
    (
        "[[rule]]\nexec = \"/bin/*\"",
        "4:8: the path '/bin/*' looks like a pattern; a path stands for itself and all below it, so name the directory",
    ),
    (
        "[[rule]]\nexec = \"/bin\"\nsyscall = \"mount\"",
        "5:1: 'syscall' beside 'exec' in one rule; make two rules of it",
    ),
    (
        "[[rule]]\nexce = \"/bin\"",
        "4:1: unknown key 'exce' in a rule; did you mean 'exec'?",
    ),
    (
        "[[rule]]\nexec = \"/bin\"\nreaction = \"killl\"",
        "5:12: 'killl' is no reaction; did you mean 'kill'?",
    ),
    (
        "[[rule]]\nexec = \"/bin\"\neffect = \"permit\"",
        "5:10: 'permit' is no effect; use one of deny, allow",
    ),
    (
        "[[rule]]\nexec = \"/bin\"\nmode = \"off\"",
        "5:8: 'off' is no mode; use one of audit, enforce",
    ),
    (
        "[[rule]]\nnamed = \"mount\"",
        "4:9: 'mount' is denied in line 2 already; leave one of the two out",
    ),
    (
        "[[rule]]\nname = \"mount\"\nexec = \"/bin\"",
        "3:1: a second rule 'mount', the first is in line 2; give one of them another name",
    ),
    (
        "[[rule]]\nname = \"a\"\nexec = \"/a\"\n[[rule]]\nname = \"a\"\nexec = \"/b\"",
        "6:1: a second rule 'a', the first is in line 3; give one of them another name",
    ),
    (
        "[[rule]]\nnamed = \"mount-outside\"\neffect = \"allow\"\nreaction = \"kill\"",
        "6:1: 'reaction' in a rule that allows; nothing follows an allow, so leave it out",
    ),
    (
        "[[rule]]\nnamed = \"sysrq\"\ndisarm = 5",
        "5:10: 'disarm' is an integer; write a table",
    ),
    (
        "[[rule]]\nnamed = \"sysrq\"\ndisarm = { hits = 5 }",
        "5:1: 'disarm' needs hits and window; write disarm = { hits = 5, window = \"10m\" }",
    ),
    (
        "[[rule]]\nnamed = \"sysrq\"\ndisarm = { hits = 0, window = \"10m\" }",
        "5:19: 'hits' is out of range; write 1 to 1000000",
    ),
    (
        "[[rule]]\nnamed = \"sysrq\"\ndisarm = { hits = \"5\", window = \"10m\" }",
        "5:19: 'hits' is a string; write a whole number",
    ),
    (
        "[[rule]]\nnamed = \"sysrq\"\ndisarm = { hits = 5, window = \"10 minutes\" }",
        "5:31: '10 minutes' is no window; write it as '30s', '10m' or '2h', at most '24h'",
    ),
    (
        "[[rule]]\nnamed = \"sysrq\"\ndisarm = { hits = 5, window = \"25h\" }",
        "5:31: '25h' is no window; write it as '30s', '10m' or '2h', at most '24h'",
    ),
    (
        "[[rule]]\nnamespace = \"net\"",
        "4:13: 'namespace' is a string; write a table",
    ),
    (
        "[[rule]]\nnamespace = {}",
        "4:1: 'namespace' is empty; give it type, target or both",
    ),
    (
        "[[rule]]\nnamespace = { type = \"network\" }",
        "4:22: 'network' is no namespace; use one of cgroup, ipc, mnt, net, pid, time, user, uts",
    ),
    (
        "[[rule]]\nnamespace = { type = \"net\", target = \"hots\" }",
        "4:38: 'hots' is no target; did you mean 'host'?",
    ),
    (
        "[[rule]]\ncapability = \"SYS_ADMN\"",
        "4:14: unknown capability 'SYS_ADMN'; did you mean 'SYS_ADMIN'?",
    ),
    (
        "[[rule]]\ncapability = \"cap_sys_admin\"",
        "4:14: unknown capability 'cap_sys_admin'; did you mean 'SYS_ADMIN'?",
    ),
    (
        "[[rule]]\ncapability = [\"ALL\", \"KILL\"]",
        "4:15: 'ALL' beside others; leave the others out",
    ),
    (
        "[[rule]]\ncapability = [\"KILL\", \"CAP_KILL\"]",
        "4:23: denied in line 4 already; leave one of the two out",
    ),
    (
        "[[rule]]\ndevice = \"1:3\"",
        "4:10: '1:3' is no device; write it as 'c 1:3 rw': c, b or a, major:minor with '*' for any, and of r, w, m what is meant",
    ),
    (
        "[[rule]]\ndevice = \"c 1:3 rx\"",
        "4:10: 'c 1:3 rx' is no device; write it as 'c 1:3 rw': c, b or a, major:minor with '*' for any, and of r, w, m what is meant",
    ),
    (
        "[[rule]]\ndevice = \"c *:3\"",
        "4:10: the device 'c *:3' has a minor number of any major; name the major",
    ),
    (
        "[[rule]]\ndevice = \"c 5000:3\"",
        "4:10: the device 'c 5000:3' has a number over 4095; the kernel has none",
    ),
    (
        "[[rule]]\nnetwork = { net = \"10.0.0.0/8\" }",
        "4:1: 'network' without direction; say egress, ingress or both in a list",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"out\" }",
        "4:25: 'out' is no direction; use one of egress, ingress",
    ),
    (
        "[[rule]]\nreaction = \"kill\"\nnetwork = { direction = [\"egress\", \"ingress\"] }",
        "4:1: 'kill' in a rule about ingress, where no process of the container's acts; write deny, pause or stop, or make a rule of egress alone",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", net = \"10.0.0.0/33\" }",
        "4:41: the prefix length of '10.0.0.0/33' is none; write a number from 0 to 32",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", net = \"10.0.0.1/8\" }",
        "4:41: '10.0.0.1/8' has bits set behind its prefix; write 10.0.0.0/8, or 10.0.0.1 for the one address",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", net = \"example.org\" }",
        "4:41: 'example.org' is no address; write it as 10.0.0.0/8 or fd00::/8",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", net = \"::ffff:1.2.3.4\" }",
        "4:41: '::ffff:1.2.3.4' is an IPv4 address in IPv6's form; write 1.2.3.4",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", port = 65536 }",
        "4:42: '65536' is no port; write a number from 0 to 65535, or two as '8000-8080'",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", port = \"443-80\" }",
        "4:42: the ports '443-80' end before they begin; write '80-443'",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", port = 1.5 }",
        "4:42: 'port' is a float; write a string or an array of strings",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", protocol = \"icmp\" }",
        "4:46: 'icmp' is no protocol; use one of tcp, udp, other",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", port = 1, protocol = \"other\" }",
        "4:56: 'other' beside port; only tcp and udp have ports",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", net = \"::/0\", port = [80, 80] }",
        "4:41: denied in line 4 already; leave one of the two out",
    ),
    (
        "[[rule]]\nfile = { operation = \"read\" }",
        "4:1: 'file' without path; name the files or directories",
    ),
    (
        "[[rule]]\nfile = { path = \"/etc\" }",
        "4:1: 'file' without operation; name what of read, write, create, remove, exec is meant",
    ),
    (
        "[[rule]]\nfile = { path = \"etc\", operation = \"read\" }",
        "4:17: the path 'etc' is not absolute; begin it with '/'",
    ),
    (
        "[[rule]]\nfile = { path = \"/etc\", operation = \"wirte\" }",
        "4:37: 'wirte' is no operation; did you mean 'write'?",
    ),
    (
        "[[rule]]\nfile = \"/etc\"",
        "4:8: 'file' is a string; write a table",
    ),
    (
        "[[rule]]\nsyscall = \"ptrce\"",
        "4:11: unknown system call 'ptrce'; did you mean 'ptrace'?",
    ),
    (
        "[[rule]]\nsyscall = \"ptrace\"\neffect = \"allow\"",
        "4:1: system calls can only be denied; a list of what is allowed is a seccomp profile: --security-opt seccomp=FILE",
    ),
    (
        "[[rule]]\nfile = { path = \"/a\", operation = \"read\" }\n[[rule]]\nfile = { path = \"/a/\", operation = [\"read\", \"write\"] }\neffect = \"allow\"",
        "6:17: allowed here and denied in line 4, and neither is the more specific; keep one of the two",
    ),
    (
        "[[rule]]\nfile = { path = \"/a\", operation = [\"read\", \"write\"] }\n[[rule]]\nfile = { path = \"/a/b\", operation = \"read\" }",
        "6:17: denied by line 4 already, which is wider and ends the same; leave this one out",
    ),
    (
        "[[rule]]\nexec = [\"/a\", \"/a\"]",
        "4:15: denied in line 4 already; leave one of the two out",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", port = \"1-9\" }\n[[rule]]\nnetwork = { direction = \"egress\", port = \"5-20\" }\neffect = \"allow\"",
        "6:1: allowed here and denied in line 4, and neither is the more specific; keep one of the two",
    ),
    (
        "[[rule]]\nnetwork = { direction = \"egress\", net = \"10.0.0.0/8\" }\n[[rule]]\nnetwork = { direction = \"egress\", net = \"10.1.0.0/16\" }",
        "6:41: denied by line 4 already, which is wider and ends the same; leave this one out",
    ),
    (
        "[[rule]]\nfile = { path = \"/a\", operation = \"read\" }\neffect = \"allow\"",
        "4:17: allows what nothing in this file denies, and lifts no other file's denial; leave it out",
    ),
    (
        "[[rule]]\ndevice = \"a 1:3 r\"\n[[rule]]\ndevice = \"c 1:3 r\"\neffect = \"allow\"",
        "6:10: allowed here and denied in line 4, and neither is the more specific; keep one of the two",
    ),
];

/// Files without a head.
const WHOLE: &[(&str, &str)] = &[
    (
        "",
        "1:1: the policy has no name; add name = \"…\" at the top",
    ),
    (
        "name = \"p\"",
        "1:1: the policy forbids nothing; add deny = […], a [[rule]] or [default]",
    ),
    (
        "deny = [\"mount\"]",
        "1:1: the policy has no name; add name = \"…\" at the top",
    ),
    (
        "name = \"\"\ndeny = [\"mount\"]",
        "1:8: the name '' has other characters than letters, digits, '_', '.', '-', or begins with one of the last three; rename it",
    ),
    (
        "name = 5\ndeny = [\"mount\"]",
        "1:8: 'name' is an integer; write a string",
    ),
    (
        "name = \"p\"\ndeny = [\"mount\", \"mount\"]",
        "2:18: 'mount' is denied in line 2 already; leave one of the two out",
    ),
    (
        "name = \"p\"\ndeny = [\"io_uring\"]",
        "2:9: unknown rule 'io_uring'; did you mean 'io-uring'?",
    ),
    (
        "name = \"p\"\ndeny = \"everything\"",
        "2:8: unknown rule 'everything'; docs/policy.md has the list",
    ),
    (
        "name = \"p\"\nname = \"q\"",
        "2:1: not TOML: the key stands here a second time; leave one out",
    ),
    (
        "name = \"p",
        "1:10: not TOML: invalid basic string, expected `\"`",
    ),
    (
        "name = \"p\"\n\nmount",
        "3:6: not TOML: key with no value, expected `=`",
    ),
    (
        "name = \"p\"\ndeny = [\"mount\"",
        "2:16: not TOML: unclosed array, expected `]`",
    ),
    (
        "name = \"p\"\ndeny = [\"\\u001b[2J\\u202e\"]",
        "2:9: unknown rule '\\u{1b}[2J\\u{202e}'; docs/policy.md has the list",
    ),
    (
        "name = \"p\\u001b[31m\"\ndeny = [\"mount\"]",
        "1:8: the name 'p\\u{1b}[31m' has other characters than letters, digits, '_', '.', '-', or begins with one of the last three; rename it",
    ),
    (
        "name = \"ä\"\ndeny = [\"mount\"]",
        "1:8: the name 'ä' has other characters than letters, digits, '_', '.', '-', or begins with one of the last three; rename it",
    ),
    (
        "name = \"p\"\ndeny = [ \"mount\", \"muont\" ]",
        "2:19: unknown rule 'muont'; did you mean 'mount'?",
    ),
    (
        "name = \"-p\"\ndeny = [\"mount\"]",
        "1:8: the name '-p' has other characters than letters, digits, '_', '.', '-', or begins with one of the last three; rename it",
    ),
    (
        "# ä\n\n  nmae = \"p\"\ndeny = [\"mount\"]",
        "3:3: unknown key 'nmae' in a policy; did you mean 'name'?",
    ),
    (
        "name = \"p\"\n[default]\nnetwork = \"allow\"",
        "1:1: the policy forbids nothing; add deny = […], a [[rule]] or [default]",
    ),
];

const HEAD: &str = "name = \"p\"\ndeny = [\"mount\"]\n";

fn lines(text: &[u8]) -> String {
    parse(text).map_or_else(|faults| faults.lines("f"), |_| "good".to_owned())
}

#[test]
fn each_is_told_in_one_line_with_its_place() {
    let headed = HEADED
        .iter()
        .map(|(text, want)| (format!("{HEAD}{text}"), want));
    let whole = WHOLE.iter().map(|(text, want)| ((*text).to_owned(), want));
    for (text, want) in headed.chain(whole) {
        assert_eq!(lines(text.as_bytes()), format!("f:{want}\n"), "{text:?}");
    }
    const { assert!(HEADED.len() + WHOLE.len() >= 50) };
}

#[test]
fn several_faults_are_several_lines_in_the_order_of_the_file() {
    let text = format!("{HEAD}[[rule]]\nexec = [\"bin\", \"/a/..\"]\n[select]\nnmae = \"x\"\n");
    let lines = lines(text.as_bytes());
    let places: Vec<_> = lines.lines().map(|line| &line[..6]).collect();
    assert_eq!(places, ["f:4:9:", "f:4:16", "f:6:1:"], "{lines}");
}

#[test]
fn what_a_terminal_would_obey_is_escaped() {
    let text = "name = \"p\"\ndeny = [\"\\u001b[2J\\u202e\"]\n";
    let faults = parse(text.as_bytes()).unwrap_err();
    assert_eq!(
        faults.lines("a\u{1b}[2J\n.toml"),
        "a\\u{1b}[2J\\n.toml:2:9: unknown rule '\\u{1b}[2J\\u{202e}'; docs/policy.md has the list\n"
    );
}

#[test]
fn no_utf_8_has_a_place() {
    assert_eq!(
        lines(b"name = \"p\"\n# \xff"),
        "f:2:3: not UTF-8; save the file in that encoding\n"
    );
}

#[test]
fn sizes_and_counts_are_bounded() {
    let large = vec![b'#'; MAX_BYTES + 1];
    assert_eq!(
        lines(&large),
        "f:1:1: more than 1048576 bytes; divide it into several policies\n"
    );
    let rules = "[[rule]]\nexec = \"/a\"\n".repeat(MAX_RULES + 1);
    assert_eq!(
        lines(format!("{HEAD}{rules}").as_bytes()),
        "f:2051:1: more than 1024 rules; divide the file into several policies\n"
    );
    let paths: Vec<String> = (0..5_000).map(|number| format!("\"/{number}\"")).collect();
    assert_eq!(
        lines(format!("{HEAD}[[rule]]\nexec = [{}]\n", paths.join(",")).as_bytes()),
        "f:3:1: the rules name more than 4096 things; divide the file into several policies\n"
    );
    let names = "\"sysrq\",".repeat(5_000);
    assert_eq!(
        lines(format!("name = \"p\"\ndeny = [{names}]\n").as_bytes()),
        "f:2:32777: more than 4096 names of rules; name each once\n"
    );
}

/// Hostile files end soon, with a bounded number of bounded lines.
#[test]
fn hostile_files_end() {
    let unknown = "\"ptrac\",".repeat(MAX_BYTES / 9);
    let key = |number: u32| format!("k{number}=1\n");
    let keys = (0..100_000).map(key).collect::<Vec<_>>().concat();
    let path = |number: u32| format!("\"/a/{number}\"");
    let paths = (0..4_000).map(path).collect::<Vec<_>>().join(",");
    let below = format!("[[rule]]\nexec = \"/\"\n[[rule]]\nexec = [{paths}]\n");
    let deep = format!("name = {}", "[".repeat(100_000));
    let dots = format!("{} = 1", vec!["a"; 50_000].join("."));
    let long = format!("deny = \"{}\"", "x".repeat(1_000_000));
    let same = "[[rule]]\nexec = \"/a\"\n".repeat(MAX_RULES);
    let start = std::time::Instant::now();
    for text in [
        &format!("{HEAD}[[rule]]\nsyscall = [{unknown}]\n"),
        &format!("{HEAD}{keys}"),
        &deep,
        &dots,
        &long,
        &format!("{HEAD}{same}"),
        &format!("{HEAD}{below}"),
    ] {
        let Faults(faults) = parse(text.as_bytes()).unwrap_err();
        assert!((1..=100).contains(&faults.len()), "{}", faults.len());
        for fault in faults {
            assert!(fault.message.len() < 400, "{fault}");
        }
    }
    assert!(
        start.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

/// Every prefix of a good file, and every file with a byte changed, is a policy or has faults.
#[test]
fn damaged_files_do_not_panic() {
    let good = crate::PACKS[1].text.as_bytes();
    for end in 0..good.len() {
        let _ = parse(&good[..end]);
    }
    let mut bytes = good.to_vec();
    for index in 0..bytes.len() {
        for changed in [b'"', b'[', b'\n', 0, 0xff, b'='] {
            let kept = std::mem::replace(&mut bytes[index], changed);
            let _ = parse(&bytes);
            bytes[index] = kept;
        }
    }
}
