//! Users as people name them: numbers, or names of the container's own /etc/passwd and /etc/group.
//!
//! Parsing is strict: runtimes have been made to run a program as root by a number that did not
//! fit (CVE-2026-30892). What is all digits is a number and must be an id; all else is a name.
#![forbid(unsafe_code)]

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// To be looked up by the monitor below the container's root, never in the host's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// [`Wanted`]'s notation.
    pub user: String,
    /// More groups, by name or number.
    pub groups: Vec<String>,
    /// `HOME` in the environment is a default, which the user's own replaces.
    pub default_home: bool,
    /// What a user who is not root gets as ambient capabilities.
    pub capabilities: Vec<String>,
}

/// `UID[:GID]`, `NAME[:GROUP]` or a mixture of them, docker's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub user: Reference,
    pub group: Option<Reference>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Id(u32),
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}")]
pub struct InvalidAccount {
    pub text: String,
    pub reason: &'static str,
}

/// useradd(8) allows 32.
const LONGEST_NAME: usize = 256;

impl FromStr for Wanted {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let whole = |error| InvalidAccount {
            text: text.to_owned(),
            ..error
        };
        Ok(Self {
            user: user.parse().map_err(whole)?,
            group: group.map(str::parse).transpose().map_err(whole)?,
        })
    }
}

impl FromStr for Reference {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let refused = |reason| InvalidAccount {
            text: text.chars().take(LONGEST_NAME).collect(),
            reason,
        };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return id(text)
                .map(Self::Id)
                .ok_or_else(|| refused("an id is a number from 0 to 4294967294"));
        }
        let first = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let valid = text.len() <= LONGEST_NAME
            && text.starts_with(first)
            && text.chars().all(|c| first(c) || "-@$".contains(c));
        if valid {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(refused(
                "expected UID[:GID] or NAME[:GROUP], without signs, spaces or empty parts",
            ))
        }
    }
}

/// Digits only. The last number means "no change" to the kernel and is nobody's.
pub fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten()?;
    (number != u32::MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_mix() {
        let wanted = |text: &str| text.parse::<Wanted>();
        let name = |name: &str| Reference::Name(name.to_owned());
        let parsed = |user, group| Ok(Wanted { user, group });
        assert_eq!(wanted("1000"), parsed(Reference::Id(1000), None));
        assert_eq!(
            wanted("0:0"),
            parsed(Reference::Id(0), Some(Reference::Id(0)))
        );
        assert_eq!(
            wanted("www-data:50"),
            parsed(name("www-data"), Some(Reference::Id(50)))
        );
        // No number, so a name: it has to be in the container's file.
        assert_eq!(wanted("1e3"), parsed(name("1e3"), None));
        assert_eq!(
            wanted("4294967294"),
            parsed(Reference::Id(4_294_967_294), None)
        );
    }

    #[test]
    fn nothing_else_is_a_user() {
        for text in [
            "",
            ":",
            ":0",
            "0:",
            "-1",
            "+5",
            " 5",
            "5 ",
            "1:2:3",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "root\n",
            "a b",
            "a/b",
            "0:-1",
            "\0",
        ] {
            assert!(text.parse::<Wanted>().is_err(), "{text:?}");
        }
    }
}
