//! Why the kernel half could not be loaded or asked.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the kernel half could not be loaded or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot read the kernel's types from {path}: eBPF needs root and a kernel with CONFIG_DEBUG_INFO_BTF"
    )]
    Btf { path: PathBuf, source: io::Error },
    #[error("the kernel's types (BTF) are in a format that this paddock does not know")]
    BtfFormat,
    #[error("the kernel's types have changed: aya cannot read them")]
    AyaBtf { source: Box<aya::BtfError> },
    #[error("the agent must run in the host's pid namespace (start it outside of containers)")]
    PidNamespace,
    #[error("cannot {op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "cannot load the kernel half; paddock needs root with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    Load { source: Box<aya::EbpfError> },
    #[error("the kernel half has no map {name}")]
    NoMap { name: &'static str },
    #[error("cannot {op} kernel map {map}")]
    Map {
        op: &'static str,
        map: &'static str,
        source: Box<aya::maps::MapError>,
    },
    #[error("cannot pin {path}")]
    Pin {
        path: PathBuf,
        source: aya::pin::PinError,
    },
    #[error("cannot take over {path}")]
    Link {
        path: PathBuf,
        source: Box<aya::programs::links::LinkError>,
    },
    #[error("cannot attach {path} again")]
    Program {
        path: PathBuf,
        source: Box<aya::programs::ProgramError>,
    },
    #[error("cannot load {program}, which judges paths: {reason}")]
    Late { program: String, reason: String },
    #[error(
        "policies name {nets} nets, of which {most} have room at once (each counts once for every \
         protocol that it is told apart by); merge nets, or let fewer policies differ"
    )]
    PeersFull { nets: usize, most: usize },
    #[error(
        "policies name {names} files and directories, with those above them, of which {most} have \
         room at once; name directories, or let fewer policies differ"
    )]
    PathsFull { names: usize, most: usize },
    #[error("the event rings were already taken")]
    EventsTaken,
    #[error("cannot wait for the event rings")]
    Wait { source: io::Error },
}

impl Error {
    pub(crate) fn map(op: &'static str, map: &'static str, source: aya::maps::MapError) -> Self {
        Self::Map {
            op,
            map,
            source: Box::new(source),
        }
    }

    pub(crate) fn link(path: &Path, source: aya::programs::links::LinkError) -> Self {
        Self::Link {
            path: path.to_owned(),
            source: Box::new(source),
        }
    }

    /// For `map_err`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}
