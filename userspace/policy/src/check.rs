//! What statements of one file say beside each other: twice, against each other, or in vain.

use std::collections::{HashMap, HashSet};

use crate::{
    fault::Sink,
    model::{Match, Rule, Verb, operation},
    nested::{self, Nested},
    read::Draft,
    scope::{Order, Scope, same_end},
};

/// One reach of one statement.
#[derive(Debug)]
struct Statement<'d> {
    rule: &'d Rule,
    scope: Scope<'d>,
    at: usize,
    /// A name stands for itself, also where a wider one is denied: the denial is told by it.
    named: bool,
}

impl Statement<'_> {
    fn order(&self, other: &Self) -> Order {
        let order = self.scope.order(&other.scope);
        match (order, self.rule.posture, other.rule.posture) {
            (Order::Apart, ..) => Order::Apart,
            (_, true, false) => Order::Wider,
            (_, false, true) => Order::Narrower,
            _ => order,
        }
    }
}

pub(crate) fn all(drafts: &[Draft], sink: &mut Sink<'_>) {
    if drafts.is_empty() {
        sink.add(
            0,
            "the policy forbids nothing; add deny = […], a [[rule]] or [default]",
        );
        return;
    }
    names(drafts, sink);
    // From here on a named rule is there once.
    if !sink.is_empty() {
        return;
    }
    let statements: Vec<Statement<'_>> = drafts.iter().flat_map(statements).collect();
    let meeting = Meeting::of(&statements);
    for (index, statement) in statements.iter().enumerate() {
        if sink.is_full() {
            return;
        }
        if let Some(message) = beside(index, &statements, &meeting, sink) {
            sink.add(statement.at, message);
        }
    }
    vain_allows(&statements, &meeting, sink);
    closed(drafts, &statements, sink);
}

fn statements(draft: &Draft) -> impl Iterator<Item = Statement<'_>> {
    let pairs = draft.rule.matches.iter().zip(&draft.places);
    pairs.map(|(matched, at)| Statement {
        rule: &draft.rule,
        scope: matched.into(),
        at: *at,
        named: matches!(matched, Match::Named(_)),
    })
}

/// Who may hold for something that another holds for: among a thousand nets few pairs do.
#[derive(Debug)]
struct Meeting {
    nested: Nested,
    /// All that do not nest.
    rest: Vec<usize>,
}

impl Meeting {
    fn of(statements: &[Statement<'_>]) -> Self {
        let (mut keys, mut rest) = (Vec::new(), Vec::new());
        for (index, statement) in statements.iter().enumerate() {
            match nested::key(&statement.scope) {
                Some(key) => keys.push((index, key)),
                None => rest.push(index),
            }
        }
        Self {
            nested: Nested::of(keys),
            rest,
        }
    }

    /// In the order of the file.
    fn others(&self, index: usize) -> impl Iterator<Item = usize> {
        let all = self.nested.meeting(index);
        let all = all.unwrap_or_else(|| self.rest.clone());
        all.into_iter().filter(move |other| *other != index)
    }
}

/// Denials are counted by the name of their rule, and a named rule is denied or allowed once.
fn names(drafts: &[Draft], sink: &mut Sink<'_>) {
    let mut rules = HashMap::new();
    let mut acts = HashMap::new();
    for draft in drafts {
        let verb = draft.rule.verb;
        let mut twice = false;
        for (matched, at) in draft.rule.matches.iter().zip(&draft.places) {
            let Match::Named(named) = matched else {
                continue;
            };
            let Some((first, first_at)) = acts.insert(named.name, (verb, *at)) else {
                continue;
            };
            twice = true;
            let (line, _) = sink.place(first_at);
            let message = if first == verb {
                format!(
                    "'{}' is {} in line {line} already; leave one of the two out",
                    named.name,
                    done(verb)
                )
            } else {
                format!(
                    "'{}' is {} here and {} in line {line}; keep one of the two",
                    named.name,
                    done(verb),
                    done(first)
                )
            };
            sink.add(*at, message);
        }
        if let Some(first) = rules.insert(&draft.rule.name, draft.at)
            && !twice
        {
            let (line, _) = sink.place(first);
            sink.add(
                draft.at,
                format!(
                    "a second rule '{}', the first is in line {line}; give one of them another name",
                    draft.rule.name
                ),
            );
        }
        if sink.is_full() {
            return;
        }
    }
}

/// What is wrong with a statement beside the others, told at the later of two.
fn beside(
    index: usize,
    all: &[Statement<'_>],
    meeting: &Meeting,
    sink: &Sink<'_>,
) -> Option<String> {
    let statement = all.get(index)?;
    let mut shadow: Option<&Statement<'_>> = None;
    for number in meeting.others(index) {
        let other = all.get(number)?;
        let order = statement.order(other);
        let line = || sink.place(other.at).0;
        // Several of one list may share a place.
        let later = (other.at, number) < (statement.at, index);
        let covered = order != Order::Apart && other.scope.covers(&statement.scope);
        if order == Order::Level && other.rule.verb != statement.rule.verb && later {
            return Some(format!(
                "{} here and {} in line {}, and neither is the more specific; keep one of the two",
                done(statement.rule.verb),
                done(other.rule.verb),
                line()
            ));
        }
        let same = covered && statement.scope.covers(&other.scope) && order == Order::Level;
        if same && later {
            return Some(format!(
                "{} in line {} already; leave one of the two out",
                done(other.rule.verb),
                line()
            ));
        }
        if covered && !same && !statement.named && same_end(other.rule, statement.rule) {
            let narrowest = shadow.is_none_or(|shadow| other.order(shadow) == Order::Narrower);
            if narrowest {
                shadow = Some(other);
            }
        }
    }
    let shadow = shadow?;
    // Something between the two may say otherwise, and then this one is not in vain.
    let between = |other: &Statement<'_>| {
        !same_end(other.rule, statement.rule)
            && !matches!(statement.order(other), Order::Apart | Order::Wider)
            && other.order(shadow) != Order::Wider
    };
    let mut others = meeting.others(index).filter_map(|other| all.get(other));
    if others.any(between) {
        return None;
    }
    let (line, _) = sink.place(shadow.at);
    Some(format!(
        "{} by line {line} already, which is wider and ends the same; leave this one out",
        done(statement.rule.verb)
    ))
}

const fn done(verb: Verb) -> &'static str {
    match verb {
        Verb::Allow => "allowed",
        Verb::Deny => "denied",
    }
}

/// An allow is an exception of something.
fn vain_allows(statements: &[Statement<'_>], meeting: &Meeting, sink: &mut Sink<'_>) {
    // What goes with rules by path is denied by nothing that stands there.
    let by_path = |other: &Statement<'_>| {
        matches!(other.scope, Scope::Path { .. }) && other.rule.verb == Verb::Deny
    };
    let any_by_path = statements.iter().any(by_path);
    let goes_along = |allow: &Statement<'_>| {
        any_by_path
            && matches!(allow.scope, Scope::Acts(named)
                if ["mount", "fileless-exec"].contains(&named.name))
    };
    let needed = |index: usize, allow: &Statement<'_>| {
        let others = meeting
            .others(index)
            .filter_map(|other| statements.get(other));
        let mut denials = others.filter(|other| other.rule.verb == Verb::Deny);
        denials.any(|denial| !matches!(allow.order(denial), Order::Apart | Order::Wider))
    };
    let allows = |statement: &Statement<'_>| statement.rule.verb == Verb::Allow;
    // Of a name with several reaches one is enough.
    let in_use: HashSet<usize> = statements
        .iter()
        .enumerate()
        .filter(|(index, statement)| allows(statement) && needed(*index, statement))
        .map(|(_, statement)| statement.at)
        .collect();
    for allow in statements.iter().filter(|statement| allows(statement)) {
        if matches!(allow.scope, Scope::Path { .. }) && allow.named
            || goes_along(allow)
            || in_use.contains(&allow.at)
        {
            continue;
        }
        sink.add(
            allow.at,
            "allows what nothing in this file denies, and lifts no other file's denial; leave it out",
        );
    }
}

/// A posture that leaves nothing to run would stop every container.
fn closed(drafts: &[Draft], statements: &[Statement<'_>], sink: &mut Sink<'_>) {
    for draft in drafts.iter().filter(|draft| draft.rule.posture) {
        let Some(Match::Path(posture)) = draft.rule.matches.first() else {
            continue;
        };
        let opened = |statement: &Statement<'_>| match statement.scope {
            Scope::Path { operations, .. } => {
                statement.rule.verb == Verb::Allow && operations & posture.operations != 0
            }
            _ => false,
        };
        if statements.iter().any(opened) {
            continue;
        }
        let what = if posture.operations == operation::EXEC {
            "no program could be started; allow some by a rule with exec"
        } else {
            "no file could be opened; allow some by a rule with file"
        };
        sink.add(
            draft.at,
            format!("denied by default and nothing allowed: {what}"),
        );
    }
}
