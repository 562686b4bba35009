//! The result: a program for the kernel.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What seccomp(2) takes, and what an operator may want to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// The profile asks a listener about some calls (`SCMP_ACT_NOTIFY`).
    pub notifies: bool,
    /// Names that no architecture's table has: ignored, as by every runtime.
    pub unknown: Vec<String>,
}

/// linux/filter.h's `sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// 16 hex digits an instruction: a tenth of the time that nested numbers take to read.
fn as_text<S: Serializer>(all: &[Instruction], serializer: S) -> Result<S::Ok, S::Error> {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |byte: u8| DIGITS[usize::from(byte & 15)];
    let bytes = all.iter().flat_map(|Instruction { code, jt, jf, k }| {
        let ([c0, c1], [k0, k1, k2, k3]) = (code.to_be_bytes(), k.to_be_bytes());
        [c0, c1, *jt, *jf, k0, k1, k2, k3]
    });
    let mut text = String::with_capacity(all.len() * 16);
    text.extend(bytes.flat_map(|byte| [digit(byte >> 4), digit(byte)]));
    serializer.serialize_str(&text)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Instruction>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let (chunks, rest) = text.as_bytes().as_chunks::<16>();
    if !rest.is_empty() {
        return Err(de::Error::custom("a filter is 16 digits an instruction"));
    }
    let word = |chunk: &[u8; 16]| {
        let digits = str::from_utf8(chunk).ok()?;
        let word = u64::from_str_radix(digits, 16).ok()?;
        let [code_high, code_low, jt, jf, k @ ..] = word.to_be_bytes();
        Some(Instruction {
            code: u16::from_be_bytes([code_high, code_low]),
            jt,
            jf,
            k: u32::from_be_bytes(k),
        })
    };
    chunks
        .iter()
        .map(word)
        .collect::<Option<_>>()
        .ok_or_else(|| de::Error::custom("a filter is hex digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_the_way() {
        let filter = Filter {
            instructions: vec![
                Instruction {
                    code: 0x20,
                    jt: 0,
                    jf: 255,
                    k: 4,
                },
                Instruction {
                    code: 6,
                    jt: 1,
                    jf: 0,
                    k: u32::MAX,
                },
            ],
            flags: 4,
            ..Filter::default()
        };
        let text = serde_json::to_string(&filter).unwrap();
        assert!(text.contains("\"002000ff00000004000601"), "{text}");
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
        for wrong in ["0", "zz2000ff00000004", "0020000000000004a"] {
            let text = text.replace("002000ff00000004", wrong);
            assert!(serde_json::from_str::<Filter>(&text).is_err(), "{wrong}");
        }
    }
}
