//! Chains of scripts that write down what they were given.

use std::time::{Duration, Instant};

use super::*;
use crate::fixture::Dir;

/// Logs the call; ADD says so in its result.
const LOGGING: &str = r#"
{ echo "${0##*/} $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS home=$HOME"
  cat; echo; } >>"${0%/*}/log"
[ $CNI_COMMAND = DEL ] || echo "{\"cniVersion\":\"1.0.0\",\"by\":\"${0##*/}\"}""#;

fn attachment(plugins: &str) -> Attachment {
    let list = format!(r#"{{"name":"net","cniVersion":"1.0.0","plugins":{plugins}}}"#);
    Attachment {
        network: Network::parse(list.as_bytes()).expect("a list"),
        container: "c1".to_owned(),
        interface: "eth0".to_owned(),
        args: "A=b".to_owned(),
        capabilities: Map::new(),
        result: None,
    }
}

fn plugins(dir: &Dir) -> Plugins {
    Plugins {
        dirs: vec![dir.path().to_owned()],
        timeout: Duration::from_secs(20),
    }
}

fn failure(name: &str, script: &str, timeout: Duration) -> String {
    let dir = Dir::new(name);
    dir.script("bad", script);
    let plugins = Plugins {
        timeout,
        ..plugins(&dir)
    };
    let mut one = attachment(r#"[{"type":"bad"}]"#);
    let error = one.add(&plugins, Path::new("/n")).expect_err("a failure");
    error.to_string()
}

#[test]
fn a_chain_hands_results_on_and_is_undone_in_reverse() {
    let dir = Dir::new("chain");
    dir.script("one", LOGGING);
    dir.script("two", LOGGING);
    let mut one = attachment(r#"[{"type":"one"},{"type":"two","capabilities":{"p":true}}]"#);
    one.capabilities.insert("p".to_owned(), json!([1]));
    one.add(&plugins(&dir), Path::new("/n")).expect("ADD");
    // As it lies on disk.
    let text = serde_json::to_string(&one).expect("JSON");
    let kept: Attachment = serde_json::from_str(&text).expect("an attachment");
    kept.delete(&plugins(&dir), None).expect("DEL");

    let log = dir.read("log");
    let (calls, configs): (Vec<&str>, Vec<&str>) =
        log.lines().partition(|line| !line.starts_with('{'));
    let expected = [
        "one ADD c1 /n eth0 A=b home=",
        "two ADD c1 /n eth0 A=b home=",
        "two DEL c1  eth0 A=b home=",
        "one DEL c1  eth0 A=b home=",
    ];
    assert_eq!(calls, expected);
    let configs: Vec<Value> = configs
        .iter()
        .map(|config| serde_json::from_str(config).expect("JSON"))
        .collect();
    let result = |by: &str| json!({"cniVersion": "1.0.0", "by": by});
    let base = |kind: &str| json!({"name": "net", "cniVersion": "1.0.0", "type": kind});
    let with = |kind: &str, more: Value| {
        let mut config = base(kind);
        for (key, value) in more.as_object().expect("an object") {
            config[key] = value.clone();
        }
        config
    };
    let expected = [
        base("one"),
        with(
            "two",
            json!({"runtimeConfig": {"p": [1]}, "prevResult": result("one")}),
        ),
        with(
            "two",
            json!({"runtimeConfig": {"p": [1]}, "prevResult": result("two")}),
        ),
        with("one", json!({"prevResult": result("two")})),
    ];
    assert_eq!(configs, expected);
}

#[test]
fn a_failing_add_is_undone_by_the_whole_chain_though_del_fails_too() {
    let dir = Dir::new("failing");
    dir.script("one", LOGGING);
    let fail = r#"printf '%s' '{"code":11,"msg":"a\nb","details":"c"}'; exit 1"#;
    dir.script("two", fail);
    let mut one = attachment(r#"[{"type":"one"},{"type":"two"}]"#);
    let error = one
        .add(&plugins(&dir), Path::new("/n"))
        .expect_err("a failure");
    assert_eq!(error.to_string(), "CNI plugin 'two': ADD: a b: c (code 11)");
    assert_eq!(one.result, None);
    let log = dir.read("log");
    let calls = log.lines().filter(|line| line.starts_with("one"));
    let commands: Vec<_> = calls.filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(commands, ["ADD", "DEL"]);
}

#[test]
fn hostile_plugins_end_in_one_line() {
    let long = Duration::from_secs(20);
    let error = failure("garbage", "echo garbage", long);
    assert!(error.contains("its result is no JSON object"), "{error}");
    let error = failure("endless", "exec cat /dev/zero", long);
    assert!(error.contains("printed more than 1048576 bytes"), "{error}");
    let error = failure("version", r#"echo '{"cniVersion":"0.4.0"}'"#, long);
    assert!(error.contains("not of version 1.0.0"), "{error}");
    let error = failure("words", "echo why >&2; exit 3", long);
    assert!(error.contains("exit status: 3: why"), "{error}");
    let before = Instant::now();
    let error = failure("hanging", "sleep 60", Duration::from_millis(300));
    assert!(error.contains("not done within 300ms"), "{error}");
    assert!(before.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_the_plugin_leaves_running_is_not_waited_for() {
    let dir = Dir::new("daemon");
    dir.script("one", "sleep 5 & echo '{}'");
    let before = Instant::now();
    attachment(r#"[{"type":"one"}]"#)
        .add(&plugins(&dir), Path::new("/n"))
        .expect("ADD");
    assert!(before.elapsed() < Duration::from_secs(4));
}

#[test]
fn parameters_are_checked_before_any_plugin_runs() {
    let none = Plugins {
        dirs: Vec::new(),
        timeout: Duration::ZERO,
    };
    let refusal = |change: fn(&mut Attachment)| {
        let mut one = attachment(r#"[{"type":"one"}]"#);
        change(&mut one);
        let error = one.add(&none, Path::new("/n")).expect_err("refused");
        error.to_string()
    };
    assert!(refusal(|one| one.container = "a/b".to_owned()).contains("container id"));
    assert!(refusal(|one| one.interface = "sixteen-letters-".to_owned()).contains("interface"));
    let ports = refusal(|one| {
        let capability = "portMappings".to_owned();
        one.capabilities.insert(capability, json!([]));
    });
    assert!(
        ports.contains("has the capability 'portMappings'"),
        "{ports}"
    );
    assert!(refusal(|_| ()).contains("no CNI plugin 'one' in"));
}

#[test]
fn a_result_tells_addresses_and_servers() {
    let mut one = attachment(r#"[{"type":"one"}]"#);
    assert!(one.addresses().is_empty() && one.mac().is_none());
    let result = json!({
        "ips": [{"address": "10.1.2.3/24"}, {"address": "garbage"}, {"address": "fd00::3/64"}],
        "dns": {"nameservers": ["10.1.2.1", "not one"]},
        "interfaces": [
            {"name": "eth0", "mac": "of the host's end"},
            {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/n"},
        ],
    });
    one.result = result.as_object().cloned();
    let text = |list: Vec<IpAddr>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(one.addresses()), ["10.1.2.3", "fd00::3"]);
    assert_eq!(text(one.name_servers()), ["10.1.2.1"]);
    assert_eq!(one.mac(), Some("02:00:00:00:00:01"));
}
