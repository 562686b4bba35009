//! Values of `run`'s flags, checked before anything is made. Errors say what is accepted.

use std::{
    fs::File,
    io::Read as _,
    net::IpAddr,
    path::{Path, PathBuf, absolute},
};

use paddock_agent::{
    api::{HostDevice, NamespaceMode, PortMapping, Seccomp, Volume, is_network, parse_port},
    mount::{self, Mounted},
};
use paddock_cgroups::{DeviceAccess, DeviceRule, parse};
use paddock_images::Reference as ImageName;
use paddock_runtime::{
    defaults,
    spec::{InvalidAccount, Reference, Rlimit, Wanted},
};

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

/// Where a container's packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Whose(NamespaceMode),
    /// Its own, put on a CNI network.
    Named(String),
}

/// `none` is docker's word for a private one with only loopback.
pub(crate) fn network(text: &str) -> Result<Network, String> {
    match whose(text) {
        Ok(mode) => Ok(Network::Whose(mode)),
        Err(_) if text == "none" => Ok(Network::Whose(NamespaceMode::Private)),
        Err(_) if is_network(text) => Ok(Network::Named(text.to_owned())),
        Err(_) => {
            Err("expected private, none, host, container:NAME or a CNI network's name".to_owned())
        }
    }
}

/// One `-p`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<PortMapping>);

pub(crate) fn ports(text: &str) -> Result<Ports, String> {
    parse_port(text).map(Ports)
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
    Image(ImageName),
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

/// Docker's notation, and a source that is there.
pub(crate) fn volume(text: &str) -> Result<Volume, String> {
    mount::volume(text).and_then(existing)
}

pub(crate) fn mounted(text: &str) -> Result<Mounted, String> {
    Ok(match mount::mount(text)? {
        Mounted::Volume(volume) => Mounted::Volume(existing(volume)?),
        tmpfs @ Mounted::Tmpfs(_) => tmpfs,
    })
}

fn existing(volume: Volume) -> Result<Volume, String> {
    let source = absolute(&volume.source).map_err(|error| format!("source: {error}"))?;
    match source.try_exists() {
        Ok(true) => Ok(Volume { source, ..volume }),
        Ok(false) => Err(format!("{} is not there", source.display())),
        Err(error) => Err(format!("{}: {error}", source.display())),
    }
}

/// `--log-opt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogOption {
    MaxSize(u64),
    MaxFile(u32),
}

/// `max-size=10m`, `max-file=3`.
pub(crate) fn log_option(text: &str) -> Result<LogOption, String> {
    match text.split_once('=') {
        Some(("max-size", size)) => match parse::size(size) {
            Ok(size) if size >= 64 << 10 => Ok(LogOption::MaxSize(size)),
            Ok(_) => Err("max-size is 64k or more".to_owned()),
            Err(error) => Err(format!("max-size: {}", error.reason)),
        },
        Some(("max-file", number)) => match number.parse() {
            Ok(number @ 1..=1000) => Ok(LogOption::MaxFile(number)),
            _ => Err("max-file is a number from 1 to 1000".to_owned()),
        },
        _ => Err("expected max-size=BYTES or max-file=NUMBER".to_owned()),
    }
}

/// `SOURCE[:TARGET[:rwm]]`; docker takes the access in the target's place too.
pub(crate) fn device(text: &str) -> Result<HostDevice, String> {
    const FORM: &str = "expected SOURCE[:TARGET[:rwm]]";
    let access = |text| DeviceAccess::parse(text).ok_or(FORM);
    let all = DeviceAccess::ALL;
    let (source, target, access) = match text.split(':').collect::<Vec<_>>()[..] {
        [source] => (source, source, all),
        [source, last] if last.starts_with('/') => (source, last, all),
        [source, last] => (source, source, access(last)?),
        [source, target, last] => (source, target, access(last)?),
        _ => return Err(FORM.to_owned()),
    };
    if !source.starts_with('/') || !target.starts_with("/dev/") {
        return Err("SOURCE is an absolute path, TARGET one below /dev".to_owned());
    }
    Ok(HostDevice {
        source: PathBuf::from(source),
        target: PathBuf::from(target),
        access,
    })
}

pub(crate) fn device_rule(text: &str) -> Result<DeviceRule, String> {
    DeviceRule::parse(text)
        .ok_or_else(|| "expected a|b|c MAJOR:MINOR rwm, such as 'c 42:* rwm'".to_owned())
}

/// `NAME:ADDRESS`, or with `=`; an IPv6 address may be in brackets.
pub(crate) fn add_host(text: &str) -> Result<(String, IpAddr), String> {
    const EXPECTED: &str = "expected NAME:ADDRESS";
    let (name, address) = text.split_once([':', '=']).ok_or(EXPECTED)?;
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(address);
    let address = address
        .parse()
        .map_err(|_| format!("'{address}' is no IP address"))?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(EXPECTED.to_owned());
    }
    Ok((name.to_owned(), address))
}

/// `NAME=VALUE`; which names there are depends on the namespaces.
pub(crate) fn sysctl(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as net.core.somaxconn=1024".to_owned()),
    }
}

/// Bytes of /dev/shm.
pub(crate) fn shm_size(text: &str) -> Result<u64, String> {
    match parse::size(text).map_err(|error| error.reason)? {
        0 => Err("expected more than 0 bytes".to_owned()),
        bytes => Ok(bytes),
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

pub(crate) fn user(text: &str) -> Result<String, String> {
    let _: Wanted = text.parse().map_err(|error: InvalidAccount| error.reason)?;
    Ok(text.to_owned())
}

pub(crate) fn group(text: &str) -> Result<String, String> {
    let _: Reference = text.parse().map_err(|error: InvalidAccount| error.reason)?;
    Ok(text.to_owned())
}

pub(crate) fn capability(text: &str) -> Result<String, String> {
    if !text.eq_ignore_ascii_case("all") {
        defaults::capability(text).map_err(|error| format!("{error}; see capabilities(7)"))?;
    }
    Ok(text.to_owned())
}

/// One of `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecurityOption {
    NoNewPrivileges(bool),
    Seccomp(Seccomp),
    /// A profile's name, or `unconfined`.
    AppArmor(String),
}

/// `no-new-privileges`, `seccomp=FILE`, `apparmor=PROFILE`, with `=` or `:`.
pub(crate) fn security_option(text: &str) -> Result<SecurityOption, String> {
    let (name, value) = match text.split_once(['=', ':']) {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    match (name, value) {
        ("no-new-privileges", None | Some("" | "true")) => {
            Ok(SecurityOption::NoNewPrivileges(true))
        }
        ("no-new-privileges", Some("false")) => Ok(SecurityOption::NoNewPrivileges(false)),
        ("seccomp", Some("default" | "builtin")) => Ok(SecurityOption::Seccomp(Seccomp::Default)),
        ("seccomp", Some("hardened")) => Ok(SecurityOption::Seccomp(Seccomp::Hardened)),
        ("seccomp", Some("unconfined")) => Ok(SecurityOption::Seccomp(Seccomp::Unconfined)),
        ("seccomp", Some(path)) if !path.is_empty() => profile(path)
            .map(|text| SecurityOption::Seccomp(Seccomp::Profile(text)))
            .map_err(|error| format!("seccomp profile {path}: {error}")),
        ("apparmor", Some(profile)) if !profile.is_empty() => {
            Ok(SecurityOption::AppArmor(profile.to_owned()))
        }
        _ => Err(
            "accepted: no-new-privileges[=true|=false], seccomp=default|hardened|unconfined|FILE, \
             apparmor=PROFILE|unconfined"
                .to_owned(),
        ),
    }
}

/// The agent reads it; here only that it is a file of sane size.
fn profile(path: &str) -> Result<String, String> {
    const LIMIT: u64 = 1 << 20;
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > LIMIT {
        return Err(format!("more than {LIMIT} bytes"));
    }
    Ok(text)
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
    fn a_volumes_source_is_there() {
        assert_eq!(volume("/tmp:/mnt:ro").unwrap().flags.read_only, Some(true));
        assert!(volume("./:/mnt").unwrap().source.is_absolute());
        for wrong in ["/tmp", "/tmp:/mnt:rx", "/nowhere-at-all:/mnt"] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
        assert!(mounted("type=bind,src=/nowhere-at-all,dst=/mnt").is_err());
        assert!(mounted("type=tmpfs,dst=/mnt").is_ok());
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        let added = |text: &str| add_host(text).map(|(name, address)| format!("{name} {address}"));
        assert_eq!(added("db:10.0.0.7").as_deref(), Ok("db 10.0.0.7"));
        assert_eq!(added("db=fe80::1").as_deref(), Ok("db fe80::1"));
        assert_eq!(added("db:[::1]").as_deref(), Ok("db ::1"));
        for wrong in [
            "db",
            ":10.0.0.7",
            "db:10.0.0",
            "a b:10.0.0.7",
            "db:host-gateway",
        ] {
            assert!(add_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn log_options() {
        assert_eq!(log_option("max-size=10m"), Ok(LogOption::MaxSize(10 << 20)));
        assert_eq!(log_option("max-file=3"), Ok(LogOption::MaxFile(3)));
        for wrong in [
            "max-size",
            "max-size=1k",
            "max-file=0",
            "max-file=x",
            "mode=x",
            "",
        ] {
            assert!(log_option(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn devices() {
        for (text, target, access) in [
            ("/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/fuse:r", "/dev/fuse", "r"),
            ("/dev/sda:/dev/xvdc", "/dev/xvdc", "rwm"),
            ("/dev/sda:/dev/xvdc:rw", "/dev/xvdc", "rw"),
        ] {
            let device = device(text).unwrap();
            assert_eq!(device.target, Path::new(target), "{text}");
            assert_eq!(Some(device.access), DeviceAccess::parse(access), "{text}");
        }
        for wrong in [
            "",
            "fuse",
            "/dev/a:b",
            "/dev/a:/b",
            "/dev/a:/dev/b:x",
            "/dev/a:/dev/b:r:w",
            "/dev/a:",
        ] {
            assert!(device(wrong).is_err(), "{wrong}");
        }
        assert!(device_rule("c 42:* rwm").is_ok() && device_rule("c 42 rwm").is_err());
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
            let expected = Ok(SecurityOption::NoNewPrivileges(value));
            assert_eq!(security_option(text), expected, "{text}");
        }
        for (text, value) in [
            ("seccomp=default", Seccomp::Default),
            ("seccomp:builtin", Seccomp::Default),
            ("seccomp=hardened", Seccomp::Hardened),
            ("seccomp=unconfined", Seccomp::Unconfined),
            ("seccomp=/dev/null", Seccomp::Profile(String::new())),
        ] {
            let expected = Ok(SecurityOption::Seccomp(value));
            assert_eq!(security_option(text), expected, "{text}");
        }
        for (text, name) in [
            ("apparmor=web", "web"),
            ("apparmor:unconfined", "unconfined"),
            ("apparmor=:ns:web", ":ns:web"),
        ] {
            let expected = Ok(SecurityOption::AppArmor(name.to_owned()));
            assert_eq!(security_option(text), expected, "{text}");
        }
        for wrong in [
            "no-new-privileges=maybe",
            "seccomp",
            "seccomp=",
            "seccomp=/nowhere-at-all",
            "seccomp=/",
            "seccomp=/dev/zero",
            "apparmor",
            "apparmor=",
        ] {
            let error = security_option(wrong).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
