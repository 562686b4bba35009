//! The handle of a loaded kernel half: its life and its counts.

use std::{
    fmt, fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::{
        ProgramInfo,
        links::{FdLink, PinnedLink},
    },
};
use aya_log::EbpfLogger;
use paddock_abi::{
    admission::{Control, LAYOUT},
    key::State,
    network::PeerKey,
    path::NameKey,
};

use crate::{
    CapabilityStatus, Config, Error, EventReader, NsInums, Ring, RingCounters, Slot, SlotCounters,
    attachment::{self, Attachment, Kept},
    guard::Written,
    kernel_types::KernelTypes,
    late,
    load::{self, Loaded, OBJECT},
    maps::{Maps, typed},
    on_demand::{self, Demanded},
    paths, peers,
    pins::{self, Manifest},
    program_log::ProgramLog,
    selftest,
    slots::{Slots, exempt_from_last},
    swap,
    tables::Table,
};

/// A loaded kernel half. Dropping it leaves links and maps pinned and working;
/// [`Probe::unload`] takes everything away. `Send`, no method blocks for long.
pub struct Probe {
    pub(crate) pin_dir: PathBuf,
    pub(crate) maps: Maps,
    pub(crate) links: Vec<Kept>,
    pub(crate) demanded: Demanded,
    pub(crate) manifest: Manifest,
    adopted: bool,
    program_log: Option<ProgramLog>,
    pub(crate) peers: Table<(u8, PeerKey)>,
    pub(crate) paths: Table<NameKey>,
    pub(crate) slots: Slots,
    /// What others must not have changed.
    pub(crate) written: Written,
}

/// A program's cost, where `kernel.bpf_stats_enabled` is 1; else both are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Hook's name, such as `fentry_setns`.
    pub program: String,
    pub run_time_ns: u64,
    pub run_count: u64,
    /// Runs that the kernel left out, since a task inside the program had lost its processor.
    pub missed: u64,
}

/// A container's share of the ring of the many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRate {
    pub per_second: u32,
    /// Records that may come at once.
    pub burst: u32,
}

impl Probe {
    /// Loads, self-tests and pins; or adopts what a dead predecessor with the same object left;
    /// or puts its programs in the place of another object's and goes on with the same maps.
    /// Call before tokio starts or from a blocking thread: it makes threads and a child.
    pub fn load(config: &Config) -> Result<Self, Error> {
        require_host_pid_namespace()?;
        pins::prepare(&config.pin_dir)?;
        // In a container, as on Kubernetes, what follows would be that one's doing.
        exempt_from_last(&config.pin_dir);
        if let Some(manifest) =
            Manifest::read(&config.pin_dir).filter(|found| found.fits(OBJECT, config))
        {
            match Self::adopt(config, manifest) {
                Ok(probe) => return Ok(probe),
                Err(error) => log::warn!("what the last agent left cannot be taken over: {error}"),
            }
        }
        if pins::any_map(&config.pin_dir) {
            let swapped = swap::maps_fit(&config.pin_dir).and_then(|()| {
                swap::begin(&config.pin_dir)
                    .and_then(|generation| Self::put(config, generation))
                    .map_err(|error| error.to_string())
            });
            match swapped {
                Ok(probe) => return Ok(probe),
                Err(reason) => log::warn!("counts begin anew: {reason}"),
            }
        }
        pins::clear(&config.pin_dir)?;
        Self::put(config, swap::FIRST)
    }

    fn adopt(config: &Config, manifest: Manifest) -> Result<Self, Error> {
        let pin_dir = &config.pin_dir;
        let mut links = Vec::new();
        let linked = |one: &&String| !on_demand::is(one) && !on_demand::is_called(one);
        for program in manifest.programs.iter().filter(linked) {
            if let Some((_, place)) = manifest.held.iter().find(|(held, _)| held == program) {
                links.push(attachment::again(pin_dir, program, place)?);
                continue;
            }
            let path = pins::link_path(pin_dir, program);
            let link = PinnedLink::from_pin(&path).map_err(|source| Error::link(&path, source))?;
            links.push(Kept::Pinned(link));
        }
        let demanded = Demanded::adopt(pin_dir, &manifest.programs, manifest.once)?;
        let mut maps = Maps::from(|name| {
            MapData::from_pin(pins::map_path(pin_dir, name))
                .and_then(Map::from_map_data)
                .map_err(|source| Error::map("open pinned", name, source))
        })?;
        // Of one that died while it put its programs in the place of these.
        swap::settle(pin_dir, &mut maps, &manifest.programs)?;
        let (peers, paths) = (peers::known(&maps), paths::known(&maps));
        let slots = Slots::known(&maps);
        let mut probe = Self {
            pin_dir: pin_dir.clone(),
            maps,
            links,
            demanded,
            manifest,
            adopted: true,
            program_log: None,
            peers,
            paths,
            slots,
            written: Written::default(),
        };
        probe.introduce()?;
        Ok(probe)
    }

    /// Loads this object's programs, over another generation's or where none are.
    fn put(config: &Config, generation: u32) -> Result<Self, Error> {
        let types = KernelTypes::read()?;
        let Loaded {
            mut ebpf,
            attached,
            mut statuses,
            bridge,
        } = load::load(config, &types, generation)?;
        let program_log = config
            .program_log
            .then(|| EbpfLogger::init(&mut ebpf).ok())
            .flatten();
        let over = generation > swap::FIRST;
        let pin_dir = &config.pin_dir;
        let mut take = |name| ebpf.take_map(name).ok_or(Error::NoMap { name });
        let mut maps = Maps::from(&mut take)?;
        let observed = typed("OBSERVED", take("OBSERVED")?)?;
        if !over {
            begin(&mut maps, generation)?;
        }
        let (attached, host) =
            selftest::run(&ebpf, &mut maps, &observed, attached, &mut statuses, &types)?;
        let mut links = Vec::new();
        let mut demanded = Demanded::none();
        // By the first that hangs, while it does.
        let mut once = None;
        let (mut programs, mut held, mut tried) = (Vec::new(), Vec::new(), Vec::new());
        let (attached, late) = late::apart(attached);
        // What the old ones do at the moment, the new ones go on with.
        let goes_on = |name: &str| over && on_demand::hangs(pin_dir, name);
        for (name, link) in attached {
            pin_program(&mut ebpf, pin_dir, name)?;
            programs.push(name.to_owned());
            let path = pins::new_link_path(pin_dir, name);
            let pin = |link: FdLink| {
                let pinned = link.pin(&path);
                pinned.map_err(|source| Error::Pin { path, source })
            };
            let goes = on_demand::is(name) && matches!(link, Attachment::Link(_));
            let try_it = || on_demand::once_only(&pins::new_program_path(pin_dir, name));
            let once = goes && *once.get_or_insert_with(try_it);
            match link {
                Attachment::Link(link) if !goes => {
                    links.push(Kept::Pinned(pin(link)?));
                }
                Attachment::Link(link) if once || goes_on(name) => {
                    tried.push(name);
                    demanded.of(name).keep(name, pin(link)?);
                }
                Attachment::Held(link, place) => {
                    held.push((name.to_owned(), place));
                    links.push(Kept::Held(link));
                }
                // Loads, attaches, sees: goes until it is wanted.
                _ => {}
            }
        }
        let once = once.unwrap_or(false);
        demanded.set_once(once);
        // With them goes what was loaded and does not serve.
        drop(ebpf);
        if over {
            swap::both_attached();
        }
        pins::forget(pin_dir)?;
        let without_link = |program: &str| {
            held.iter().any(|(one, _)| one == program)
                || on_demand::is_called(program)
                || (on_demand::is(program) && !goes_on(program) && !tried.contains(&program))
        };
        pins::put_in_force(pin_dir, &programs, without_link)?;
        swap::cross(pin_dir, bridge);
        swap::settle(pin_dir, &mut maps, &programs)?;
        let manifest = Manifest {
            object: pins::fingerprint(OBJECT),
            force: config.force.clone(),
            program_log: config.program_log,
            capabilities: statuses,
            programs,
            late,
            held,
            once,
            host,
        };
        manifest.write(pin_dir)?;
        let (peers, paths) = (peers::known(&maps), paths::known(&maps));
        let slots = Slots::known(&maps);
        let mut probe = Self {
            pin_dir: pin_dir.clone(),
            maps,
            links,
            demanded,
            manifest,
            adopted: over,
            program_log: program_log.map(ProgramLog::new),
            peers,
            paths,
            slots,
            written: Written::default(),
        };
        probe.introduce()?;
        Ok(probe)
    }

    /// Detaches everything, unpins, unmounts the bpffs.
    pub fn unload(self) -> Result<(), Error> {
        let Self {
            pin_dir,
            links,
            demanded,
            maps,
            ..
        } = self;
        // Handles first: what nobody holds is gone when its pin is.
        drop((links, demanded, maps));
        pins::remove(&pin_dir)
    }

    /// The same for what a dead agent left in `pin_dir`. Nothing there is no error.
    pub fn unload_pins(pin_dir: &Path) -> Result<(), Error> {
        pins::remove(pin_dir)
    }

    /// Whether a predecessor's programs and maps were taken over (`tracked` then tells what they track).
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    pub fn capabilities(&self) -> Vec<CapabilityStatus> {
        self.manifest.capabilities.clone()
    }

    /// The first namespaces, as the kernel's own first task has them.
    pub fn host_namespaces(&self) -> NsInums {
        self.manifest.host
    }

    /// Slot 0 is everything outside of all containers.
    pub fn slot_counters(&self, slot: Slot) -> Result<SlotCounters, Error> {
        self.maps
            .slot_counters
            .get(&slot.0, 0)
            .map_err(|source| Error::map("read", "SLOT_COUNTERS", source))
    }

    /// Since the programs were loaded (an adopted predecessor's time included).
    pub fn ring_counters(&self) -> Result<[(Ring, RingCounters); 2], Error> {
        let read = |ring: Ring| {
            self.maps
                .ring_counters
                .get(&(ring as u32), 0)
                .map(|counters| (ring, counters))
                .map_err(|source| Error::map("read", "RING_COUNTERS", source))
        };
        Ok([read(Ring::Critical)?, read(Ring::Events)?])
    }

    /// How many records of the many each container may tell; what is more is withheld and
    /// counted. `None` limits none.
    pub fn limit_records(&mut self, rate: Option<RecordRate>) -> Result<(), Error> {
        let (rate_period_ns, rate_burst_ns) = rate.map_or((0, 0), |rate| {
            let period = 1_000_000_000 / u64::from(rate.per_second.max(1));
            (period, period.saturating_mul(u64::from(rate.burst)))
        });
        let control = Control {
            rate_period_ns,
            rate_burst_ns,
            ..swap::read(&self.maps.control)
        };
        swap::write(&mut self.maps.control, control)
    }

    /// By program, in the order of the ladder.
    pub fn program_stats(&self) -> Vec<ProgramStats> {
        self.manifest
            .programs
            .iter()
            .filter_map(|program| {
                let info =
                    ProgramInfo::from_pin(pins::program_path(&self.pin_dir, program)).ok()?;
                Some(ProgramStats {
                    program: program.clone(),
                    run_time_ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
                    run_count: info.run_count(),
                    missed: missed(&info).unwrap_or(0),
                })
            })
            .collect()
    }

    /// The reader of both rings, once; call inside a tokio runtime with IO enabled.
    pub fn take_events(&mut self) -> Result<EventReader, Error> {
        EventReader::new(self.maps.rings.take().ok_or(Error::EventsTaken)?)
    }

    /// The programs' own debug lines, where `Config::program_log` asked for them and nothing was adopted.
    pub fn take_program_log(&mut self) -> Option<ProgramLog> {
        self.program_log.take()
    }
}

/// What the first generation begins with.
fn begin(maps: &mut Maps, generation: u32) -> Result<(), Error> {
    let control = Control {
        layout: LAYOUT,
        generation: generation.into(),
        ..Control::default()
    };
    swap::write(&mut maps.control, control)?;
    paths::begin(maps)
}

fn pin_program(ebpf: &mut Ebpf, pin_dir: &Path, name: &str) -> Result<(), Error> {
    let Some(program) = ebpf.program_mut(name) else {
        return Ok(());
    };
    let path = pins::new_program_path(pin_dir, name);
    program
        .pin(&path)
        .map_err(|source| Error::Pin { path, source })
}

/// As the descriptor tells since Linux 5.12.
fn missed(info: &ProgramInfo) -> Option<u64> {
    let program = info.fd().ok()?;
    let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    count.trim().parse().ok()
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe")
            .field("pin_dir", &self.pin_dir)
            .field("adopted", &self.adopted)
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

/// Hooks know processes by their ids in the first pid namespace; so must the agent.
fn require_host_pid_namespace() -> Result<(), Error> {
    /// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/nsfs.h>
    const PID_NS_INIT_INO: u32 = 0xEFFF_FFFC;
    let path = Path::new("/proc/self/ns/pid");
    let link = fs::read_link(path).map_err(Error::io("read", path))?;
    let first = format!("pid:[{PID_NS_INIT_INO}]");
    if link == Path::new(&first) {
        Ok(())
    } else {
        Err(Error::PidNamespace)
    }
}

/// What `State` is before the self-test and after it.
pub(crate) fn state(host: NsInums, pidfd_fops: u64) -> State {
    State {
        host,
        pidfd_fops,
        ..State::default()
    }
}
