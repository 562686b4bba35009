//! docs/events.md and docs/verdicts.md, written from the types and the table: a test fails when
//! they are not what they would be. `UPDATE_DOCS=1` writes them.

use std::{fmt::Write as _, fs, path::Path};

use paddock_probe::{VERDICTS, Verdict};
use serde_json::Value;

use super::{Event, KINDS};

#[test]
fn events_are_documented() {
    current("events.md", &events());
}

#[test]
fn each_kind_is_named() {
    let schema = serde_json::to_value(schemars::schema_for!(Event)).unwrap();
    let variants = schema["oneOf"].as_array().unwrap().iter();
    let names: Vec<_> = variants
        .map(|variant| variant["properties"]["event"]["const"].as_str().unwrap())
        .collect();
    let mut known = KINDS.to_vec();
    known.sort_by_key(|kind| names.iter().position(|name| name == kind));
    assert_eq!(known, names);
}

#[test]
fn verdicts_are_documented() {
    current("verdicts.md", &verdicts());
}

pub(crate) fn current(name: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, want).unwrap();
    }
    let have = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        have == want,
        "docs/{name} is not what the code says: run this test with UPDATE_DOCS=1"
    );
}

fn events() -> String {
    let schema = serde_json::to_value(schemars::schema_for!(Event)).unwrap();
    let mut text = String::from(
        "# Events\n\nWritten from `userspace/agent/src/event.rs`; how to read them is in [guides/events.md](guides/events.md), what verdicts mean in [verdicts.md](verdicts.md). `paddock events --format json` prints one object a line.\n\n## Every event\n\n",
    );
    fields(&mut text, &schema, &[]);
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        let name = variant["properties"]["event"]["const"].as_str().unwrap();
        let what = variant["description"].as_str().unwrap_or_default();
        writeln!(text, "\n## `{name}`\n\n{}\n", line(what)).unwrap();
        fields(&mut text, variant, &["event"]);
    }
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        let what = definition["description"].as_str().unwrap_or_default();
        writeln!(text, "\n## {name}\n\n{}\n", line(what)).unwrap();
        if let Some(words) = definition["enum"].as_array() {
            let words: Vec<_> = words
                .iter()
                .filter_map(Value::as_str)
                .map(|word| format!("`{word}`"))
                .collect();
            writeln!(text, "One of {}.", words.join(", ")).unwrap();
        } else if let Some(words) = definition["oneOf"].as_array() {
            for word in words {
                let name = word["const"].as_str().unwrap_or_default();
                let what = word["description"].as_str().unwrap_or_default();
                writeln!(text, "- `{name}`: {}", line(what)).unwrap();
            }
        } else {
            fields(&mut text, definition, &[]);
        }
    }
    // Paragraphs without text leave empty lines.
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    text
}

fn fields(text: &mut String, object: &Value, left_out: &[&str]) {
    let required: Vec<_> = object["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    text.push_str("| Field | Type | |\n|---|---|---|\n");
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        if left_out.contains(&name.as_str()) {
            continue;
        }
        let absent = if required.contains(&name.as_str()) {
            ""
        } else {
            ", may be absent"
        };
        let what = line(field["description"].as_str().unwrap_or_default());
        writeln!(text, "| `{name}` | {}{absent} | {what} |", type_of(field)).unwrap();
    }
}

fn type_of(field: &Value) -> String {
    if let Some(name) = field["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or(name).to_owned();
    }
    if let Some(choices) = field["anyOf"].as_array() {
        let names: Vec<_> = choices.iter().map(type_of).collect();
        return names.join(" or ");
    }
    match &field["type"] {
        Value::String(name) if name == "array" => format!("array of {}", type_of(&field["items"])),
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
            names.join(" or ")
        }
        _ => String::new(),
    }
}

fn line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn verdicts() -> String {
    let mut text = String::from(
        "# Verdicts\n\nWritten from the table in `ebpf/abi/src/activity.rs`, which the kernel half itself looks up: the same row serves events, metrics and this page.\n\n\
         What is judged is what a process of a container does after its runtime's set-up: paddock's, runc's, crun's and others' own steps are told apart by where a process came from and by its first exec, never by its name.\n\n\
         Whose the target is decides: `own`, the container's or what it was given by its configuration; `new`, made by the act; `peer`, another container's; `host`, the host's; `unknown`, what a failed act named and nobody can resolve.\n\n\
         | Verdict | Means | Ring, count |\n|---|---|---|\n\
         | benign | what programs do | told where it is seldom, counted always |\n\
         | notable | nothing was reached outside, but the way there may begin so | `EVENTS` |\n\
         | escape_attempt | reached for what is not the container's, in vain or not wholly | `CRITICAL`; `paddock_container_escapes_total{outcome=\"failed\"}` |\n\
         | escape | has hold of what is not the container's | `CRITICAL`; `paddock_container_escapes_total{outcome=\"allowed\"}` |\n\n\
         A cell is the verdict of a success, then that of a failure where it differs. `kind` is the label of `paddock_container_escapes_total`; joining or opening a namespace of a peer's counts as `peer_namespace`.\n\n\
         | Activity | kind | own | new | peer | host | unknown | |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in VERDICTS {
        let cell = |pair: paddock_probe::Pair| {
            if pair.done == pair.failed {
                word(pair.done).to_owned()
            } else {
                format!("{} / {}", word(pair.done), word(pair.failed))
            }
        };
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.escape.name(),
            cell(row.own),
            cell(row.new),
            cell(row.peer),
            cell(row.host),
            cell(row.unknown),
            row.what
        )
        .unwrap();
    }
    text
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Benign => "benign",
        Verdict::Notable => "notable",
        Verdict::EscapeAttempt => "attempt",
        Verdict::Escape => "**escape**",
    }
}
