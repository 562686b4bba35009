//! Ids and names: random ids, docker's alphabet for names, and names for those who give none.

use std::{fs::File, io, io::Read as _};

const LONGEST: usize = 128;

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brave", "brisk", "calm", "clever", "deft", "eager", "fair", "fleet",
    "gentle", "glad", "hardy", "jolly", "keen", "kind", "lively", "lucid", "merry", "mild",
    "nimble", "plucky", "proud", "quick", "quiet", "shy", "sly", "snug", "spry", "steady", "tidy",
    "wry",
];

const ANIMALS: [&str; 32] = [
    "alpaca", "badger", "beaver", "bison", "colt", "crane", "dingo", "donkey", "egret", "falcon",
    "ferret", "finch", "gazelle", "goat", "hare", "heron", "ibex", "jackal", "kestrel", "lemur",
    "lynx", "marten", "mule", "ocelot", "otter", "panda", "pony", "raven", "seal", "stork",
    "tapir", "yak",
];

/// 64 hex digits from the kernel's generator.
pub(crate) fn random_id() -> io::Result<String> {
    Ok(hex(&random::<32>()?))
}

/// Two words, docker's way; a number behind when `taken` says that they are in use.
pub(crate) fn random_name(taken: impl Fn(&str) -> bool) -> io::Result<String> {
    let [first, second] = random::<2>()?;
    let word = |list: [&'static str; 32], byte: u8| list[usize::from(byte) % list.len()];
    let name = format!("{}_{}", word(ADJECTIVES, first), word(ANIMALS, second));
    Ok(unused(&name, "_", taken))
}

/// `name`, or with the first free number behind it.
pub(crate) fn unused(name: &str, separator: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut candidate = name.to_owned();
    let mut number = 1u64;
    while taken(&candidate) {
        number += 1;
        candidate = format!("{name}{separator}{number}");
    }
    candidate
}

/// Docker's rule: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 128 characters.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    first && rest && name.len() <= LONGEST
}

/// Any text as a valid name: what a cgroup's path has to offer.
pub(crate) fn sanitised(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "_.-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(LONGEST)
        .collect();
    if kept.is_empty() {
        "container".to_owned()
    } else {
        kept
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["a", "0", "web-1_x.y", "A".repeat(128).as_str()] {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "_a",
            "a b",
            "a/b",
            "ä",
            "a\n",
            "A".repeat(129).as_str(),
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_made_up_is_valid_and_free() {
        let first = random_name(|_| false).unwrap();
        assert!(is_valid(&first), "{first}");
        assert_eq!(unused("a", "-", |name| ["a", "a-2"].contains(&name)), "a-3");
        for text in ["", "///", "..x", "user@1000.service", &"é".repeat(200)] {
            assert!(is_valid(&sanitised(text)), "{text}");
        }
    }

    #[test]
    fn ids_are_64_hex_digits() {
        let id = random_id().unwrap();
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
        assert_ne!(id, random_id().unwrap());
    }
}
