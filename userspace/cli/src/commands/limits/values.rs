//! Values of the flags for limits, checked before anything is asked of the agent.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use paddock_cgroups::{Device, parse};

/// The cgroups crate's parsers, without the value that clap shows already.
macro_rules! parsers {
    ($($name:ident -> $value:ty),+) => {
        $(pub(super) fn $name(text: &str) -> Result<$value, String> {
            parse::$name(text).map_err(|error| error.reason)
        })+
    };
}
parsers! {
    memory -> i64, memory_mark -> i64, swappiness -> u64, cpus -> i64, cpu_quota -> i64,
    cpu_period -> u64, microseconds -> u64, cpu_shares -> u64, cpuset -> String,
    pids_limit -> i64, blkio_weight -> u64
}

/// `/dev/sda:1m`, a rate in bytes a second; 0 is unlimited.
pub(super) fn device_bytes(text: &str) -> Result<(Device, u64), String> {
    let (device, rate) = split(text)?;
    let rate = parse::size(rate).map_err(|error| error.reason)?;
    Ok((block_device(device)?, rate))
}

/// `/dev/sda:100`, operations a second; 0 is unlimited.
pub(super) fn device_number(text: &str) -> Result<(Device, u64), String> {
    let (device, rate) = split(text)?;
    let rate = rate
        .parse::<u32>()
        .map_err(|_| format!("'{rate}': expected a number of operations a second"))?;
    Ok((block_device(device)?, rate.into()))
}

pub(super) fn device_weight(text: &str) -> Result<(Device, u64), String> {
    let (device, weight) = split(text)?;
    let weight = blkio_weight(weight)?;
    Ok((block_device(device)?, weight))
}

fn split(text: &str) -> Result<(&str, &str), String> {
    text.rsplit_once(':')
        .filter(|(device, _)| device.starts_with('/'))
        .ok_or_else(|| "expected a device's path, ':' and a value, such as /dev/sda:1m".to_owned())
}

fn block_device(path: &str) -> Result<Device, String> {
    let found = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
    if !found.file_type().is_block_device() {
        return Err(format!("{path} is no block device"));
    }
    let number = found.rdev();
    Ok(Device {
        major: nix::sys::stat::major(number),
        minor: nix::sys::stat::minor(number),
    })
}

/// `2MB=64m`.
pub(super) fn hugetlb(text: &str) -> Result<(String, u64), String> {
    let (size, bytes) = pair(text).map_err(|_| "expected SIZE=BYTES, such as 2MB=64m")?;
    let bytes = parse::size(&bytes).map_err(|error| error.reason)?;
    Ok((size, bytes))
}

/// `FILE=VALUE`, or any other two.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected FILE=VALUE, such as memory.high=64m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_block_devices_have_rates() {
        for (text, why) in [
            ("/dev/null:1m", "/dev/null is no block device"),
            ("/nowhere-at-all:1m", "No such file"),
            ("sda:1m", "expected a device's path"),
            ("/dev/null", "expected a device's path"),
            ("/dev/null:fast", "expected bytes"),
        ] {
            let said = device_bytes(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        assert!(
            device_number("/dev/null:1m")
                .unwrap_err()
                .contains("operations")
        );
        assert!(
            device_weight("/dev/null:5")
                .unwrap_err()
                .contains("10 to 1000")
        );
    }
}
