//! A new generation of programs in the old one's place: no call unseen, none counted twice.
//!
//! The maps stay. While `CONTROL` says that programs are being swapped, each event is claimed
//! by the first program that sees it (`ebpf/programs/src/once.rs`); the new ones are attached,
//! then the old ones let go. The order and why it holds: docs/adr/0016. A loader that dies
//! anywhere in between leaves a state from which the next one starts over.

use std::{
    collections::HashSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{Array, HashMap, Map, MapData, MapInfo},
    programs::{ProgramInfo, loaded_programs},
};
use aya_obj::Object;
use paddock_abi::{
    admission::{Control, FRESH_NS, LAYOUT},
    key::InFlight,
};
use rustix::thread::{MembarrierCommand, membarrier};

use crate::{
    Error,
    load::{Bridge, OBJECT},
    maps::{Maps, PINNED, typed},
    pins,
};

/// Generation over fresh maps.
pub(crate) const FIRST: u32 = 1;
/// The kernel detaches from a work queue; loaded machines take their time.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// A call of setns or unshare that takes longer is seldom.
const CALL: Duration = Duration::from_secs(2);
/// Where the kernel has no barrier to wait on (a processor without ticks).
const SETTLED: Duration = Duration::from_millis(200);

/// Whether the maps that are pinned are those that this object would make, by kind, sizes and
/// what their content means; else a short reason.
pub(crate) fn maps_fit(pin_dir: &Path) -> Result<(), String> {
    let object = Object::parse(OBJECT).map_err(|error| error.to_string())?;
    for name in PINNED {
        let wanted = object
            .maps
            .get(*name)
            .ok_or_else(|| format!("no map {name} in the object"))?;
        let found = MapInfo::from_pin(pins::map_path(pin_dir, name))
            .map_err(|_| format!("no map {name} is pinned"))?;
        let kind = found.map_type().map(|kind| kind as u32);
        let same = kind.is_ok_and(|kind| kind == wanted.map_type())
            && found.key_size() == wanted.key_size()
            && found.value_size() == wanted.value_size()
            && found.max_entries() == wanted.max_entries();
        if !same {
            return Err(format!("map {name} has another form"));
        }
    }
    let control = control(pin_dir).map_err(|error| error.to_string())?;
    let layout = read(&control).layout;
    if layout == LAYOUT {
        Ok(())
    } else {
        Err(format!("its maps are of layout {layout}, not {LAYOUT}"))
    }
}

fn control(pin_dir: &Path) -> Result<Array<MapData, Control>, Error> {
    let map = MapData::from_pin(pins::map_path(pin_dir, "CONTROL"))
        .and_then(Map::from_map_data)
        .map_err(|source| Error::map("open pinned", "CONTROL", source))?;
    typed("CONTROL", map)
}

pub(crate) fn read(control: &Array<MapData, Control>) -> Control {
    control.get(&0, 0).unwrap_or_default()
}

pub(crate) fn write(control: &mut Array<MapData, Control>, value: Control) -> Result<(), Error> {
    control
        .set(0, value, 0)
        .map_err(|source| Error::map("write", "CONTROL", source))
}

/// From here on every event is claimed, by the old programs too. The number of the generation
/// to come.
pub(crate) fn begin(pin_dir: &Path) -> Result<u32, Error> {
    pins::clear_new(pin_dir)?;
    let mut control = control(pin_dir)?;
    let before = read(&control);
    if before.swapping != 0 {
        // One died on the way. Each hook has two programs at most, and one of them is the newest.
        let in_force = pins::programs_in_force(pin_dir)?;
        if !alone(pin_dir, &in_force)? {
            log::warn!("programs of an earlier agent stay attached; counts may be too high");
        }
    }
    let generation = before.generation + 1;
    let value = Control {
        swapping: generation,
        generation,
        ..before
    };
    write(&mut control, value)?;
    wait_for_running_programs();
    Ok(u32::try_from(generation).unwrap_or(u32::MAX))
}

/// From when on each event that only the old programs saw is too long ago to be taken for one
/// of the new ones'.
pub(crate) fn both_attached() {
    thread::sleep(Duration::from_nanos(FRESH_NS));
}

/// Takes the bridge down when the calls that may need it are over: those under way when the
/// last old program was let go, or for long enough.
pub(crate) fn cross(pin_dir: &Path, bridge: Bridge) {
    if bridge.is_empty() {
        return;
    }
    // Old links go from a work queue after their names.
    thread::sleep(SETTLED);
    let in_flight = MapData::from_pin(pins::map_path(pin_dir, "IN_FLIGHT"))
        .and_then(Map::from_map_data)
        .and_then(HashMap::<_, u64, InFlight>::try_from);
    if let Ok(in_flight) = in_flight {
        let mut under_way: Vec<u64> = in_flight.keys().flatten().collect();
        let deadline = Instant::now() + CALL;
        while !under_way.is_empty() && Instant::now() < deadline {
            under_way.retain(|thread| in_flight.get(thread, 0).is_ok());
            thread::sleep(PAUSE);
        }
    }
    drop(bridge);
}

/// Lets events go unclaimed again, once no programs but those in force use the maps. Where
/// others stay (somebody holds them), claims stay too, which is right and a little slower.
pub(crate) fn settle(pin_dir: &Path, maps: &mut Maps, programs: &[String]) -> Result<(), Error> {
    if read(&maps.control).swapping == 0 {
        return Ok(());
    }
    pins::clear_new(pin_dir)?;
    let ours: HashSet<u32> = programs
        .iter()
        .filter_map(|name| ProgramInfo::from_pin(pins::program_path(pin_dir, name)).ok())
        .map(|info| info.id())
        .collect();
    if !alone(pin_dir, &ours)? {
        log::warn!("programs of an earlier agent are still attached; events go on being claimed");
        return Ok(());
    }
    wait_for_running_programs();
    let value = Control {
        swapping: 0,
        ..read(&maps.control)
    };
    write(&mut maps.control, value)
}

/// Waits until no programs but `ours` use the maps.
fn alone(pin_dir: &Path, ours: &HashSet<u32>) -> Result<bool, Error> {
    let map = MapInfo::from_pin(pins::map_path(pin_dir, "CONTROL"))
        .map_err(|source| Error::map("open pinned", "CONTROL", source))?
        .id();
    let deadline = Instant::now() + PATIENCE;
    while others_use(map, ours) {
        if Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
    Ok(true)
}

/// Whether a program that is not one of `ours` uses the map.
fn others_use(map: u32, ours: &HashSet<u32>) -> bool {
    loaded_programs()
        // One that went while it was looked at is no longer there.
        .flatten()
        .filter(|info| !ours.contains(&info.id()))
        .any(|info| {
            info.map_ids()
                .is_ok_and(|ids| ids.is_some_and(|ids| ids.contains(&map)))
        })
}

/// No program that began before this still runs after it: a grace period of RCU, under which
/// programs run.
pub(crate) fn wait_for_running_programs() {
    if membarrier(MembarrierCommand::Global).is_err() {
        thread::sleep(SETTLED);
    }
}
