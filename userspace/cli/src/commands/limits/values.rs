//! Values of the flags for limits, checked before anything is asked of the agent.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use paddock_cgroups::{Device, RdmaLimit, parse};

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

/// `mlx5_0=hca_handle=2,hca_object=2000`, the kernel's own words; what is not said is unlimited.
pub(super) fn rdma(text: &str) -> Result<(String, RdmaLimit), String> {
    const EXPECTED: &str =
        "expected DEVICE=hca_handle=NUMBER,hca_object=NUMBER, or one of the two; max is unlimited";
    let (device, words) = pair(text).map_err(|_| EXPECTED)?;
    let mut limit = RdmaLimit::default();
    for word in words.split(',') {
        let (name, number) = word.split_once('=').ok_or(EXPECTED)?;
        let number = match number {
            "max" => None,
            number => Some(number.parse().map_err(|_| EXPECTED)?),
        };
        match name {
            "hca_handle" => limit.hca_handles = number,
            "hca_object" => limit.hca_objects = number,
            _ => return Err(EXPECTED.to_owned()),
        }
    }
    Ok((device, limit))
}

/// `sev=4`.
pub(super) fn misc(text: &str) -> Result<(String, i64), String> {
    const EXPECTED: &str = "expected RESOURCE=NUMBER, such as sev=4; -1 is unlimited";
    let (resource, number) = pair(text).map_err(|_| EXPECTED)?;
    match number.parse() {
        Ok(number @ -1..) => Ok((resource, number)),
        _ => Err(EXPECTED.to_owned()),
    }
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
    #[test]
    fn rdma_and_misc_are_strict() {
        let (device, limit) = rdma("mlx5_0=hca_handle=2").unwrap();
        assert_eq!(device, "mlx5_0");
        assert_eq!((limit.hca_handles, limit.hca_objects), (Some(2), None));
        for wrong in [
            "mlx5_0",
            "mlx5_0=2",
            "mlx5_0=hca_handle=-1",
            "m=qp=1",
            "=hca_handle=1",
        ] {
            assert!(rdma(wrong).is_err(), "{wrong}");
        }
        assert_eq!(misc("sev=4").unwrap(), ("sev".to_owned(), 4));
        for wrong in ["sev", "sev=", "sev=-2", "sev=many", "=4"] {
            assert!(misc(wrong).is_err(), "{wrong}");
        }
    }
}
