//! Files and devices that the kernel half knows by number.

use aya::maps::MapError;
use paddock_abi::key::{DeviceKey, FileKey, runtime_file};

use crate::{Error, Probe, Slot, slots::entries};

/// What a file of a container runtime's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuntimeFile {
    Program,
    /// The own one of the container of that slot, to which it is nothing foreign.
    Socket {
        of: Option<Slot>,
    },
}

/// A file's numbers, as `stat` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    pub inode: u64,
    pub major: u32,
    pub minor: u32,
}

/// `MKDEV` inside the kernel.
fn device(major: u32, minor: u32) -> u32 {
    major << 20 | (minor & 0xf_ffff)
}

impl Probe {
    /// The runtimes' files are these and no others.
    pub fn set_runtime_files(&mut self, files: &[(FileId, RuntimeFile)]) -> Result<(), Error> {
        let wanted: Vec<(FileKey, u32)> = files
            .iter()
            .map(|(file, kind)| {
                let key = FileKey {
                    inode: file.inode,
                    device: device(file.major, file.minor),
                    pad: 0,
                };
                let kind = match kind {
                    RuntimeFile::Program => runtime_file::PROGRAM,
                    RuntimeFile::Socket { of } => {
                        runtime_file::socket_of(of.map_or(0, |slot| slot.0))
                    }
                };
                (key, kind)
            })
            .collect();
        let map = &mut self.maps.runtime_files;
        for (key, kind) in &wanted {
            map.insert(key, kind, 0)
                .map_err(|source| Error::map("write", "RUNTIME_FILES", source))?;
        }
        for (key, _) in entries("RUNTIME_FILES", map.iter())? {
            if !wanted.iter().any(|(wanted, _)| *wanted == key) {
                match map.remove(&key) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(source) => return Err(Error::map("write", "RUNTIME_FILES", source)),
                }
            }
        }
        Ok(())
    }

    /// A block device that the container was given: opening it is no escape.
    pub fn give_device(&mut self, slot: Slot, major: u32, minor: u32) -> Result<(), Error> {
        let key = DeviceKey {
            slot: slot.0,
            device: device(major, minor),
        };
        self.maps
            .slot_devices
            .insert(key, 1, 0)
            .map_err(|source| Error::map("write", "SLOT_DEVICES", source))
    }

    /// Forgets the slots' devices.
    pub(crate) fn take_devices(&mut self, slots: &[Slot]) -> Result<(), Error> {
        let map = &mut self.maps.slot_devices;
        for (key, _) in entries("SLOT_DEVICES", map.iter())? {
            if slots.contains(&Slot(key.slot)) {
                match map.remove(&key) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(source) => return Err(Error::map("write", "SLOT_DEVICES", source)),
                }
            }
        }
        Ok(())
    }
}
