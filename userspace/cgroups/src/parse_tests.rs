//! What is taken, and each refusal's words where they matter.

use super::*;

#[test]
fn sizes_are_dockers() {
    for (text, bytes) in [
        ("256m", 268_435_456),
        ("256M", 268_435_456),
        ("64MiB", 67_108_864),
        ("64mb", 67_108_864),
        ("4096", 4096),
        ("4096b", 4096),
        ("8k", 8192),
        ("1g", 1 << 30),
        ("1.5g", 1_610_612_736),
        ("0.5k", 512),
        ("2t", 2 << 40),
        ("0", 0),
    ] {
        assert_eq!(size(text).unwrap(), bytes, "{text}");
    }
}

#[test]
fn bad_sizes_are_refused() {
    for text in [
        "",
        "m",
        "-1",
        "+5",
        "5x",
        "5 m",
        " 5m",
        "1.5",
        "1.5b",
        ".5m",
        "1.m",
        "1..5m",
        "0x10",
        "16e",
        "9223372036854775808",
        "99999999999999999999",
        "8192p",
        "5mm",
        "1e3",
    ] {
        assert!(size(text).is_err(), "{text}");
    }
    assert!(size("9223372036854775808").unwrap_err().reason == "too large");
}

#[test]
fn memory_and_swap_have_their_own_bounds() {
    assert_eq!(memory("4k").unwrap(), 4096);
    assert!(memory("0").unwrap_err().reason.contains("no limit"));
    assert!(memory("4095").unwrap_err().reason.contains("4096"));
    assert_eq!(memory("-1").unwrap(), -1);
    assert_eq!(memory_mark("0").unwrap(), 0);
    assert!(memory_mark("1").is_err());
    assert!(memory("-2").unwrap_err().reason.contains("-1"));
}

#[test]
fn cpus_keep_their_precision() {
    for (text, quota) in [
        ("0.5", 50_000),
        (".5", 50_000),
        ("1", 100_000),
        ("1.", 100_000),
        ("0.01", 1000),
        ("2.25", 225_000),
        ("0.123456789", 12_345),
    ] {
        assert_eq!(cpus(text).unwrap(), quota, "{text}");
    }
    for text in [
        "",
        ".",
        "0",
        "0.009",
        "-1",
        "1e2",
        "half",
        "0.1234567891",
        "99999",
        "+1",
        "0,5",
    ] {
        assert!(cpus(text).is_err(), "{text}");
    }
}

#[test]
fn shares_and_pids() {
    assert_eq!(cpu_shares("1024").unwrap(), 1024);
    for text in ["1", "262145", "0", "-5", "many"] {
        assert!(cpu_shares(text).is_err(), "{text}");
    }
    assert_eq!(pids_limit("-1").unwrap(), -1);
    assert_eq!(pids_limit("64").unwrap(), 64);
    assert_eq!(pids_limit("0").unwrap(), -1);
    for text in ["-2", "", "6.5"] {
        assert!(pids_limit(text).is_err(), "{text}");
    }
}

#[test]
fn lists_round_trip() {
    assert_eq!(
        number_list("0-2,5")
            .unwrap()
            .into_iter()
            .collect::<Vec<_>>(),
        [0, 1, 2, 5]
    );
    for text in ["0-2,5", "0", "1-3,7-9,11"] {
        assert_eq!(format_list(&number_list(text).unwrap()), text);
    }
    for text in [
        "", ",", "0,", "-1", "2-0", "a", "0-", "0-9999", "+1", "0 1", "0--1",
    ] {
        assert!(number_list(text).is_err(), "{text}");
    }
}

#[test]
fn bounds_are_the_kernels() {
    assert_eq!(cpu_quota("-1").unwrap(), -1);
    assert!(cpu_quota("999").is_err() && cpu_quota("0").is_err());
    assert_eq!(cpu_period("1000").unwrap(), 1000);
    assert!(cpu_period("999").is_err() && cpu_period("1000001").is_err());
    assert!(swappiness("201").is_err() && swappiness("-1").is_err());
    assert!(blkio_weight("9").is_err() && blkio_weight("1001").is_err());
    assert!(microseconds("-1").is_err());
}
