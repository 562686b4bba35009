//! The eBPF program, run by an interpreter, against the rules read one by one.

use super::*;
use crate::{discovery::Version, fixture::Dir};

const BLOCK: u64 = 1;
const CHARACTER: u64 = 2;

/// As the kernel would; 1 lets the access through.
fn run(program: &[[u8; 8]], access: u32, kind: u64, major: u32, minor: u32) -> u64 {
    let mut registers = [0_u64; 11];
    let mut at = 0;
    loop {
        let [code, pair, o0, o1, value @ ..] = program[at];
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let offset = i16::from_le_bytes([o0, o1]);
        let value = i64::from(i32::from_le_bytes(value)).cast_unsigned();
        let mut jump = false;
        match code {
            LOAD_WORD => {
                registers[to] = match offset {
                    0 => u64::from(access) << 16 | kind,
                    4 => major.into(),
                    8 => minor.into(),
                    _ => panic!("load of {offset}"),
                }
            }
            MOVE => registers[to] = registers[from],
            MOVE_VALUE => registers[to] = value,
            AND_VALUE => registers[to] &= value,
            SHIFT_RIGHT_VALUE => registers[to] >>= value,
            JUMP_NOT_EQUAL_VALUE => jump = registers[to] != value,
            JUMP_IF_SET => jump = registers[to] & value != 0,
            JUMP => jump = true,
            EXIT => return registers[0],
            _ => panic!("instruction {code:#x}"),
        }
        at += 1 + if jump {
            usize::try_from(offset).unwrap()
        } else {
            0
        };
    }
}

fn speaks(rule: &DeviceRule, bit: u32, kind: u64, major: u32, minor: u32) -> bool {
    let of_kind = match rule.kind {
        DeviceKind::All => true,
        DeviceKind::Block => kind == BLOCK,
        DeviceKind::Character => kind == CHARACTER,
    };
    of_kind
        && rule.access.0 & bit != 0
        && rule.major.is_none_or(|n| n == major)
        && rule.minor.is_none_or(|n| n == minor)
}

fn rule(text: &str) -> DeviceRule {
    let (sign, text) = text.split_at(1);
    DeviceRule {
        allow: sign == "+",
        ..DeviceRule::parse(text).unwrap()
    }
}

#[test]
fn the_program_means_what_the_rules_say() {
    for list in [
        &[][..],
        &["-a *:* rwm"],
        &["+a *:* rwm"],
        &[
            "-a *:* rwm",
            "+c *:* m",
            "+b *:* m",
            "+c 1:3 rwm",
            "+c 136:* rw",
        ],
        &["+a *:* rwm", "-b 8:* w", "-c 1:3 m", "-c *:5 r"],
        &[
            "-a *:* rwm",
            "+c 1:3 r",
            "+c 1:* w",
            "-c 1:5 w",
            "+b 8:0 rm",
        ],
    ] {
        let rules: Vec<_> = list.iter().map(|text| rule(text)).collect();
        let program = device_program(&rules);
        for kind in [BLOCK, CHARACTER] {
            for (major, minor) in [
                (1, 3),
                (1, 5),
                (8, 0),
                (8, 5),
                (136, 9),
                (0, 0),
                (4095, 1 << 19),
            ] {
                for access in 1..8 {
                    let allowed = [MKNOD, READ, WRITE].iter().all(|bit| {
                        let mut last = rules.iter().rev();
                        access & bit == 0
                            || last
                                .find(|rule| speaks(rule, *bit, kind, major, minor))
                                .is_some_and(|rule| rule.allow)
                    });
                    let got = run(&program, access, kind, major, minor);
                    assert_eq!(
                        got,
                        u64::from(allowed),
                        "{list:?} {access} {kind} {major}:{minor}"
                    );
                }
            }
        }
    }
}

#[test]
fn rules_are_read_strictly() {
    let fuse = DeviceRule::parse("c 10:229 rwm").unwrap();
    assert_eq!(
        fuse,
        DeviceRule::allow(DeviceKind::Character, 10, Some(229))
    );
    assert_eq!(DeviceRule::parse("a *:* rwm"), Some(DeviceRule::ALLOW_ALL));
    for wrong in [
        "",
        "c",
        "c 1:3",
        "c 1:3 x",
        "c 1:3 rr",
        "c 1:3  rwm",
        "d 1:3 r",
        "c 1 r",
        "c -1:3 r",
        "c 1:+3 r",
        "c 1:3 rwm ",
        "c :3 r",
        "c 99999999999:1 r",
        "c 1:3 ",
    ] {
        assert_eq!(DeviceRule::parse(wrong), None, "{wrong:?}");
    }
}

#[test]
fn v1_gets_a_line_a_rule() {
    let dir = Dir::new();
    let place = Place {
        dir: dir.path().to_owned(),
        version: Version::V1,
    };
    for (text, file, line) in [
        ("-a *:* rwm", "devices.deny", "a"),
        ("+c 1:3 mrw", "devices.allow", "c 1:3 rwm"),
        ("+b *:* m", "devices.allow", "b *:* m"),
        // Two writes; the kernel's file has no end to write after.
        ("+a 7:* r", "devices.allow", "b 7:* rc 7:* r"),
    ] {
        dir.file(file, "");
        apply(&place, &[rule(text)]).unwrap();
        assert_eq!(dir.read(file), line);
    }
}

#[test]
fn json_has_words_and_letters_and_what_earlier_builds_wrote_is_read() {
    let rule = DeviceRule::parse("c 1:3 rm").unwrap();
    let text = r#"{"allow":true,"kind":"character","major":1,"minor":3,"access":"rm"}"#;
    assert_eq!(serde_json::to_string(&rule).unwrap(), text);
    let earlier = text.replace("character", "Character");
    let earlier = earlier.replace("\"rm\"", "3");
    for text in [text, &earlier] {
        assert_eq!(serde_json::from_str::<DeviceRule>(text).unwrap(), rule);
    }
    for wrong in ["\"\"", "\"rx\"", "0", "8", "null"] {
        let text = text.replace("\"rm\"", wrong);
        assert!(serde_json::from_str::<DeviceRule>(&text).is_err(), "{text}");
    }
}
