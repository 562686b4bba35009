//! Values of `run`'s flags, checked before anything is made. Errors say what is accepted.

use std::path::{Path, PathBuf, absolute};

use paddock_agent::api::{NamespaceMode, Volume};
use paddock_images::Reference;
use paddock_runtime::{defaults, spec::Rlimit};

/// Whose namespace.
pub(crate) fn whose(text: &str) -> Result<NamespaceMode, String> {
    match text.split_once(':') {
        None if text == "private" => Ok(NamespaceMode::Private),
        None if text == "host" => Ok(NamespaceMode::Host),
        Some(("container", name)) if !name.is_empty() => {
            Ok(NamespaceMode::Container(name.to_owned()))
        }
        _ => Err("expected private, host or container:NAME".to_owned()),
    }
}

/// `none` is docker's word for a private one with only loopback, which is all there is now.
pub(crate) fn network(text: &str) -> Result<NamespaceMode, String> {
    match text {
        "none" => Ok(NamespaceMode::Private),
        text => {
            whose(text).map_err(|_| "expected private, none, host or container:NAME".to_owned())
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// As the user typed it.
    pub(crate) typed: String,
    pub(crate) from: From,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Host,
    Directory(PathBuf),
    /// An image: in the store, to be pulled, or by its id.
    Image(Reference),
}

/// Whether an image is fetched though one of its name is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fetch {
    Always,
    #[default]
    Missing,
    Never,
}

/// `host`, a directory by a path that starts with `/` or `.`, or an image's name.
pub(crate) fn image(text: &str) -> Result<Image, String> {
    let from = match text {
        "host" => From::Host,
        path if path.starts_with(['/', '.']) => {
            let path = Path::new(path)
                .canonicalize()
                .map_err(|error| format!("no root file system there: {error}"))?;
            if !path.is_dir() {
                return Err(
                    "not a directory: give 'host' or the path of a root file system".to_owned(),
                );
            }
            From::Directory(path)
        }
        name => From::Image(
            name.parse()
                .map_err(|error: paddock_images::Error| error.to_string())?,
        ),
    };
    Ok(Image {
        typed: text.to_owned(),
        from,
    })
}

/// `SOURCE:TARGET[:ro|:rw]`.
pub(crate) fn volume(text: &str) -> Result<Volume, String> {
    let (source, target, read_only) = match text.split(':').collect::<Vec<_>>()[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err("expected SOURCE:TARGET or SOURCE:TARGET:ro".to_owned()),
    };
    if !source.starts_with(['/', '.']) {
        return Err("SOURCE is a path starting with / or .: there are no named volumes".to_owned());
    }
    if !target.starts_with('/')
        || target.split('/').any(|part| part == "..")
        || target.trim_matches('/').is_empty()
    {
        return Err("TARGET is an absolute path inside, below / and without '..'".to_owned());
    }
    let source = absolute(source).map_err(|error| format!("SOURCE: {error}"))?;
    match source.try_exists() {
        Ok(true) => Ok(Volume {
            source,
            target: PathBuf::from(target),
            read_only,
        }),
        Ok(false) => Err(format!("{} is not there", source.display())),
        Err(error) => Err(format!("{}: {error}", source.display())),
    }
}

/// `nofile=1024:4096`; the name as in getrlimit(2), without `RLIMIT_`. -1 is unlimited.
pub(crate) fn ulimit(text: &str) -> Result<Rlimit, String> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, values) = text.split_once('=').ok_or("expected NAME=SOFT[:HARD]")?;
    let lower = name.to_ascii_lowercase();
    let short = lower.strip_prefix("rlimit_").unwrap_or(&lower);
    if !NAMES.contains(&short) {
        return Err(format!("NAME is one of {}", NAMES.join(", ")));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text
            .parse::<u64>()
            .map_err(|_| format!("'{text}' is no number (-1 is unlimited)")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err("the soft limit is above the hard one".to_owned());
    }
    Ok(Rlimit {
        name: format!("RLIMIT_{}", short.to_ascii_uppercase()),
        soft,
        hard,
    })
}

pub(crate) fn capability(text: &str) -> Result<String, String> {
    if !text.eq_ignore_ascii_case("all") {
        defaults::capability(text).map_err(|error| format!("{error}; see capabilities(7)"))?;
    }
    Ok(text.to_owned())
}

/// `no-new-privileges`, with `=` or `:` and a value.
pub(crate) fn no_new_privileges(text: &str) -> Result<bool, String> {
    let value = text
        .strip_prefix("no-new-privileges")
        .map(|rest| rest.trim_start_matches(['=', ':']));
    match value {
        Some("" | "true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err("accepted now: no-new-privileges[=true|=false]".to_owned()),
    }
}

pub(crate) fn hostname(text: &str) -> Result<String, String> {
    // The kernel's __NEW_UTS_LEN.
    if (1..=64).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == '/') {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 64 characters".to_owned())
}

/// `KEY` or `KEY=VALUE`.
pub(crate) fn variable(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') || text.contains('\0') {
        return Err("expected KEY or KEY=VALUE".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) fn workdir(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("expected an absolute path inside".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_host_a_directory_or_named() {
        assert_eq!(image("host").unwrap().from, From::Host);
        assert_eq!(
            image("/tmp/../tmp").unwrap().from,
            From::Directory("/tmp".into())
        );
        assert!(image("./").is_ok());
        for name in [
            "alpine",
            "oci:x",
            "localhost:5000/x@sha256:",
            "0123456789ab",
        ] {
            let is_image = |image: Image| matches!(image.from, From::Image(_));
            assert_eq!(
                image(name).is_ok_and(is_image),
                !name.ends_with(':'),
                "{name}"
            );
        }
        for wrong in ["NOT A NAME", "", "/etc/passwd", "/nowhere-at-all", "oci:"] {
            assert!(image(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn volumes_stay_inside() {
        assert!(
            !volume("/tmp:/mnt").unwrap().read_only && volume("/tmp:/mnt:ro").unwrap().read_only
        );
        for wrong in [
            "/tmp",
            "/tmp:mnt",
            "/tmp:/",
            "/tmp:/a/../..",
            "/tmp:/a:rx",
            "tmp:/a",
            "/tmp:/a:ro:x",
        ] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ulimits() {
        let limit = |name: &str, soft, hard| {
            Ok(Rlimit {
                name: name.into(),
                soft,
                hard,
            })
        };
        assert_eq!(
            ulimit("nofile=1024:4096"),
            limit("RLIMIT_NOFILE", 1024, 4096)
        );
        assert_eq!(ulimit("RLIMIT_CORE=0"), limit("RLIMIT_CORE", 0, 0));
        assert_eq!(
            ulimit("stack=-1"),
            limit("RLIMIT_STACK", u64::MAX, u64::MAX)
        );
        for wrong in ["nofile", "nofile=", "nofiles=1", "nofile=2:1", "nofile=x"] {
            assert!(ulimit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn security_options() {
        for (text, value) in [
            ("no-new-privileges", true),
            ("no-new-privileges:true", true),
            ("no-new-privileges=false", false),
        ] {
            assert_eq!(no_new_privileges(text), Ok(value), "{text}");
        }
        assert!(no_new_privileges("no-new-privileges=maybe").is_err());
    }
}
