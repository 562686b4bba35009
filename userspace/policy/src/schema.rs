//! The JSON schema of a policy file, for editors: from the same lists that the reader has.
//!
//! Kept by hand and not derived, since the reader is no serde type: it walks the file itself to
//! know the place of each word. A test holds the packs and the tables against it.

use paddock_abi::namespace::NsType;
use serde_json::{Value, json};

use crate::{
    model::{CAPABILITIES, NAMESPACE_TARGETS, RUNTIMES, operation},
    named::{NAMED, target_name},
    read::{FAMILIES, MAX_RULES, MODES, UNENFORCEABLE, VERBS},
    rule::{DIRECTIONS, KINDS, MOST_HITS, PROTOCOLS, REACTIONS},
    select::ORIGINS,
};

/// Draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "paddock policy",
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {
            "name": name("Name of the policy"),
            "description": {"type": "string"},
            "mode": words(&MODES, "What a denial leads to; audit only counts, and is the default"),
            "when_unenforceable": words(&UNENFORCEABLE, "What becomes of a policy with a rule that this kernel cannot enforce; default fail"),
            "select": select(),
            "default": {
                "type": "object",
                "description": "What is denied where no rule says otherwise; all is allowed by default",
                "additionalProperties": false,
                "minProperties": 1,
                "properties": FAMILIES
                    .iter()
                    .map(|family| ((*family).to_owned(), words(&VERBS, "")))
                    .collect::<serde_json::Map<_, _>>(),
            },
            "deny": list(&named(), "Named rules that hold"),
            "allow": list(&named(), "Named rules that are exceptions of wider ones in this file"),
            "rule": {"type": "array", "maxItems": MAX_RULES, "items": rule()},
        },
    })
}

fn name(what: &str) -> Value {
    json!({
        "type": "string",
        "description": what,
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        "maxLength": 64,
    })
}

fn text(what: &str) -> Value {
    json!({"type": "string", "description": what})
}

fn words<T>(words: &[(&str, T)], what: &str) -> Value {
    let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let mut value = json!({"enum": words});
    if !what.is_empty() {
        value["description"] = what.into();
    }
    value
}

/// Each named rule with its sentence.
fn named() -> Value {
    let rules: Vec<_> = NAMED
        .iter()
        .map(|rule| json!({"const": rule.name, "description": rule.what}))
        .collect();
    json!({"oneOf": rules})
}

/// One, or some in an array.
fn list(item: &Value, what: &str) -> Value {
    json!({
        "description": what,
        "anyOf": [item, {"type": "array", "minItems": 1, "items": item}],
    })
}

fn select() -> Value {
    json!({
        "type": "object",
        "description": "Containers that the policy holds for, all where it is absent; all that is given must fit",
        "additionalProperties": false,
        "minProperties": 1,
        "properties": {
            "name": list(&text("With * and ?"), "Names of containers"),
            "image": list(&text("With * and ?"), "Images as they were asked for"),
            "label": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": text("With * and ?"),
            },
            "runtime": list(&json!({"enum": RUNTIMES}), "Who runs it"),
            "origin": words(&ORIGINS, "Whether paddock started it"),
        },
    })
}

fn rule() -> Value {
    let mut properties = json!({
        "name": name("Name of the rule, rule-N where it is absent"),
        "effect": words(&VERBS, "Default deny"),
        "mode": words(&MODES, "In place of the policy's"),
        "reaction": words(&REACTIONS, "What is done when it hits; default deny"),
        "disarm": {
            "type": "object",
            "description": "The rule goes to audit when it hits more containers than these in this time",
            "additionalProperties": false,
            "required": ["hits", "window"],
            "properties": {
                "hits": {"type": "integer", "minimum": 1, "maximum": MOST_HITS},
                "window": {"type": "string", "pattern": "^[0-9]+[smh]$"},
            },
        },
    });
    if let Some(properties) = properties.as_object_mut() {
        properties.extend(KINDS.map(|kind| (kind.to_owned(), matter(kind))));
    }
    let one_of: Vec<_> = KINDS.map(|kind| json!({"required": [kind]})).to_vec();
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "oneOf": one_of,
    })
}

/// The value of a key that says what a rule is about.
fn matter(kind: &str) -> Value {
    match kind {
        "named" => list(&named(), "Named rules"),
        "namespace" => {
            let types = NsType::ALL.map(NsType::name);
            let targets = NAMESPACE_TARGETS.map(target_name);
            json!({
                "type": "object",
                "description": "Namespaces by type, default all, and whose they are, default peer and host",
                "additionalProperties": false,
                "minProperties": 1,
                "properties": {
                    "type": list(&json!({"enum": types}), "Types as in /proc/PID/ns"),
                    "target": list(&json!({"enum": targets}), "Whose they are; new is one made by the act"),
                },
            })
        }
        "capability" => {
            let bare = CAPABILITIES.iter().map(|name| (*name).to_owned());
            let full = CAPABILITIES.iter().map(|name| format!("CAP_{name}"));
            let names: Vec<_> = bare.chain(full).chain(["ALL".to_owned()]).collect();
            list(&json!({"enum": names}), "Capabilities")
        }
        "device" => list(
            &json!({"type": "string", "pattern": "^[abc] ([0-9]+|\\*):([0-9]+|\\*)( [rwm]+)?$"}),
            "Devices, as 'c 1:3 rw'",
        ),
        "network" => json!({
            "type": "object",
            "description": "Peers by address; ports are the peer's for egress, the container's own for ingress",
            "additionalProperties": false,
            "required": ["direction"],
            "properties": {
                "direction": list(&words(&DIRECTIONS, ""), "Who begins"),
                "net": list(&text("As 10.0.0.0/8"), "Addresses, default every one"),
                "port": list(
                    &json!({"anyOf": [
                        {"type": "integer", "minimum": 0, "maximum": 65535},
                        {"type": "string", "pattern": "^[0-9]+( *- *[0-9]+)?$"},
                    ]}),
                    "Ports, default every one",
                ),
                "protocol": list(&words(&PROTOCOLS, ""), "Default every one, with ports tcp and udp"),
            },
        }),
        "file" => json!({
            "type": "object",
            "description": "Files and directories with all below them",
            "additionalProperties": false,
            "required": ["path", "operation"],
            "properties": {
                "path": list(&absolute(), "Absolute paths, as the container sees them"),
                "operation": list(&json!({"enum": operation::NAMES}), "What is done"),
            },
        }),
        "exec" => list(&absolute(), "Programs, or directories with all below them"),
        _ => list(&text("As in syscalls(2)"), "System calls"),
    }
}

fn absolute() -> Value {
    json!({"type": "string", "pattern": "^/"})
}
