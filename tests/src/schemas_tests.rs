//! That the schemas are as closed as they claim, and have every kind of event.

use paddock_agent::event::{Event, KINDS};
use serde_json::{Map, json};

use super::*;

/// Where the keys of several make one object, the place of use is what is closed.
const PARTS: [&str; 3] = ["container", "policy", "usage"];

/// Each object of a schema with its place.
fn objects<'v>(place: &str, schema: &'v Value, found: &mut Vec<(String, &'v Map<String, Value>)>) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") {
                found.push((place.to_owned(), object));
            }
            for (key, inner) in object {
                objects(&format!("{place}/{key}"), inner, found);
            }
        }
        Value::Array(all) => {
            for (at, inner) in all.iter().enumerate() {
                objects(&format!("{place}/{at}"), inner, found);
            }
        }
        _ => {}
    }
}

fn is_part(place: &str) -> bool {
    let Some((file, name)) = place.split_once(":/$defs/") else {
        return false;
    };
    PARTS.contains(&name) || (file == "events" && KINDS.contains(&name))
}

#[test]
fn every_object_is_closed_and_every_key_described() {
    let texts = texts().unwrap();
    let mut found = Vec::new();
    for (name, schema) in &texts {
        objects(&format!("{name}:"), schema, &mut found);
    }
    assert!(found.len() > 60, "{}", found.len());
    for (place, object) in found {
        // A condition, no description of a document.
        if place.ends_with("/if") {
            continue;
        }
        let closed = ["additionalProperties", "unevaluatedProperties"];
        assert!(
            is_part(&place)
                || closed
                    .iter()
                    .any(|key| object.get(*key) == Some(&json!(false))),
            "{place}: other keys may come"
        );
        let keys = object["properties"].as_object().unwrap();
        for required in object["required"].as_array().into_iter().flatten() {
            let key = required.as_str().unwrap();
            assert!(keys.contains_key(key), "{place}: {key} is required only");
        }
        for (key, value) in keys {
            let says = value["description"].is_string() || value["$ref"].is_string();
            assert!(
                says || value["const"].is_string(),
                "{place}/{key}: what it is"
            );
        }
    }
}

/// One of each kind with all that it may have, then with as little as it may.
fn events() -> Vec<Value> {
    let actor = json!({
        "pid": 7, "tid": 8, "uid": 0, "comm": "sh", "inner_pid": 1, "parent_pid": 6,
        "inner_uid": 0, "exe": "busybox",
    });
    let least = json!({"pid": 7, "tid": 8, "uid": 0, "comm": "sh"});
    let full = json!([
        {"event": "container", "action": "exited", "exit_code": 137, "oom_killed": true},
        {
            "event": "namespace_call", "syscall": "setns", "actor": actor, "outcome": "failed",
            "errno": "EPERM", "flags": 67_108_864, "fd": 3, "verdict": "escape_attempt",
            "targets": [{"namespace": "uts", "target": "host", "inode": 4_026_531_838_u64}],
        },
        {
            "event": "oom_kill", "victim": actor, "trigger": actor, "constraint": "memcg",
            "limit_bytes": 67_108_864, "main_process": true, "level": "own",
            "limit_cgroup": "/paddock/run/id", "group": false, "rss_anon_bytes": 1,
            "rss_file_bytes": 2, "rss_shmem_bytes": 3, "total_vm_bytes": 4, "oom_score_adj": -5,
        },
        {"event": "exec", "actor": actor, "filename": "/bin/sh"},
        {"event": "exit", "actor": actor, "exit_code": 137, "signal": 9},
        {
            "event": "activity", "activity": "mount", "actor": actor, "target": "peer",
            "outcome": "allowed", "errno": null, "object": "tmpfs", "place": "/mnt",
            "other_pid": 9, "other_container": "web", "arguments": [1, u64::MAX],
            "verdict": "escape",
        },
        {
            "event": "denial", "activity": "network", "actor": actor, "target": "unknown",
            "action": "deny", "policy": "walls", "rule": "out", "other_pid": 9,
            "peer": {"direction": "egress", "protocol": "tcp", "address": "::1", "port": 443},
            "capability": "CAP_SYS_TIME", "device": "c 1:3 rw",
            "file": {"operation": "read", "path": "/etc/keys"},
        },
        {
            "event": "tampering", "what": "map", "outcome": "denied", "actor": actor,
            "object": "12",
        },
        {
            "event": "reaction", "action": "disarm", "policy": "walls", "rule": "out",
            "outcome": "done", "detail": "web",
        },
        {"event": "lost", "count": 3},
        {"event": "limited", "action": "started", "reason": "pressure", "withheld": 5},
        {
            "event": "cgroup", "action": "mkdir", "actor": actor, "path": "/paddock",
            "cgroup_id": 4711,
        },
    ]);
    let head = json!({
        "schema_version": 1, "id": 4, "time_ns": 1_700_000_000_000_000_000_u64,
        "container": "web", "container_id": "ab".repeat(32),
    });
    let mut events = Vec::new();
    for kind in full.as_array().unwrap() {
        let mut event = head.clone();
        let all = event.as_object_mut().unwrap();
        all.extend(kind.as_object().unwrap().clone());
        events.push(event.clone());
        // What the agent can do without is left out, and written as the agent writes it.
        let mut short = event;
        for key in short.as_object().unwrap().clone().keys() {
            let mut shorter = short.clone();
            shorter.as_object_mut().unwrap().remove(key);
            if serde_json::from_value::<Event>(shorter.clone()).is_ok() {
                short = shorter;
            } else if short[key] == actor {
                short[key] = least.clone();
            }
        }
        events.push(short);
    }
    events
}

#[test]
fn events_of_every_kind_fit_and_none_with_another_key_or_without_one() {
    let schemas = Schemas::read().unwrap();
    let mut kinds = Vec::new();
    for written in events() {
        let event: Event = serde_json::from_value(written.clone()).unwrap();
        if !kinds.contains(&event.kind.name()) {
            // The whole of it is among what the agent writes.
            assert_eq!(serde_json::to_value(&event).unwrap(), written);
            kinds.push(event.kind.name());
        }
        let document = serde_json::to_value(&event).unwrap();
        schemas.check("events", &document).unwrap();

        let mut more = document.clone();
        more["unheard_of"] = json!(1);
        let said = schemas.check("events", &more).unwrap_err().to_string();
        assert!(said.contains("'unheard_of' was unexpected"), "{said}");
        for key in document.as_object().unwrap().keys() {
            let mut less = document.clone();
            less.as_object_mut().unwrap().remove(key);
            // Those that the agent leaves out where it has nothing to say.
            let optional = !always(&event).contains(key);
            assert_eq!(
                schemas.check("events", &less).is_ok(),
                optional,
                "{key} of {document}"
            );
        }
    }
    assert_eq!(kinds, KINDS, "a kind without its sample");
}

/// The keys that the agent writes with nothing in them, too.
fn always(event: &Event) -> Vec<String> {
    let mut least = serde_json::to_value(event).unwrap();
    for key in least.as_object().unwrap().clone().keys() {
        let mut shorter = least.clone();
        shorter.as_object_mut().unwrap().remove(key);
        if let Ok(event) = serde_json::from_value::<Event>(shorter) {
            least = serde_json::to_value(event).unwrap();
        }
    }
    least.as_object().unwrap().keys().cloned().collect()
}
