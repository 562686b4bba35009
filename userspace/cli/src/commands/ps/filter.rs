//! `ps --filter KEY=VALUE`, docker's: of one key any value does, of different keys all must hold.

use paddock_agent::api::{ContainerSummary, State};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// A part of it, from its start with `^`, to its end with `$`.
    Name(String),
    /// How it begins.
    Id(String),
    Status(State),
    /// With a value, that value.
    Label(String, Option<String>),
    Exited(i32),
}

/// Every state, by the word that `--format json` has for it too.
const STATES: [(&str, State); 5] = [
    ("created", State::Created),
    ("running", State::Running),
    ("paused", State::Paused),
    ("restarting", State::Restarting),
    ("exited", State::Exited),
];

pub(super) fn parse(text: &str) -> Result<Filter, String> {
    const KEYS: &str = "name=, id=, status=, label= or exited=";
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("expected {KEYS}"));
    };
    if value.is_empty() {
        return Err(format!("{key}= wants a value"));
    }
    Ok(match key {
        "name" => Filter::Name(value.to_owned()),
        "id" => Filter::Id(value.to_ascii_lowercase()),
        "status" => {
            let known = STATES.iter().find(|(word, _)| *word == value);
            let words = STATES.map(|(word, _)| word).join(", ");
            Filter::Status(known.ok_or_else(|| format!("status is one of {words}"))?.1)
        }
        "label" => match value.split_once('=') {
            Some((label, value)) => Filter::Label(label.to_owned(), Some(value.to_owned())),
            None => Filter::Label(value.to_owned(), None),
        },
        "exited" => match value.parse() {
            Ok(code @ 0..=255) => Filter::Exited(code),
            _ => return Err("exited is an exit code, 0 to 255".to_owned()),
        },
        _ => return Err(format!("no such key: expected {KEYS}")),
    })
}

impl Filter {
    /// Asks for containers that may have ended: they count without `-a`.
    pub(super) fn wants_all(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Exited(_))
    }

    fn holds(&self, container: &ContainerSummary) -> bool {
        match self {
            Self::Name(part) => {
                let (part, first) = part
                    .strip_prefix('^')
                    .map_or((&**part, false), |p| (p, true));
                let (part, last) = part.strip_suffix('$').map_or((part, false), |p| (p, true));
                match (first, last) {
                    (true, true) => container.name == part,
                    (true, false) => container.name.starts_with(part),
                    (false, true) => container.name.ends_with(part),
                    (false, false) => container.name.contains(part),
                }
            }
            Self::Id(start) => container.id.starts_with(start),
            Self::Status(state) => container.state == *state,
            Self::Label(label, value) => container.labels.iter().any(|(found, its)| {
                found == label && value.as_ref().is_none_or(|value| value == its)
            }),
            Self::Exited(code) => {
                container.state == State::Exited && container.exit_code == Some(*code)
            }
        }
    }
}

pub(super) fn all_hold(filters: &[Filter], container: &ContainerSummary) -> bool {
    let same_key =
        |one: &Filter, other: &Filter| std::mem::discriminant(one) == std::mem::discriminant(other);
    filters.iter().all(|filter| {
        let mut alternatives = filters.iter().filter(|other| same_key(filter, other));
        // Docker's exception: of labels each must be there.
        if matches!(filter, Filter::Label(..)) {
            filter.holds(container)
        } else {
            alternatives.any(|one| one.holds(container))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::ps::tests::container;
    use paddock_agent::api::Origin;

    fn shown(words: &[&str]) -> bool {
        let filters: Vec<_> = words.iter().map(|word| parse(word).unwrap()).collect();
        let mut one = container(State::Exited, Origin::Launched);
        one.name = "web-1".into();
        one.exit_code = Some(3);
        one.labels = vec![
            ("tier".into(), "front".into()),
            ("alone".into(), String::new()),
        ];
        all_hold(&filters, &one)
    }

    #[test]
    fn one_key_is_any_and_different_keys_are_all() {
        for (words, want) in [
            (&[][..], true),
            (&["name=web"], true),
            (&["name=eb-"], true),
            (&["name=^eb"], false),
            (&["name=^web-1$"], true),
            (&["name=web$"], false),
            (&["name=db", "name=web"], true),
            (&["name=db", "status=exited"], false),
            (&["status=running", "status=exited", "name=web"], true),
            (&["exited=3"], true),
            (&["exited=4"], false),
            (&["id=ab12a"], true),
            (&["id=b12"], false),
            (&["label=tier"], true),
            (&["label=tier=front", "label=alone"], true),
            (&["label=tier=front", "label=none"], false),
            (&["label=tier=fro"], false),
        ] {
            assert_eq!(shown(words), want, "{words:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_said() {
        for (text, says) in [
            ("web", "name="),
            ("colour=red", "no such key"),
            ("status=dead", "created, running"),
            ("status=", "wants a value"),
            ("exited=x", "0 to 255"),
            ("exited=256", "0 to 255"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
