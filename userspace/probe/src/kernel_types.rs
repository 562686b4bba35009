//! Questions to the running kernel's BTF: where a field is, what a prototype says.
//!
//! aya keeps its reader's members private, so this one walks with `btf-rs`.

use std::path::{Path, PathBuf};

use btf_rs::{Btf, BtfType, Struct, Type};

use crate::Error;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel's types.
pub(crate) struct KernelTypes {
    btf: Btf,
}

impl KernelTypes {
    pub(crate) fn read() -> Result<Self, Error> {
        Btf::from_file(Path::new(VMLINUX))
            .map(|btf| Self { btf })
            .map_err(|source| Error::Btf {
                path: PathBuf::from(VMLINUX),
                source,
            })
    }

    /// Byte offset of a field, also one inside anonymous structs and unions.
    pub(crate) fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        let types = self.btf.resolve_types_by_name(structure).ok()?;
        types.iter().find_map(|ty| match ty {
            Type::Struct(members) => self.bit_offset(members, field).map(|bits| bits / 8),
            _ => None,
        })
    }

    fn bit_offset(&self, structure: &Struct, field: &str) -> Option<u32> {
        structure.members.iter().find_map(|member| {
            let name = self.btf.resolve_name(member).unwrap_or_default();
            if name == field {
                return Some(member.bit_offset());
            }
            if !name.is_empty() {
                return None;
            }
            match self.btf.resolve_chained_type(member).ok()? {
                Type::Struct(inner) | Type::Union(inner) => self
                    .bit_offset(&inner, field)
                    .map(|bits| member.bit_offset() + bits),
                _ => None,
            }
        })
    }

    /// Value of an enumerator.
    pub(crate) fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let types = self.btf.resolve_types_by_name(enumeration).ok()?;
        types.iter().find_map(|ty| match ty {
            Type::Enum(values) => values
                .members
                .iter()
                .find(|value| {
                    self.btf
                        .resolve_name(*value)
                        .is_ok_and(|found| found == name)
                })
                .map(btf_rs::EnumMember::val),
            _ => None,
        })
    }

    /// Whether BTF has a function of this name, so that fentry could hook it.
    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.btf
            .resolve_types_by_name(name)
            .is_ok_and(|types| types.iter().any(|ty| matches!(ty, Type::Func(_))))
    }

    /// What a BTF tracepoint passes: the name of each parameter's struct, empty for other types.
    /// `None` where the kernel has no such tracepoint.
    pub(crate) fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let types = self
            .btf
            .resolve_types_by_name(&format!("btf_trace_{name}"))
            .ok()?;
        let typedef = types
            .iter()
            .find(|ty| matches!(ty, Type::Typedef(_)))?
            .as_btf_type()?;
        let proto = self
            .btf
            .chained_type_iter(typedef)
            .find_map(|ty| match ty {
                Type::FuncProto(proto) => Some(proto),
                _ => None,
            })?;
        // The first parameter is the tracepoint's private data.
        Some(
            proto
                .parameters
                .iter()
                .skip(1)
                .map(|parameter| self.pointee(parameter))
                .collect(),
        )
    }

    fn pointee(&self, parameter: &dyn BtfType) -> String {
        self.btf
            .chained_type_iter(parameter)
            .find_map(|ty| match ty {
                Type::Struct(found) => Some(self.btf.resolve_name(&found).unwrap_or_default()),
                _ => None,
            })
            .unwrap_or_default()
    }
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
    }
}
