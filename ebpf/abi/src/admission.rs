//! Which records may ride the ring of the many, and how two generations of programs share an event.
//!
//! A container may tell so many records a second. Of what passes, everything is told while the
//! ring is emptier than [`PRESSURE_LOW`]; from there a token bucket lets ever fewer pass, and
//! from [`PRESSURE_HIGH`] on none. Records that the agent itself needs wait for no bucket but
//! the container's. Whatever is withheld is counted by its reason.

/// Bytes of the ring of the many.
pub const EVENTS_BYTES: usize = 1 << 20;
/// Bytes waiting in it up to which every record passes: 40 %.
pub const PRESSURE_LOW: u64 = EVENTS_BYTES as u64 * 40 / 100;
/// From here on none does: 90 %.
pub const PRESSURE_HIGH: u64 = EVENTS_BYTES as u64 * 90 / 100;
/// Between two records at the lower bound, on the whole machine: 50,000 a second, and none at
/// the upper one.
pub const PRESSURE_PERIOD_NS: u64 = 20_000;
/// A hundredth of a second's records may come at once.
pub const PRESSURE_BURST_NS: u64 = 10_000_000;

/// Between two records of one capability or device that a container asks for against its policy:
/// some are asked for at every open, and the ring of what is serious is not theirs. So many may
/// come at once.
pub const ASKED_PERIOD_NS: u64 = 100_000_000;
pub const ASKED_BURST_NS: u64 = 10 * ASKED_PERIOD_NS;

/// Grows when what a map holds changes its meaning but not its size: programs of one layout
/// go on with the maps of another only where both agree.
pub const LAYOUT: u64 = 4;

/// What user space decides for every hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Between two records of one container at its rate; 0 limits none.
    pub rate_period_ns: u64,
    /// How far ahead of its rate a container may be.
    pub rate_burst_ns: u64,
    /// While programs of two generations hang on the same hooks, the newer one's number.
    pub swapping: u64,
    /// Number of the newest generation that was ever loaded over these maps.
    pub generation: u64,
    /// [`LAYOUT`] of who made the maps.
    pub layout: u64,
}

/// Who has an event that two generations of a program see: the first of them to run on its
/// thread, at the time that is the value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub thread: u64,
    /// In which order they run there.
    pub order: u64,
}

/// An event of a process that several programs may see, on this hook and on others; whoever
/// enters it first has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub tgid: u32,
    /// Of [`done`].
    pub what: u32,
    /// Start of the task that it is told of, since ids come back.
    pub born: u64,
    /// Which exec of the process.
    pub nth: u64,
}

/// What is done once.
pub mod done {
    pub const FORK: u32 = 1;
    pub const EXEC: u32 = 2;
    pub const EXIT: u32 = 3;
}

/// So old a claim at most is the same event's. Both generations hang on all hooks for longer.
pub const FRESH_NS: u64 = 200_000_000;

const _: () = assert!(size_of::<Control>() == 40);
const _: () = assert!(size_of::<Claim>() == 16);
const _: () = assert!(size_of::<Done>() == 24);
