//! What the kernel half's maps and rings take of the kernel's memory.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    maps::{MapInfo, MapType},
    programs::ProgramInfo,
};
use serde::{Deserialize, Serialize};

use crate::{Probe, maps::PINNED, pins};

/// What one map takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapMemory {
    /// At most 15 bytes: the kernel keeps no more of a name.
    pub map: String,
    /// `hash`, `array`, `ring`, `lru_hash` or `other`.
    pub kind: String,
    /// The kernel's own figure (`memlock` in fdinfo(5)): with all entries in use before 6.4,
    /// those there are since.
    pub bytes: u64,
}

impl Probe {
    /// Every map that a program of this kernel half uses, or that is pinned for those that this
    /// kernel refused; the largest first.
    pub fn memory(&self) -> Vec<MapMemory> {
        let mut found = BTreeMap::new();
        for program in &self.manifest.programs {
            let ids = ProgramInfo::from_pin(pins::program_path(&self.pin_dir, program))
                .and_then(|info| info.map_ids());
            for id in ids.ok().flatten().unwrap_or_default() {
                if let Ok(info) = MapInfo::from_id(id) {
                    found.entry(id).or_insert_with(|| of(&info));
                }
            }
        }
        for name in PINNED {
            if let Ok(info) = MapInfo::from_pin(pins::map_path(&self.pin_dir, name)) {
                found.entry(info.id()).or_insert_with(|| of(&info));
            }
        }
        let mut all: Vec<_> = found.into_values().collect();
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.map.cmp(&b.map)));
        all
    }
}

fn of(info: &MapInfo) -> MapMemory {
    let kind = info.map_type().ok();
    let told = info
        .fd()
        .ok()
        .and_then(|fd| memlock(fd.as_fd().as_raw_fd()))
        .unwrap_or(0);
    let bytes = match kind {
        // From 5.11 to 6.3 the kernel multiplies a ring's bytes by the size of its values: none.
        Some(MapType::RingBuf) => told.max(info.max_entries().into()),
        _ => told,
    };
    MapMemory {
        map: info.name_as_str().unwrap_or_default().to_owned(),
        kind: match kind {
            Some(MapType::Hash) => "hash",
            Some(MapType::Array) => "array",
            Some(MapType::RingBuf) => "ring",
            Some(MapType::LruHash) => "lru_hash",
            _ => "other",
        }
        .to_owned(),
        bytes,
    }
}

fn memlock(fd: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}
