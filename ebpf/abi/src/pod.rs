//! What aya may copy out of and into maps.

use crate::{
    admission::{Claim, Control},
    counters::{RingCounters, SlotCounters},
    guard::{Guard, ObjectKey},
    key::{
        CgroupKey, DeviceKey, FileKey, InFlight, Observation, PathKey, PathSlot, SetUp, SlotConfig,
        SlotPlace, State,
    },
    network::{PeerKey, Ports},
    path::{NameKey, PathNode},
    policy::{Answers, HitKey},
};

// SAFETY: all are repr(C) structs of integers and arrays of integers without implicit padding
// (their sizes, asserted beside them, are the sums of their fields), so every byte is initialised
// and every bit pattern is a value.
unsafe impl aya::Pod for Answers {}
// SAFETY: as above.
unsafe impl aya::Pod for CgroupKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Claim {}
// SAFETY: as above.
unsafe impl aya::Pod for Control {}
// SAFETY: as above.
unsafe impl aya::Pod for DeviceKey {}
// SAFETY: as above.
unsafe impl aya::Pod for FileKey {}
// SAFETY: as above.
unsafe impl aya::Pod for HitKey {}
// SAFETY: as above.
unsafe impl aya::Pod for InFlight {}
// SAFETY: as above.
unsafe impl aya::Pod for Observation {}
// SAFETY: as above.
unsafe impl aya::Pod for PeerKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Ports {}
// SAFETY: as above.
unsafe impl aya::Pod for NameKey {}
// SAFETY: as above.
unsafe impl aya::Pod for PathNode {}
// SAFETY: as above.
unsafe impl aya::Pod for RingCounters {}
// SAFETY: as above.
unsafe impl aya::Pod for SlotConfig {}
// SAFETY: as above.
unsafe impl aya::Pod for SlotCounters {}
// SAFETY: as above.
unsafe impl aya::Pod for State {}
// SAFETY: as above.
unsafe impl aya::Pod for PathKey {}
// SAFETY: as above.
unsafe impl aya::Pod for PathSlot {}
// SAFETY: as above.
unsafe impl aya::Pod for SetUp {}
// SAFETY: as above.
unsafe impl aya::Pod for SlotPlace {}
// SAFETY: as above.
unsafe impl aya::Pod for Guard {}
// SAFETY: as above.
unsafe impl aya::Pod for ObjectKey {}
