//! Reads one file: TOML, every key known, each value taken by its flag. What is wrong is one line
//! a fault, with its place; nothing of such a file is used.

use std::{io, path::Path};

use clap::CommandFactory as _;
use paddock_agent::trusted;
use paddock_policy::{Fault, Faults, place, printable, quote, suggestion};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::keys::{KEYS, Key, Kind};
use crate::{args::Args, human};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}: {source}")]
    Read {
        path: String,
        source: trusted::Error,
    },
    #[error("{path}: is not UTF-8")]
    Text { path: String },
    #[error("{}", .0.trim_end())]
    Wrong(String),
}

/// One setting of a file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: &'static Key,
    /// As the flag is given, several for a list; none for an empty one.
    pub(crate) values: Vec<String>,
    /// `FILE:LINE`.
    pub(crate) place: String,
}

/// `None` where no such file is.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<Entry>>, Error> {
    let name = printable(&path.display().to_string());
    let bytes = match trusted::read(path) {
        Ok(content) => content.bytes,
        Err(trusted::Error::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(source) => return Err(Error::Read { path: name, source }),
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(Error::Text { path: name });
    };
    parse(&name, &text)
        .map(Some)
        .map_err(|faults| Error::Wrong(faults.lines(&name)))
}

fn parse(name: &str, text: &str) -> Result<Vec<Entry>, Faults> {
    let root = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let what = human::single_line(error.message());
        Faults(vec![fault(text, at, &what)])
    })?;
    let mut entries = Vec::new();
    let mut faults = Vec::new();
    for (word, value) in root.into_inner() {
        let tables = KEYS.iter().map(|key| key.table);
        if !tables.clone().any(|table| table == word.get_ref().as_ref()) {
            let mut tables: Vec<_> = tables.collect();
            tables.dedup();
            let at = word.span().start;
            faults.push(unknown(text, at, word.get_ref(), "the file", &tables));
            continue;
        }
        let at = value.span().start;
        let DeValue::Table(table) = value.into_inner() else {
            let what = format!(
                "{} is a table: write [{}]",
                quote(word.get_ref()),
                word.get_ref()
            );
            faults.push(fault(text, at, &what));
            continue;
        };
        for (inner, value) in table {
            match entry(name, text, word.get_ref(), &inner, &value) {
                Ok(entry) => entries.push(entry),
                Err(wrong) => faults.push(wrong),
            }
        }
    }
    if faults.is_empty() {
        return Ok(entries);
    }
    faults.sort_by_key(|fault| (fault.line, fault.column));
    Err(Faults(faults))
}

type Word<'t> = Spanned<std::borrow::Cow<'t, str>>;

fn entry(
    name: &str,
    text: &str,
    table: &str,
    word: &Word<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Entry, Fault> {
    let mut known = KEYS.iter().filter(|key| key.table == table);
    let Some(key) = known.clone().find(|key| key.name == word.get_ref()) else {
        let names: Vec<_> = known.by_ref().map(|key| key.name).collect();
        let within = format!("[{table}]");
        return Err(unknown(
            text,
            word.span().start,
            word.get_ref(),
            &within,
            &names,
        ));
    };
    let at = value.span().start;
    let values = values(key, value.get_ref()).ok_or_else(|| {
        let what = format!("{} takes {}", quote(key.name), key.kind.words());
        fault(text, at, &what)
    })?;
    for value in &values {
        taken(key, value).map_err(|what| fault(text, at, &what))?;
    }
    Ok(Entry {
        key,
        values,
        place: format!("{name}:{}", place(text, word.span().start).0),
    })
}

fn values(key: &Key, value: &DeValue<'_>) -> Option<Vec<String>> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        _ => None,
    };
    Some(match (key.kind, value) {
        (Kind::Text, value) => vec![text(value)?],
        (Kind::Number, DeValue::Integer(number)) => {
            // Hexadecimal digits and underscores are TOML's own.
            let digits = number.as_str().replace('_', "");
            vec![
                i64::from_str_radix(&digits, number.radix())
                    .ok()?
                    .to_string(),
            ]
        }
        (Kind::Switch, DeValue::Boolean(on)) => vec![on.to_string()],
        (Kind::Each | Kind::Path, DeValue::Array(items)) => {
            let items: Option<Vec<String>> =
                items.iter().map(|item| text(item.get_ref())).collect();
            match key.kind {
                Kind::Each => items?,
                _ => vec![items?.join(":")],
            }
        }
        _ => return None,
    })
}

/// The flag's own check.
fn taken(key: &Key, value: &str) -> Result<(), String> {
    let words = ["paddock".into(), "agent".into(), flag(key, value)];
    let Err(error) = Args::command().try_get_matches_from(words) else {
        return Ok(());
    };
    // `invalid value 'V' for '--flag <F>': why`, of which the flag is not what was written.
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let why = line.split_once(">': ").map(|(_, why)| why);
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    Err(format!(
        "{} is no value for '{}'{why}",
        quote(value),
        key.name
    ))
}

/// As a word of the command line.
pub(super) fn flag(key: &Key, value: &str) -> String {
    let command =
        <crate::commands::agent::Agent as clap::Args>::augment_args(clap::Command::new(""));
    let arg = command.get_arguments().find(|arg| arg.get_id() == key.arg);
    let long = arg.and_then(clap::Arg::get_long).unwrap_or(key.arg);
    format!("--{long}={value}")
}

fn unknown(text: &str, at: usize, word: &str, within: &str, known: &[&str]) -> Fault {
    let hint = suggestion(word, known.iter().copied(), "see: paddock config default");
    fault(
        text,
        at,
        &format!("unknown key {} in {within}; {hint}", quote(word)),
    )
}

fn fault(text: &str, at: usize, message: &str) -> Fault {
    let (line, column) = place(text, at);
    Fault {
        line,
        column,
        message: printable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_flags() {
        let text = "[agent]\ntrack = [\"/a*\", \"/b\"]\nrequire_probe = true\n\n[events]\nrate = 5_00\n\n[cni]\npath = [\"/x\", \"/y\"]\n";
        let entries = parse("f", text).unwrap();
        let mut said: Vec<_> = entries
            .iter()
            .map(|entry| (entry.key.name, entry.values.join(" "), entry.place.as_str()))
            .collect();
        said.sort_unstable();
        assert_eq!(
            said,
            [
                ("path", "/x:/y".to_owned(), "f:9"),
                ("rate", "500".to_owned(), "f:6"),
                ("require_probe", "true".to_owned(), "f:3"),
                ("track", "/a* /b".to_owned(), "f:2"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let wrong = [
            (
                "[agnet]",
                "f:1:2: unknown key 'agnet' in the file; did you mean 'agent'?",
            ),
            (
                "[agent]\ngard = \"off\"",
                "f:2:1: unknown key 'gard' in [agent]; did you mean 'guard'?",
            ),
            ("agent = 3", "f:1:9: 'agent' is a table: write [agent]"),
            ("[agent]\nguard = true", "f:2:9: 'guard' takes a string"),
            (
                "[agent]\ntrack = \"/a\"",
                "f:2:9: 'track' takes an array of strings",
            ),
            (
                "[agent]\nrequire_probe = \"yes\"",
                "f:2:17: 'require_probe' takes true or false",
            ),
            (
                "[agent]\nguard = \"on\"",
                "f:2:9: 'on' is no value for 'guard': expected auto, off, audit, enforce or strict",
            ),
            (
                "[events]\nrate = -1",
                "f:2:8: '-1' is no value for 'rate': -1 is not in 0..=4294967295",
            ),
            (
                "[events]\nrate = 9_999_999_999",
                "f:2:8: '9999999999' is no value for 'rate': 9999999999 is not in 0..=4294967295",
            ),
            (
                "[web]\nlisten_address = \"localhost:1\"",
                "f:2:18: 'localhost:1' is no value for 'listen_address': expected an address and a port, such as 127.0.0.1:9750, or 'none'",
            ),
            ("[web", "f:1:5: unclosed table, expected `]`"),
            ("[web]\n[web]", "f:2:2: duplicate key"),
        ];
        for (text, told) in wrong {
            let faults = parse("f", text).unwrap_err();
            assert_eq!(faults.lines("f").trim_end(), told);
        }
    }

    #[test]
    fn all_faults_of_a_file_are_told() {
        let text = "[agent]\nguard = 1\nlgo = \"x\"\n";
        assert_eq!(parse("f", text).unwrap_err().0.len(), 2);
    }
}
