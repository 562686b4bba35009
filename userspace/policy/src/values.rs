//! Words of a file to values: addresses, ports, devices, paths, times. Each error says what is
//! wrong and what to write.

use std::net::IpAddr;

use crate::{
    fault::{quote, suggestion},
    model::{CAPABILITIES, Cidr, Device, DeviceKind, EVERY_CAPABILITY, access, masked},
};

/// The kernel's bound of a path.
const LONGEST_PATH: usize = 4095;
const LONGEST_NAME: usize = 64;

pub(crate) type Value<T> = Result<T, String>;

/// A policy's or a rule's: what can stand in a label of a metric and in a command.
pub(crate) fn name(word: &str) -> Value<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !word.starts_with(|c: char| c.is_ascii_alphanumeric()) || !word.bytes().all(plain) {
        return Err(format!(
            "the name {} has other characters than letters, digits, '_', '.', '-', or begins with one of the last three; rename it",
            quote(word)
        ));
    }
    if word.len() > LONGEST_NAME {
        return Err(format!(
            "a name of {} characters; at most {LONGEST_NAME} fit",
            word.len()
        ));
    }
    Ok(word.to_owned())
}

pub(crate) fn glob(word: &str) -> Value<String> {
    if word.is_empty() {
        return Err("an empty pattern fits nothing; write '*' for any".to_owned());
    }
    if word.len() > 256 {
        return Err("a pattern of more than 256 bytes; shorten it with '*'".to_owned());
    }
    Ok(word.to_owned())
}

pub(crate) fn cidr(word: &str) -> Value<Cidr> {
    let (address, bits) = match word.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (word, None),
    };
    let parsed: IpAddr = address.parse().map_err(|_| {
        format!(
            "{} is no address; write it as 10.0.0.0/8 or fd00::/8",
            quote(word)
        )
    })?;
    let all = Cidr::of(parsed).bits;
    let bits = bits.map_or(Some(all), |bits| {
        let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        bits.parse().ok().filter(|bits| digits && *bits <= all)
    });
    let Some(bits) = bits else {
        return Err(format!(
            "the prefix length of {} is none; write a number from 0 to {all}",
            quote(word)
        ));
    };
    if let IpAddr::V6(six) = parsed
        && let Some(four) = six.to_ipv4_mapped()
    {
        return Err(format!(
            "{} is an IPv4 address in IPv6's form; write {four}",
            quote(word)
        ));
    }
    let net = Cidr {
        address: masked(parsed, bits),
        bits,
    };
    if net.address != parsed {
        return Err(format!(
            "{} has bits set behind its prefix; write {net}, or {parsed} for the one address",
            quote(word)
        ));
    }
    Ok(net)
}

pub(crate) fn ports(word: &str) -> Value<(u16, u16)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (from, to) = word.split_once('-').unwrap_or((word, word));
    let (Some(from), Some(to)) = (number(from.trim()), number(to.trim())) else {
        return Err(format!(
            "{} is no port; write a number from 0 to 65535, or two as '8000-8080'",
            quote(word)
        ));
    };
    if from > to {
        return Err(format!(
            "the ports {} end before they begin; write '{to}-{from}'",
            quote(word)
        ));
    }
    Ok((from, to))
}

/// An absolute path; a slash at its end is left out.
pub(crate) fn path(word: &str) -> Value<String> {
    if !word.starts_with('/') {
        return Err(format!(
            "the path {} is not absolute; begin it with '/'",
            quote(word)
        ));
    }
    if word.len() > LONGEST_PATH {
        return Err(format!(
            "a path of {} bytes; the kernel knows none over {LONGEST_PATH}",
            word.len()
        ));
    }
    if word.contains('\0') {
        return Err("a path with a NUL in it; no file can have it".to_owned());
    }
    let trimmed = word.strip_suffix('/').unwrap_or(word);
    let odd = |part: &str| matches!(part, "" | "." | "..");
    if !trimmed.is_empty() && trimmed[1..].split('/').any(odd) {
        return Err(format!(
            "the path {} has '.', '..' or '//' in it; write it as the kernel has it",
            quote(word)
        ));
    }
    if word.contains(['*', '?', '[']) {
        return Err(format!(
            "the path {} looks like a pattern; a path stands for itself and all below it, so name the directory",
            quote(word)
        ));
    }
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

/// `c 1:3 rw`, as in a container's configuration; without letters at the end it is all three.
/// `a`, the kind for both, gives two.
pub(crate) fn devices(word: &str) -> Value<Vec<Device>> {
    let shape = || {
        format!(
            "{} is no device; write it as 'c 1:3 rw': c, b or a, major:minor with '*' for any, and of r, w, m what is meant",
            quote(word)
        )
    };
    let mut words = word.split_ascii_whitespace();
    let (Some(kind), Some(numbers)) = (words.next(), words.next()) else {
        return Err(shape());
    };
    let letters = words.next().unwrap_or("rwm");
    let (major, minor) = numbers.split_once(':').ok_or_else(shape)?;
    let kinds: &[DeviceKind] = match kind {
        "b" => &[DeviceKind::Block],
        "c" => &[DeviceKind::Char],
        "a" => &[DeviceKind::Block, DeviceKind::Char],
        _ => return Err(shape()),
    };
    let number = |text: &str, most: u32| match text {
        "*" => Ok(None),
        _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => Err(shape()),
        _ => text
            .parse()
            .ok()
            .filter(|number| *number <= most)
            .map(Some)
            .ok_or_else(|| {
                format!(
                    "the device {} has a number over {most}; the kernel has none",
                    quote(word)
                )
            }),
    };
    let (major, minor) = (number(major, 0xfff)?, number(minor, 0xf_ffff)?);
    if major.is_none() && minor.is_some() {
        return Err(format!(
            "the device {} has a minor number of any major; name the major",
            quote(word)
        ));
    }
    let mut bits = 0;
    for letter in letters.chars() {
        bits |= match letter {
            'r' => access::READ,
            'w' => access::WRITE,
            'm' => access::MKNOD,
            _ => return Err(shape()),
        };
    }
    if words.next().is_some() {
        return Err(shape());
    }
    let device = |kind: &DeviceKind| Device {
        kind: *kind,
        major,
        minor,
        access: bits,
    };
    Ok(kinds.iter().map(device).collect())
}

/// A capability's bit, or all for `ALL`.
pub(crate) fn capability(word: &str) -> Value<u64> {
    if matches!(word, "ALL" | "CAP_ALL") {
        return Ok(EVERY_CAPABILITY);
    }
    capability_named(word).ok_or_else(|| {
        let known = CAPABILITIES.iter().copied().chain(["ALL"]);
        let lower = word.to_ascii_lowercase();
        let bare = lower.strip_prefix("cap_").unwrap_or(&lower);
        format!(
            "unknown capability {}; {}",
            quote(word),
            suggestion(bare, known, "capabilities(7) has the list")
        )
    })
}

/// The bit of one, by its name with or without `CAP_`.
pub(crate) fn capability_named(word: &str) -> Option<u64> {
    let bare = word.strip_prefix("CAP_").unwrap_or(word);
    let number = CAPABILITIES.iter().position(|name| *name == bare)?;
    Some(1 << number)
}

/// The name, if a machine that paddock is built for has such a call.
pub(crate) fn syscall(word: &str) -> Value<String> {
    use paddock_seccomp::Arch;
    let machines = [Arch::X86_64, Arch::Aarch64];
    if machines.iter().any(|arch| arch.number(word).is_some()) {
        return Ok(word.to_owned());
    }
    let mut known: Vec<&str> = machines
        .iter()
        .flat_map(|arch| arch.syscalls().map(|(name, _)| name))
        .collect();
    known.sort_unstable();
    Err(format!(
        "unknown system call {}; {}",
        quote(word),
        suggestion(word, known.iter().copied(), "syscalls(2) has the list")
    ))
}

/// `30s`, `10m`, `2h`, up to a day; in seconds.
pub(crate) fn window(word: &str) -> Value<u32> {
    const DAY: u32 = 86_400;
    let unit = match word.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3_600,
        _ => 0,
    };
    let digits = word.get(..word.len().saturating_sub(1)).unwrap_or("");
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits
        .parse::<u32>()
        .ok()
        .filter(|_| plain)
        .and_then(|count| count.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=DAY) => Ok(seconds),
        _ => Err(format!(
            "{} is no window; write it as '30s', '10m' or '2h', at most '24h'",
            quote(word)
        )),
    }
}
