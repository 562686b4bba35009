//! What guards the kernel half itself: whose its maps, programs, links and pins are to touch.

/// [`Guard::mode`].
pub mod mode {
    /// Nothing is asked.
    pub const OFF: u32 = 0;
    /// What would be refused is counted.
    pub const AUDIT: u32 = 1;
    pub const ENFORCE: u32 = 2;
    /// And signals to the agent are refused, but those of the first process.
    pub const STRICT: u32 = 3;
}

/// What somebody else reached for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampered {
    Map = 0,
    Program = 1,
    Link = 2,
    /// A name in the bpffs.
    Pin = 3,
    /// The bpffs itself.
    Mount = 4,
    /// The agent.
    Process = 5,
}

pub const TAMPERED_KINDS: usize = 6;

impl Tampered {
    pub const ALL: [Self; TAMPERED_KINDS] = [
        Self::Map,
        Self::Program,
        Self::Link,
        Self::Pin,
        Self::Mount,
        Self::Process,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Program => "program",
            Self::Link => "link",
            Self::Pin => "pin",
            Self::Mount => "mount",
            Self::Process => "process",
        }
    }
}

/// Cells of what was counted: of each kind what was let through, and what was refused.
pub const TAMPER_CELLS: usize = TAMPERED_KINDS * 2;

#[must_use]
#[inline]
pub const fn tamper_cell(kind: Tampered, denied: bool) -> usize {
    kind as usize * 2 + denied as usize
}

/// What user space says; one entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// One of [`mode`].
    pub mode: u32,
    /// A thread of the agent's whose next call of bpf shows who it is and where the pins are: its
    /// working directory; 0 is none.
    pub shower: u32,
}

/// What that call showed, as the kernel itself knows it; one entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The agent's process and when it began, by the kernel's clock for tasks.
    pub agent: u64,
    pub start: u64,
    /// The directory of its program, and the program's name there.
    pub directory: u64,
    pub device: u32,
    /// The bpffs' device.
    pub pins: u32,
    /// Its first bytes.
    pub name: [u64; 2],
    /// The mount of the bpffs.
    pub mount: u64,
}

/// An object of the kernel half's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// [`Tampered::Map`], [`Tampered::Program`] or [`Tampered::Link`].
    pub kind: u32,
    pub id: u32,
}

const _: () = assert!(size_of::<Guard>() == 8);
const _: () = assert!(size_of::<Shown>() == 56);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_cells_of_its_own() {
        let mut seen = [false; TAMPER_CELLS];
        for kind in Tampered::ALL {
            for denied in [false, true] {
                let cell = tamper_cell(kind, denied);
                assert!(!seen[cell], "{kind:?}");
                seen[cell] = true;
            }
        }
    }
}
