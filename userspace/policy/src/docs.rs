//! The table of named rules in docs/policy.md, and the schema, held against the code. A test
//! fails where they differ; `UPDATE_DOCS=1` writes the table.

use std::{fmt::Write as _, fs, path::Path};

use paddock_abi::activity::{TABLE, Verdict};
use serde_json::{Value, json};

use crate::{
    named::{NAMED, TARGETS, target_name},
    packs::PACKS,
    parse, schema,
};

const BEGIN: &str = "<!-- named rules: written by a test -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn named_rules_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md");
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (have, tail) = rest.split_once(END).unwrap();
    let want = table();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{want}{END}{tail}")).unwrap();
        return;
    }
    assert!(
        have == want,
        "docs/policy.md is not what the code says: run this test with UPDATE_DOCS=1"
    );
}

/// Files in the page are files that work.
#[test]
fn examples_are_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut examples = 0;
    for block in text.split("```toml\n").skip(1) {
        let (example, _) = block.split_once("```").unwrap();
        parse(example.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        let value: Value = toml::from_str(example).unwrap();
        fits(&value, &schema(), "example").unwrap();
        examples += 1;
    }
    assert!(examples > 0);
}

/// What the page and the crate say of precedence is the same.
#[test]
fn precedence_is_stated_once() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md"));
    let crate_doc = include_str!("lib.rs").replace("\n//! ", " ");
    let (_, said) = crate_doc.split_once("**Precedence.** ").unwrap();
    let (said, _) = said.split_once('\n').unwrap();
    assert!(page.unwrap().contains(said), "{said}");
}

fn table() -> String {
    let packs = PACKS.map(|pack| (pack.name, parse(pack.text.as_bytes()).unwrap()));
    let mut text =
        String::from("| Rule | Forbids | Activities of verdicts.md | Packs |\n|---|---|---|---|\n");
    for rule in NAMED {
        let acts: Vec<String> = TABLE
            .iter()
            .filter_map(|row| {
                let targets: Vec<_> = TARGETS
                    .iter()
                    .filter(|target| rule.holds(row.activity, **target))
                    .map(|target| target_name(*target))
                    .collect();
                let all = targets.len() == TARGETS.len();
                let targets = if all {
                    "any".to_owned()
                } else {
                    targets.join("+")
                };
                (!targets.is_empty()).then(|| format!("`{}` {targets}", row.name))
            })
            .collect();
        let acts = if rule.name == "any-escape" {
            "every cell with **escape**".to_owned()
        } else {
            acts.join(", ")
        };
        let packs: Vec<_> = packs
            .iter()
            .filter(|(_, pack)| pack.rules.iter().any(|own| own.name == rule.name))
            .map(|(name, _)| *name)
            .collect();
        writeln!(
            text,
            "| `{}` | {} | {acts} | {} |",
            rule.name,
            rule.what,
            packs.join(", ")
        )
        .unwrap();
    }
    text
}

#[test]
fn the_schema_has_the_named_rules_of_the_table() {
    let schema = schema();
    let rules = schema["properties"]["deny"]["anyOf"][0]["oneOf"]
        .as_array()
        .unwrap();
    let names: Vec<_> = rules
        .iter()
        .map(|rule| rule["const"].as_str().unwrap())
        .collect();
    let table: Vec<_> = NAMED.iter().map(|rule| rule.name).collect();
    assert_eq!(names, table);
}

#[test]
fn the_schema_has_the_keys_that_the_reader_knows() {
    let schema = schema();
    let keys = |pointer: &str| -> Vec<String> {
        let object = schema.pointer(pointer).unwrap().as_object().unwrap();
        object.keys().cloned().collect()
    };
    let rule = "/properties/rule/items/properties";
    for (pointer, known) in [
        ("/properties".to_owned(), &crate::read::KEYS[..]),
        (
            "/properties/select/properties".to_owned(),
            &crate::select::KEYS,
        ),
        (
            "/properties/default/properties".to_owned(),
            &crate::read::FAMILIES,
        ),
        (rule.to_owned(), &crate::rule::KEYS),
        (
            format!("{rule}/namespace/properties"),
            &crate::rule::NAMESPACE_KEYS,
        ),
        (
            format!("{rule}/network/properties"),
            &crate::rule::NETWORK_KEYS,
        ),
        (format!("{rule}/file/properties"), &crate::rule::FILE_KEYS),
        (
            format!("{rule}/disarm/properties"),
            &crate::rule::DISARM_KEYS,
        ),
    ] {
        let mut known: Vec<_> = known.iter().map(|key| (*key).to_owned()).collect();
        known.sort();
        let mut have = keys(&pointer);
        have.sort();
        assert_eq!(have, known, "{pointer}");
    }
}

#[test]
fn packs_are_right_and_fit_the_schema() {
    for pack in PACKS {
        let policy = parse(pack.text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(policy.name, pack.name);
        let value: Value = toml::from_str(pack.text).unwrap();
        fits(&value, &schema(), pack.name).unwrap();
    }
}

#[test]
fn the_schema_refuses_what_it_should() {
    for wrong in [
        json!({"deny": ["mount"]}),
        json!({"name": "a", "deny": ["muont"]}),
        json!({"name": "a", "deny": []}),
        json!({"name": "a", "mod": "audit"}),
        json!({"name": "a", "mode": "watch"}),
        json!({"name": "a", "rule": [{}]}),
        json!({"name": "a", "rule": [{"exec": "/a", "named": "mount"}]}),
        json!({"name": "a", "rule": [{"network": {"net": "::/0"}}]}),
        json!({"name": 1}),
    ] {
        assert!(fits(&wrong, &schema(), "").is_err(), "{wrong}");
    }
}

/// As much of JSON schema as ours uses, but for patterns and bounds.
fn fits(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    let sub = |schemas: &Value| {
        let schemas = schemas.as_array().unwrap();
        schemas
            .iter()
            .filter(|schema| fits(value, schema, at).is_ok())
            .count()
    };
    let wrong = |what: &str| Err(format!("{at}: {what}: {value}"));
    for (key, rule) in schema.as_object().unwrap() {
        let good = match key.as_str() {
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64(),
                other => panic!("{other}"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "anyOf" => sub(rule) >= 1,
            "oneOf" => sub(rule) == 1,
            "minItems" => value.as_array().is_none_or(|items| !items.is_empty()),
            "minProperties" => value.as_object().is_none_or(|fields| !fields.is_empty()),
            "required" => {
                let keys = rule.as_array().unwrap();
                keys.iter()
                    .all(|key| value.get(key.as_str().unwrap()).is_some())
            }
            "items" => value
                .as_array()
                .is_none_or(|items| items.iter().all(|item| fits(item, rule, at).is_ok())),
            "properties" => {
                for (key, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        fits(value, rule, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            "additionalProperties" if rule == &json!(false) => {
                let known = schema["properties"].as_object().unwrap();
                value
                    .as_object()
                    .is_none_or(|fields| fields.keys().all(|key| known.contains_key(key)))
            }
            _ => true,
        };
        if !good {
            return wrong(key);
        }
    }
    Ok(())
}

#[test]
fn the_pack_escape_denies_every_escape_and_nothing_benign() {
    let pack = parse(PACKS[0].text.as_bytes()).unwrap();
    let rules = crate::compile(&[&pack]).unwrap();
    for row in TABLE {
        for target in TARGETS {
            use paddock_abi::policy::{ACTION_ALLOW, action, policy_index};
            let cell = rules.cells[policy_index(row.activity, target)];
            let verdict = row.pair(target).done;
            let denied = action(cell) != ACTION_ALLOW;
            assert!(
                denied || verdict != Verdict::Escape,
                "{} {target:?}",
                row.name
            );
            assert!(
                !denied || verdict != Verdict::Benign,
                "{} {target:?}",
                row.name
            );
        }
    }
}

#[test]
fn files_of_the_guide_are_policies() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/policy.md");
    let guide = fs::read_to_string(path).unwrap();
    let blocks = guide.split("```toml\n").skip(1);
    let files: Vec<_> = blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .collect();
    assert_eq!(files.len(), 4);
    for file in files {
        if let Err(faults) = parse(file.as_bytes()) {
            panic!("{}", faults.lines("docs/guides/policy.md"));
        }
    }
}
