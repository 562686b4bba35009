//! The keys that detach from a terminal, docker's syntax: `ctrl-p,ctrl-q`, `a`, `ctrl-]`.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl DetachKeys {
    pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(|key| {
                byte(key).ok_or_else(|| {
                    format!(
                        "'{key}' is no key: expected a letter, or ctrl- and a letter or one of \
                         @ [ \\ ] ^ _, several with commas"
                    )
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn byte(key: &str) -> Option<u8> {
    if let Some(name) = key.strip_prefix("ctrl-") {
        let &[name] = name.as_bytes() else {
            return None;
        };
        return match name {
            b'a'..=b'z' => Some(name - b'a' + 1),
            b'@' | b'['..=b'_' => Some(name - b'@'),
            _ => None,
        };
    }
    let &[one] = key.as_bytes() else { return None };
    one.is_ascii().then_some(one)
}

/// How much of the keys has been typed; that much is held back until the next key decides.
#[derive(Debug)]
pub(crate) struct Typed<'a> {
    keys: &'a DetachKeys,
    matched: usize,
}

impl<'a> Typed<'a> {
    pub(crate) fn new(keys: &'a DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// What is to be passed on, and whether all keys have been typed; then the rest is dropped.
    pub(crate) fn take(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let DetachKeys(keys) = self.keys;
        let mut passed = Vec::with_capacity(input.len());
        for &byte in input {
            if self.matched > 0 && keys.get(self.matched) != Some(&byte) {
                passed.extend_from_slice(&keys[..self.matched]);
                self.matched = 0;
            }
            if keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == keys.len() {
                    return (passed, true);
                }
            } else {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_dockers() {
        let keys = |text| DetachKeys::parse(text).map(|keys| keys.0);
        assert_eq!(keys(DetachKeys::DEFAULT), Ok(vec![16, 17]));
        assert_eq!(
            keys("a,ctrl-a,ctrl-@,ctrl-[,ctrl-\\,ctrl-]"),
            Ok(vec![97, 1, 0, 27, 28, 29])
        );
        for wrong in ["", "ctrl-", "ctrl-A", "ctrl-pp", "pq", "ctrl-p,", "\u{e9}"] {
            assert!(keys(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_whole_sequence_detaches_and_nothing_else_is_lost() {
        let keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        let mut typed = Typed::new(&keys);
        assert_eq!(typed.take(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(typed.take(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(typed.take(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(typed.take(b"\x11rest"), (vec![], true));
    }
}
