//! Questions to the running kernel's BTF: where a field is, what a prototype says.
//!
//! One pass over the types notes where each begins; names are compared when somebody asks.
//! aya keeps its reader's members private, and one that makes an object of each of the 150,000
//! types took a third of an agent's start. The format is
//! <https://docs.kernel.org/bpf/btf.html#type-encoding>.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{Btf, Endianness};

use crate::Error;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u32 = 0xeb9f;
/// `struct btf_type`: name, info, size or type.
const TYPE_SIZE: usize = 12;
const MEMBER_SIZE: usize = 12;
const ENUMERATOR_SIZE: usize = 8;
const PARAMETER_SIZE: usize = 8;
/// How many typedefs, pointers and qualifiers may follow each other.
const CHAIN: usize = 32;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// The running kernel's types.
pub(crate) struct KernelTypes {
    bytes: Vec<u8>,
    /// Where names are.
    strings: usize,
    /// Where each type begins, by its id; 0 is `void`.
    starts: Vec<usize>,
    structs: Vec<Entry>,
    enums: Vec<Entry>,
    typedefs: Vec<Entry>,
    functions: Vec<Entry>,
}

/// A type's first three words, and where what follows them begins.
#[derive(Clone, Copy)]
struct Entry {
    name: u32,
    info: u32,
    /// A type's id, for the kinds that name another; of a struct its size.
    other: u32,
    rest: usize,
}

impl Entry {
    fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Members' offsets have a bit field's width in the top byte.
    fn has_bit_fields(self) -> bool {
        self.info >> 31 != 0
    }

    /// Bytes that follow the three words; `None` for a kind of a later format.
    fn rest_size(self) -> Option<usize> {
        Some(match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION => MEMBER_SIZE * self.count(),
            kind::ENUM => ENUMERATOR_SIZE * self.count(),
            kind::FUNC_PROTO => PARAMETER_SIZE * self.count(),
            kind::DATASEC | kind::ENUM64 => 12 * self.count(),
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => 0,
            _ => return None,
        })
    }

    fn is_qualifier(self) -> bool {
        matches!(
            self.kind(),
            kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG
        )
    }
}

impl KernelTypes {
    pub(crate) fn read() -> Result<Self, Error> {
        let path = Path::new(VMLINUX);
        let bytes = fs::read(path).map_err(|source| Error::Btf {
            path: PathBuf::from(path),
            source,
        })?;
        Self::parse(bytes).ok_or(Error::BtfFormat)
    }

    /// The same types for aya, which relocates programs by them.
    pub(crate) fn for_aya(&self) -> Result<Btf, Error> {
        Btf::parse(&self.bytes, Endianness::default()).map_err(|source| Error::AyaBtf {
            source: Box::new(source),
        })
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut types = Self {
            bytes,
            strings: 0,
            starts: vec![0],
            structs: Vec::new(),
            enums: Vec::new(),
            typedefs: Vec::new(),
            functions: Vec::new(),
        };
        let magic = types.word(0)? & 0xffff;
        let header = types.word(4)? as usize;
        let mut at = header + types.word(8)? as usize;
        let end = at + types.word(12)? as usize;
        types.strings = header + types.word(16)? as usize;
        if magic != MAGIC {
            return None;
        }
        while at < end {
            let entry = types.entry(at)?;
            match entry.kind() {
                kind::STRUCT => types.structs.push(entry),
                kind::ENUM => types.enums.push(entry),
                kind::TYPEDEF => types.typedefs.push(entry),
                kind::FUNC => types.functions.push(entry),
                _ => {}
            }
            types.starts.push(at);
            at = entry.rest + entry.rest_size()?;
        }
        Some(types)
    }

    /// Byte offset of a field, also one inside anonymous structs and unions.
    pub(crate) fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        self.named(&self.structs, structure)
            .find_map(|found| self.bit_offset(found, field))
            .map(|bits| bits / 8)
    }

    fn bit_offset(&self, structure: Entry, field: &str) -> Option<u32> {
        (0..structure.count()).find_map(|index| {
            let at = structure.rest + index * MEMBER_SIZE;
            let (name, of_type) = (self.word(at)?, self.word(at + 4)?);
            let mut offset = self.word(at + 8)?;
            if structure.has_bit_fields() {
                offset &= 0x00ff_ffff;
            }
            if name != 0 {
                return self.is(name, field).then_some(offset);
            }
            let inner = self.follow(of_type, Entry::is_qualifier)?;
            matches!(inner.kind(), kind::STRUCT | kind::UNION)
                .then(|| self.bit_offset(inner, field))?
                .map(|bits| offset + bits)
        })
    }

    /// Bytes of a struct.
    pub(crate) fn size(&self, structure: &str) -> Option<u32> {
        let mut found = self.named(&self.structs, structure);
        found.next().map(|found| found.other)
    }

    /// Value of an enumerator.
    pub(crate) fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        self.named(&self.enums, enumeration).find_map(|found| {
            (0..found.count()).find_map(|index| {
                let at = found.rest + index * ENUMERATOR_SIZE;
                self.is(self.word(at)?, name).then(|| self.word(at + 4))?
            })
        })
    }

    /// Whether BTF has a function of this name, so that fentry could hook it.
    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.named(&self.functions, name).next().is_some()
    }

    /// What a BTF tracepoint passes: the name of each parameter's struct, empty for other types.
    /// `None` where the kernel has no such tracepoint.
    pub(crate) fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let typedef = format!("btf_trace_{name}");
        let found = self.named(&self.typedefs, &typedef).next()?;
        let proto = self.follow(found.other, is_on_the_way)?;
        if proto.kind() != kind::FUNC_PROTO {
            return None;
        }
        // The first parameter is the tracepoint's private data.
        let parameters = (1..proto.count()).map(|index| {
            let of_type = self.word(proto.rest + index * PARAMETER_SIZE + 4)?;
            let pointee = self.follow(of_type, is_on_the_way)?;
            (pointee.kind() == kind::STRUCT).then(|| self.name(pointee.name).to_owned())
        });
        Some(parameters.map(Option::unwrap_or_default).collect())
    }

    fn named<'a>(
        &'a self,
        entries: &'a [Entry],
        name: &'a str,
    ) -> impl Iterator<Item = Entry> + 'a {
        entries
            .iter()
            .copied()
            .filter(move |entry| self.is(entry.name, name))
    }

    /// The first type from `id` on that `through` does not lead through; `None` for `void`.
    fn follow(&self, mut id: u32, through: fn(Entry) -> bool) -> Option<Entry> {
        for _ in 0..CHAIN {
            let start = *self.starts.get(id as usize)?;
            let entry = (id != 0).then(|| self.entry(start))??;
            if !through(entry) {
                return Some(entry);
            }
            id = entry.other;
        }
        None
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        Some(Entry {
            name: self.word(at)?,
            info: self.word(at + 4)?,
            other: self.word(at + 8)?,
            rest: at + TYPE_SIZE,
        })
    }

    fn is(&self, name: u32, wanted: &str) -> bool {
        let start = self.strings + name as usize;
        self.bytes.get(start..).is_some_and(|rest| {
            rest.starts_with(wanted.as_bytes()) && rest.get(wanted.len()) == Some(&0)
        })
    }

    fn name(&self, name: u32) -> &str {
        let rest = self
            .bytes
            .get(self.strings + name as usize..)
            .unwrap_or(&[]);
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(0);
        str::from_utf8(&rest[..end]).unwrap_or_default()
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }
}

fn is_on_the_way(entry: Entry) -> bool {
    entry.is_qualifier() || entry.kind() == kind::PTR
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The witness is bpftool's own reading of the same BTF, where it is installed.
    #[test]
    fn reads_what_the_c_compiler_saw() {
        let types = KernelTypes::read().unwrap();
        assert_eq!(types.offset("list_head", "prev"), Some(8));
        assert_eq!(types.offset("nsproxy", "count"), Some(0));
        // Behind an anonymous union on every kernel.
        assert!(
            types
                .offset("kernfs_node", "id")
                .is_some_and(|offset| offset > 8)
        );
        assert_eq!(types.offset("nsproxy", "no_such_field"), None);
        assert!(
            types
                .enumerator("cgroup_subsys_id", "memory_cgrp_id")
                .is_some()
        );
        assert_eq!(
            types.tracepoint("sched_process_fork"),
            Some(vec!["task_struct".to_owned(), "task_struct".to_owned()])
        );
        assert_eq!(types.tracepoint("no_such_tracepoint"), None);
        assert!(types.has_function("__x64_sys_setns") || types.has_function("__arm64_sys_setns"));
        assert!(!types.has_function("no_such_function"));
    }

    /// A struct `s { int a:3; struct { int b; }; }`, by hand.
    #[test]
    fn walks_bit_fields_and_anonymous_members() {
        let strings = b"\0s\0a\0b\0";
        let types: &[&[u32]] = &[
            &[0, kind::INT << 24, 4, 32],
            &[0, kind::STRUCT << 24 | 1, 4, 5, 1, 0],
            &[0, kind::CONST << 24, 2],
            &[
                1,
                1 << 31 | kind::STRUCT << 24 | 2,
                8,
                3,
                1,
                3 << 24 | 8,
                0,
                3,
                32,
            ],
        ];
        let types: Vec<u32> = types.concat();
        let length = 4 * u32::try_from(types.len()).unwrap();
        let header = [
            MAGIC | 1 << 16,
            24,
            0,
            length,
            length,
            u32::try_from(strings.len()).unwrap(),
        ];
        let words = header
            .iter()
            .chain(&types)
            .flat_map(|word| word.to_ne_bytes());
        let bytes: Vec<u8> = words.chain(*strings).collect();
        let types = KernelTypes::parse(bytes.clone()).unwrap();
        assert_eq!(types.offset("s", "a"), Some(1));
        assert_eq!(types.offset("s", "b"), Some(4));
        for length in 0..bytes.len() {
            // Cut anywhere: no panic.
            let cut = KernelTypes::parse(bytes[..length].to_vec());
            assert_eq!(
                cut.and_then(|types| types.offset("s", "b")),
                None,
                "{length}"
            );
        }
    }
}
