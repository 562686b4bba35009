//! A name in docker's grammar: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
//!
//! `oci_client` reads it by a regular expression, which takes some 50 ms to build, for each
//! `paddock run IMAGE`. The grammar is that of
//! <https://github.com/distribution/reference/blob/main/reference.go>, and what both say is
//! compared below.

use oci_client::Reference;

const HUB: &str = "docker.io";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
const NO_NAME: &str = "expected a name like alpine, alpine:3 or registry.example:5000/me/box";

/// What it names, or what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("expected a tag of letters, digits, '_', '.' and '-' after the colon");
    }
    if digest.is_some_and(|digest| digest.parse::<crate::Digest>().is_err()) {
        return Err("its digest is no sha256 digest");
    }
    let (registry, repository) = split(name)?;
    if repository.len() > NAME_MAX {
        return Err("too long for the name of an image");
    }
    let digest = digest.map(str::to_owned);
    Ok(match (tag.map(str::to_owned), digest) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag, digest)
        }
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (tag, None) => {
            let tag = tag.unwrap_or_else(|| "latest".to_owned());
            Reference::with_tag(registry, repository, tag)
        }
    })
}

/// Registry and repository; without the first it is the Hub, and its own images are in `library`.
fn split(name: &str) -> Result<(String, String), &'static str> {
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if may_be_host(host) => (Some(host), path),
        _ => (None, name),
    };
    if let Some(host) = host
        && !is_host(host)
        && !path_is_good(name)
    {
        return Err(NO_NAME);
    }
    if !path_is_good(path) {
        let shouts = path.bytes().any(|byte| byte.is_ascii_uppercase());
        return Err(if shouts && path_is_good(&path.to_ascii_lowercase()) {
            "the name of an image is in lower case"
        } else {
            NO_NAME
        });
    }
    let registry = host
        .filter(|&host| host != "index.docker.io")
        .unwrap_or(HUB);
    let own = registry == HUB && !path.contains('/');
    let repository = if own {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    Ok((registry.to_owned(), repository))
}

/// Upper case is no name's.
fn may_be_host(text: &str) -> bool {
    let shouts = text.bytes().any(|byte| byte.is_ascii_uppercase());
    shouts || text.contains(['.', ':']) || text == "localhost"
}

fn path_is_good(path: &str) -> bool {
    path.split('/').all(is_component)
}

/// `[a-z0-9]+` with `.`, `_`, `__` or dashes between.
fn is_component(text: &str) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut parts = text.as_bytes().chunk_by(|a, b| is_name(a) == is_name(b));
    let separates =
        |part: &[u8]| matches!(part, b"." | b"_" | b"__") || part.iter().all(|&byte| byte == b'-');
    let ends = [text.as_bytes().first(), text.as_bytes().last()];
    ends.iter().all(|end| end.is_some_and(is_name))
        && parts.all(|part| part.iter().all(is_name) || separates(part))
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label)
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_MAX
        && text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(text: &str) {
        let first = text.split_once('/').map_or("", |(first, _)| first);
        if first.contains(char::is_uppercase) && !first.contains(['.', ':']) {
            return;
        }
        let theirs = text.parse::<Reference>();
        match (parse(text), theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{text}"),
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("{text:?}: {ours:?}, oci_client: {theirs:?}"),
        }
    }

    #[test]
    fn short_ones_are_what_oci_client_says() {
        const LETTERS: &[u8] = b"aA1._-/:@";
        for length in 0..6_u32 {
            for number in 0..9_usize.pow(length) {
                let letter =
                    |place: u32| char::from(LETTERS[number / 9_usize.pow(place) % LETTERS.len()]);
                compare(&(0..length).map(letter).collect::<String>());
            }
        }
    }

    #[test]
    fn put_together_they_are_too() {
        let long = "a".repeat(128);
        let (longer, name) = (format!("{long}a"), "a".repeat(255));
        let path = format!("{name}/b");
        let digest = format!("sha256:{}", "0a".repeat(32));
        let short = format!("sha256:{}", "0a".repeat(16));
        let hosts = [
            "",
            "a/",
            "A/",
            "A.b/",
            "a.b/",
            "localhost/",
            "localhost:1/",
            "x-:1/",
            "-x.y/",
            "x..y/",
            "docker.io/",
            "index.docker.io/",
            "a:b/",
            "a:/",
            "a_b.c/",
            "a.b:80/c/",
            "a/b/",
            "//",
        ];
        let names = [
            "x",
            "x__y",
            "x___y",
            "x--y",
            "x-_y",
            "x.y",
            "x..y",
            "library/x",
            &name,
            &path,
            "X",
            "é",
        ];
        let tags = [
            "",
            ":1",
            ":1.0-a_b",
            ":.1",
            ":-",
            ":",
            ":a:b",
            &format!(":{long}"),
            &format!(":{longer}"),
        ]
        .map(str::to_owned);
        let digests = [
            "",
            "@",
            &format!("@{digest}"),
            &format!("@{digest}@{digest}"),
            &format!("@{short}"),
            "@sha256:",
        ]
        .map(str::to_owned);
        for host in hosts {
            for name in names {
                for tag in &tags {
                    for digest in &digests {
                        compare(&format!("{host}{name}{tag}{digest}"));
                    }
                }
            }
        }
    }

    /// Where it differs from docker: its `\w` is any script's, and a host in upper case one of the
    /// Hub's names, which has none such.
    #[test]
    fn docker_is_followed() {
        assert!("x:é".parse::<Reference>().is_ok() && parse("x:é").is_err());
        assert_eq!(
            parse("Host/x").map(|name| name.whole()),
            Ok("Host/x:latest".into())
        );
        assert!(parse("Ho_st/x").is_err());
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(parse("Alpine").unwrap_err().contains("lower case"));
        assert!(parse("alpine:").unwrap_err().contains("tag"));
        assert!(parse("alpine@sha256:12").unwrap_err().contains("digest"));
        assert!(parse("../x").unwrap_err().contains("name like"));
    }
}
