//! A file's text to a policy, or to what is wrong with it.

use std::iter::once;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    check,
    fault::{Faults, Sink, quote, suggestion},
    fields::{Fields, kind, one_of},
    model::{
        Cidr, Match, Mode, Network, PathRule, Policy, Reaction, Rule, Select, Verb,
        WhenUnenforceable, direction, operation, protocol,
    },
    named::{NAMED, NamedRule},
    rule, select,
    values::{self, Value},
};

/// More no file may have.
pub const MAX_BYTES: usize = 1 << 20;
/// `[[rule]]` tables in a file.
pub const MAX_RULES: usize = 1024;
/// What all rules of a file are about, counted one by one.
pub const MAX_STATEMENTS: usize = 4096;

pub(crate) const KEYS: [&str; 9] = [
    "name",
    "description",
    "mode",
    "when_unenforceable",
    "select",
    "default",
    "deny",
    "allow",
    "rule",
];

pub(crate) const MODES: [(&str, Mode); 2] = [("audit", Mode::Audit), ("enforce", Mode::Enforce)];
pub(crate) const UNENFORCEABLE: [(&str, WhenUnenforceable); 2] = [
    ("fail", WhenUnenforceable::Fail),
    ("audit", WhenUnenforceable::Audit),
];
pub(crate) const VERBS: [(&str, Verb); 2] = [("deny", Verb::Deny), ("allow", Verb::Allow)];
/// Families that have a posture.
pub(crate) const FAMILIES: [&str; 3] = ["network", "exec", "files"];

/// A rule, and where it and each of its statements stand in the text.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) rule: Rule,
    pub(crate) at: usize,
    pub(crate) places: Vec<usize>,
}

/// What whoever puts a policy in force says in place of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Of all rules that have no mode of their own.
    pub mode: Option<Mode>,
    pub when_unenforceable: Option<WhenUnenforceable>,
}

/// Reads and checks a whole file.
pub fn parse(bytes: &[u8]) -> Result<Policy, Faults> {
    parse_with(bytes, Overrides::default())
}

pub fn parse_with(bytes: &[u8], overrides: Overrides) -> Result<Policy, Faults> {
    if bytes.len() > MAX_BYTES {
        return Err(whole(format!(
            "more than {MAX_BYTES} bytes; divide it into several policies"
        )));
    }
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let good = String::from_utf8_lossy(good);
            let mut sink = Sink::new(&good);
            sink.add(good.len(), "not UTF-8; save the file in that encoding");
            return Err(sink.into_faults());
        }
    };
    let mut sink = Sink::new(text);
    let policy = match DeTable::parse(text) {
        Ok(table) => read(table.get_ref(), overrides, &mut sink),
        Err(error) => {
            let at = error.span().map_or(text.len(), |span| span.start);
            let what = match error.message() {
                "duplicate key" => "the key stands here a second time; leave one out",
                message => message,
            };
            sink.add(at, format!("not TOML: {what}"));
            None
        }
    };
    match policy {
        Some(policy) if sink.is_empty() => Ok(policy),
        _ => Err(sink.into_faults()),
    }
}

/// A fault of the file as a whole.
fn whole(message: String) -> Faults {
    let mut sink = Sink::new("");
    sink.add(0, message);
    sink.into_faults()
}

fn read(table: &DeTable<'_>, overrides: Overrides, sink: &mut Sink<'_>) -> Option<Policy> {
    let fields = Fields::of(table, &KEYS, "a policy", sink);
    if fields.get("name").is_none() {
        let message = "the policy has no name; add name = \"…\" at the top";
        fields.missing(0, message, sink);
    }
    let name = fields.string("name", sink, values::name);
    let description = fields.string("description", sink, |text| Ok(text.to_owned()));
    let mode = fields.word("mode", &MODES, sink);
    let mode = overrides.mode.or(mode).unwrap_or_default();
    let when_unenforceable = fields.word("when_unenforceable", &UNENFORCEABLE, sink);
    let when_unenforceable = overrides
        .when_unenforceable
        .or(when_unenforceable)
        .unwrap_or_default();
    let select = match (fields.get("select"), fields.table("select", sink)) {
        (Some(field), Some(table)) => select::read(table, field.at, sink),
        _ => Select::default(),
    };
    let mut drafts = Vec::new();
    for (key, verb) in VERBS {
        for (at, named) in fields.list(key, sink, named_rule).into_iter().flatten() {
            drafts.push(bare(named, verb, mode, at));
        }
    }
    if let Some(draft) = drafts.get(MAX_STATEMENTS) {
        sink.add(
            draft.at,
            format!("more than {MAX_STATEMENTS} names of rules; name each once"),
        );
        return None;
    }
    if let Some(field) = fields.get("rule") {
        rules(field.value, field.at, mode, &mut drafts, sink);
    }
    if let (Some(field), Some(table)) = (fields.get("default"), fields.table("default", sink)) {
        posture(table, field.at, mode, &mut drafts, sink);
    }
    // Where a rule is wrong, what it says beside others is not known.
    if sink.is_empty() {
        check::all(&drafts, sink);
    }
    let mut rules: Vec<Rule> = drafts.into_iter().map(|draft| draft.rule).collect();
    rules.extend(by_path(&rules));
    Some(Policy {
        name: name?,
        description: description.unwrap_or_default(),
        mode,
        when_unenforceable,
        select,
        rules,
    })
}

/// What goes with rules by path, as least specific of all, unless the file has a word on it: they
/// mean nothing where a container can make another path lead to the same file, so the right to
/// mount; and where no program may be started, those that have no path.
fn by_path(rules: &[Rule]) -> Vec<Rule> {
    let denied = |which: fn(&PathRule) -> bool| {
        let names = move |one: &Match| matches!(one, Match::Path(path) if which(path));
        let all = rules.iter().filter(|rule| rule.verb == Verb::Deny);
        all.filter(move |rule| rule.matches.iter().any(names))
    };
    let mounts = implied(rules, "mount", &denied(|_| true).collect::<Vec<_>>());
    let everything = denied(|path| path.path == "/" && path.operations & operation::EXEC != 0);
    let fileless = implied(rules, "fileless-exec", &everything.collect::<Vec<_>>());
    mounts.into_iter().chain(fileless).collect()
}

/// A denial of a named rule for the sake of others.
fn implied(rules: &[Rule], named: &str, sake: &[&Rule]) -> Option<Rule> {
    let names_it = |matched: &Match| matches!(matched, Match::Named(one) if one.name == named);
    if rules.iter().any(|rule| rule.matches.iter().any(names_it)) {
        return None;
    }
    let first = sake.first()?;
    let enforced = sake.iter().any(|rule| rule.mode == Mode::Enforce);
    let free = once(named.to_owned()).chain((2..).map(|number| format!("{named}-{number}")));
    let taken = |name: &String| rules.iter().any(|rule| rule.name == *name);
    Some(Rule {
        name: free.into_iter().find(|name| !taken(name))?,
        verb: Verb::Deny,
        mode: if enforced { Mode::Enforce } else { first.mode },
        reaction: Reaction::Deny,
        disarm: None,
        matches: vec![Match::Named(NamedRule::find(named)?)],
        posture: true,
    })
}

pub(crate) fn named_rule(word: &str) -> Value<&'static NamedRule> {
    NamedRule::find(word).ok_or_else(|| {
        let known = NAMED.iter().map(|rule| rule.name);
        let hint = suggestion(word, known, "docs/policy.md has the list");
        format!("unknown rule {}; {hint}", quote(word))
    })
}

/// A name of `deny` or `allow`: a rule with the policy's mode.
fn bare(named: &'static NamedRule, verb: Verb, mode: Mode, at: usize) -> Draft {
    Draft {
        rule: Rule {
            name: named.name.to_owned(),
            verb,
            mode,
            reaction: Reaction::Deny,
            disarm: None,
            matches: vec![Match::Named(named)],
            posture: false,
        },
        at,
        places: vec![at],
    }
}

fn rules(
    value: &Spanned<DeValue<'_>>,
    at: usize,
    mode: Mode,
    drafts: &mut Vec<Draft>,
    sink: &mut Sink<'_>,
) {
    let Some(array) = value.get_ref().as_array() else {
        sink.add(
            at,
            format!(
                "'rule' is {}; write each rule below a line [[rule]]",
                kind(value.get_ref())
            ),
        );
        return;
    };
    let mut statements = drafts.len();
    for (index, value) in array.iter().enumerate() {
        let at = value.span().start;
        if index == MAX_RULES {
            sink.add(
                at,
                format!("more than {MAX_RULES} rules; divide the file into several policies"),
            );
            return;
        }
        let Some(table) = value.get_ref().as_table() else {
            sink.add(
                at,
                format!(
                    "rule {} is {}; write each rule below a line [[rule]]",
                    index + 1,
                    kind(value.get_ref())
                ),
            );
            continue;
        };
        let Some(draft) = rule::read(table, at, index, mode, sink) else {
            continue;
        };
        statements += draft.rule.matches.len();
        if statements > MAX_STATEMENTS {
            sink.add(
                at,
                format!(
                    "the rules name more than {MAX_STATEMENTS} things; divide the file into several policies"
                ),
            );
            return;
        }
        drafts.push(draft);
    }
}

/// `[default]`: a rule for each family that is denied.
fn posture(
    table: &DeTable<'_>,
    at: usize,
    mode: Mode,
    drafts: &mut Vec<Draft>,
    sink: &mut Sink<'_>,
) {
    let fields = Fields::of(table, &FAMILIES, "[default]", sink);
    if table.is_empty() {
        sink.add(
            at,
            "[default] is empty; leave it out or name network, exec or files",
        );
    }
    for field in fields.iter() {
        let words = |text: &str| one_of("posture", text, &VERBS);
        if fields.string(field.key, sink, words) != Some(Verb::Deny) {
            continue;
        }
        let path = |operations| {
            let path = "/".to_owned();
            vec![Match::Path(PathRule { path, operations })]
        };
        let matches = match field.key {
            "network" => everywhere().map(Match::Network).to_vec(),
            "exec" => path(operation::EXEC),
            _ => path(operation::FILES),
        };
        drafts.push(Draft {
            places: vec![field.at; matches.len()],
            rule: Rule {
                name: format!("default-{}", field.key),
                verb: Verb::Deny,
                mode,
                reaction: Reaction::Deny,
                disarm: None,
                matches,
                posture: true,
            },
            at: field.at,
        });
    }
}

/// Every address, port, protocol and direction.
pub(crate) fn everywhere() -> [Network; 2] {
    [[0; 4].into(), [0; 16].into()].map(|address| Network {
        net: Cidr { address, bits: 0 },
        ports: (0, u16::MAX),
        protocols: protocol::ALL,
        directions: direction::ALL,
    })
}
