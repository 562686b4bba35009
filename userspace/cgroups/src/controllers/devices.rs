//! Which device nodes may be made, read and written: v1's `devices.allow` and `devices.deny`,
//! or an eBPF program on the v2 cgroup, assembled here and loaded by who may.
//!
//! v1: the kernel's Documentation/admin-guide/cgroup-v1/devices.rst. v2: a program of type
//! `BPF_PROG_TYPE_CGROUP_DEVICE` (4.15), asked at every open and mknod; the last rule that
//! speaks of a kind of access decides it, and what no rule speaks of is denied.

use serde::{Deserialize, Serialize};

use crate::{Error, file};

use super::Place;

/// OCI's `linux.resources.devices`: later ones count more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    /// `None` is every one.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: DeviceAccess,
}

/// Capitals are read, too: earlier builds wrote them to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    #[serde(alias = "All")]
    All,
    #[serde(alias = "Block")]
    Block,
    #[serde(alias = "Character")]
    Character,
}

/// Bits as the program's context has them, `BPF_DEVCG_ACC_*`; in JSON letters of `rwm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "Written")]
pub struct DeviceAccess(u32);

/// What JSON may have for an access: earlier builds wrote the bits.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Letters(String),
    Bits(u32),
}

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

impl DeviceAccess {
    pub const ALL: Self = Self(MKNOD | READ | WRITE);
    pub const MKNOD: Self = Self(MKNOD);

    /// Some of `rwm`, each once.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            let bit = match letter {
                'm' => MKNOD,
                'r' => READ,
                'w' => WRITE,
                _ => return None,
            };
            if bits & bit != 0 {
                return None;
            }
            bits |= bit;
        }
        (bits != 0).then_some(Self(bits))
    }

    fn letters(self) -> String {
        [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
            .into_iter()
            .filter_map(|(bit, letter)| (self.0 & bit != 0).then_some(letter))
            .collect()
    }
}

impl From<DeviceAccess> for String {
    fn from(access: DeviceAccess) -> Self {
        access.letters()
    }
}

impl TryFrom<Written> for DeviceAccess {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let access = match written {
            Written::Letters(letters) => Self::parse(&letters),
            Written::Bits(bits) => (bits & !Self::ALL.0 == 0 && bits != 0).then_some(Self(bits)),
        };
        access.ok_or("an access is letters of rwm")
    }
}

impl DeviceRule {
    pub const DENY_ALL: Self = Self {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        access: DeviceAccess::ALL,
    };

    pub const ALLOW_ALL: Self = Self {
        allow: true,
        ..Self::DENY_ALL
    };

    /// Every access to one device.
    pub const fn allow(kind: DeviceKind, major: u32, minor: Option<u32>) -> Self {
        Self {
            kind,
            major: Some(major),
            minor,
            ..Self::ALLOW_ALL
        }
    }

    /// `c 1:3 rwm`, with `*` for either number: docker's `--device-cgroup-rule`.
    pub fn parse(text: &str) -> Option<Self> {
        let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let number = |text: &str| match text {
            "*" => Some(None),
            text if text.bytes().all(|digit| digit.is_ascii_digit()) => text.parse().ok().map(Some),
            _ => None,
        };
        let (major, minor) = numbers.split_once(':')?;
        Some(Self {
            allow: true,
            kind: match kind {
                "a" => DeviceKind::All,
                "b" => DeviceKind::Block,
                "c" => DeviceKind::Character,
                _ => return None,
            },
            major: number(major)?,
            minor: number(minor)?,
            access: DeviceAccess::parse(access)?,
        })
    }

    fn is_everything(&self) -> bool {
        self.kind == DeviceKind::All
            && (self.major, self.minor, self.access) == (None, None, DeviceAccess::ALL)
    }

    /// The line that v1 takes; it knows kind `a` only with everything.
    fn lines(&self) -> Vec<String> {
        if self.is_everything() {
            return vec!["a".to_owned()];
        }
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let kinds: &[char] = match self.kind {
            DeviceKind::All => &['b', 'c'],
            DeviceKind::Block => &['b'],
            DeviceKind::Character => &['c'],
        };
        let (major, minor) = (number(self.major), number(self.minor));
        let access = self.access.letters();
        kinds
            .iter()
            .map(|kind| format!("{kind} {major}:{minor} {access}"))
            .collect()
    }
}

/// v1: one write a rule, in order.
pub(crate) fn apply(place: &Place, rules: &[DeviceRule]) -> Result<(), Error> {
    for alike in rules.chunk_by(|one, next| one.allow == next.allow) {
        let name = if alike[0].allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        let lines: Vec<String> = alike.iter().flat_map(DeviceRule::lines).collect();
        file::write_each(&place.file(name), &lines)?;
    }
    Ok(())
}

/// eBPF's instruction, eight bytes: code, registers, jump offset, immediate.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> [u8; 8] {
    let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_le_bytes(), value.to_le_bytes());
    [code, from << 4 | to, o0, o1, v0, v1, v2, v3]
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_VALUE: u8 = 0xb7;
const AND_VALUE: u8 = 0x57;
const SHIFT_RIGHT_VALUE: u8 = 0x77;
const JUMP_NOT_EQUAL_VALUE: u8 = 0x55;
const JUMP_IF_SET: u8 = 0x45;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

/// `struct bpf_cgroup_dev_ctx`: access and kind, major, minor, a word each.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const ANSWER: u8 = 0;

/// The program that means the rules, ready for bpf(2). It keeps in a register which kinds of
/// access are still to be decided and walks from the last rule to the first.
pub fn device_program(rules: &[DeviceRule]) -> Vec<[u8; 8]> {
    let answer = |allow: bool| {
        [
            instruction(MOVE_VALUE, ANSWER, 0, 0, allow.into()),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    };
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE, WANTED, KIND, 0, 0),
        instruction(AND_VALUE, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_VALUE, WANTED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let bits = rule.access.0.cast_signed();
        let mut verdict = Vec::new();
        if rule.allow {
            verdict.push(instruction(AND_VALUE, WANTED, 0, 0, !bits & 7));
            verdict.push(instruction(JUMP_NOT_EQUAL_VALUE, WANTED, 0, 2, 0));
            verdict.extend(answer(true));
        } else {
            verdict.push(instruction(JUMP_IF_SET, WANTED, 0, 1, bits));
            verdict.push(instruction(JUMP, 0, 0, 2, 0));
            verdict.extend(answer(false));
        }
        let kind = match rule.kind {
            DeviceKind::All => None,
            DeviceKind::Block => Some(1),
            DeviceKind::Character => Some(2),
        };
        let number = |number: Option<u32>| number.map(u32::cast_signed);
        let tests = [
            (KIND, kind),
            (MAJOR, number(rule.major)),
            (MINOR, number(rule.minor)),
        ];
        let tests: Vec<_> = tests
            .into_iter()
            .filter_map(|(register, value)| Some((register, value?)))
            .collect();
        for ((register, value), left) in tests.iter().zip((0..tests.len()).rev()) {
            let over = i16::try_from(left + verdict.len()).unwrap_or(i16::MAX);
            program.push(instruction(
                JUMP_NOT_EQUAL_VALUE,
                *register,
                0,
                over,
                *value,
            ));
        }
        program.extend(verdict);
    }
    program.extend(answer(false));
    program
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
