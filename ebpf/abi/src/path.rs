//! What policy says of paths: a trie of names by ruleset, walked from the root of the mount
//! namespace. Each node has the answer for what lies below it and has no node of its own.
//!
//! User space has resolved which rule holds; the kernel half looks up one name after the other
//! until there is no node for one. Names are found by a hash whose keys are made anew with the
//! maps: of two names that nobody chose by the keys, one in 2^64 pairs collides.

/// What is done to a file, by its place in [`PathNode::cells`].
pub mod operation {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CREATE: usize = 2;
    pub const REMOVE: usize = 3;
    pub const EXEC: usize = 4;
}

pub const OPERATIONS: usize = 5;

/// Nodes of all rulesets together.
pub const PATHS: usize = 16_384;
/// Names of a rule's path at most.
pub const RULE_NAMES: usize = 16;
/// Bytes of a name that rules have a word on, at most; nothing is said of longer ones.
pub const NAME_LEN: usize = 64;

/// Two keys for each four bytes of a name.
pub const NAME_KEYS: usize = 2 * NAME_LEN / size_of::<u32>();

/// A name below a node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameKey {
    pub ruleset: u32,
    /// [`PathNode::number`] of the directory's; 0 is the root's.
    pub node: u32,
    /// [`name_hash`].
    pub hash: u64,
}

/// A file or directory that rules name, or that lies on the way to one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathNode {
    /// A bit for each length of the names below it, [`length_bit`]: most files end here.
    pub lengths: u64,
    /// A bit for each way in which they begin, [`begin_bit`]: most others end here.
    pub begins: u64,
    pub number: u32,
    /// The strictest of what is said below it.
    pub within: u16,
    /// By [`operation`].
    pub cells: [u16; OPERATIONS],
}

/// Where the walk through a ruleset's names begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRoot {
    pub node: PathNode,
    /// For what has no path that can be told: the strictest of all.
    pub lost: PathNode,
    /// For what has none at all, such as a pipe.
    pub nothing: PathNode,
    /// 1: something is said of paths.
    pub any: u64,
}

#[must_use]
#[inline]
pub const fn length_bit(length: usize) -> u64 {
    if length == 0 || length > NAME_LEN {
        0
    } else {
        1 << (length - 1)
    }
}

/// By the first byte.
#[must_use]
#[inline]
pub const fn begin_bit(first: u8) -> u64 {
    1 << (first & 63)
}

/// Multilinear hashing of 32-bit words (Lemire and Kaser, <https://arxiv.org/abs/1202.4961>), two
/// of them. A name has no NUL, so that zeroes behind it change nothing.
#[must_use]
pub fn name_hash(keys: &[u64; NAME_KEYS], name: &[u8]) -> u64 {
    let (mut high, mut low) = (0_u64, 0_u64);
    for (word, keys) in name.chunks(4).zip(keys.chunks_exact(2)) {
        let mut bytes = [0; 4];
        for (to, byte) in bytes.iter_mut().zip(word) {
            *to = *byte;
        }
        let word = u64::from(u32::from_le_bytes(bytes));
        if let [first, second] = keys {
            high = high.wrapping_add(first.wrapping_mul(word));
            low = low.wrapping_add(second.wrapping_mul(word));
        }
    }
    both(high, low)
}

/// The halves that are hashes of their own.
#[must_use]
#[inline]
pub const fn both(high: u64, low: u64) -> u64 {
    (high >> 32 << 32) | low >> 32
}

const _: () = assert!(size_of::<NameKey>() == 16);
const _: () = assert!(size_of::<PathNode>() == 32);
const _: () = assert!(size_of::<PathRoot>() == 3 * 32 + 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_each_byte() {
        let mut seed = 11_u64;
        let keys = core::array::from_fn(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed ^ seed >> 29
        });
        let mut name = [b'a'; NAME_LEN];
        let whole = name_hash(&keys, &name);
        for index in 0..NAME_LEN {
            name[index] = b'b';
            assert_ne!(name_hash(&keys, &name), whole, "byte {index}");
            name[index] = b'a';
            assert_ne!(name_hash(&keys, &name[..index]), whole, "cut at {index}");
        }
        assert_eq!(name_hash(&keys, &name), whole);
        assert_eq!(length_bit(NAME_LEN), 1 << 63);
        assert_eq!(length_bit(NAME_LEN + 1), 0);
        assert_eq!(begin_bit(b'z'), 1 << 58);
    }
}
