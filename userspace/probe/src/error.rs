//! Why the kernel half could not be loaded or asked.

use std::{io, path::PathBuf};

/// Why the kernel half could not be loaded or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot read the kernel's types from {path}: eBPF needs a kernel with CONFIG_DEBUG_INFO_BTF"
    )]
    Btf {
        path: PathBuf,
        source: btf_rs::Error,
    },
    #[error("cannot {op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "cannot load the kernel half; paddock needs root (CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN)"
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
    #[error("the event rings were already taken")]
    EventsTaken,
    #[error("cannot wait for the event rings")]
    Wait { source: io::Error },
}
