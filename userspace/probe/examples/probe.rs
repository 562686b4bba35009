//! Loads the kernel half, prints what serves here as JSON, and, with `--seconds N`, what it tells.
//!
//! `probe [--pin-dir DIR] [--force CAPABILITY=RUNG]… [--track unified:ID|memory:ID|pids:ID]
//!  [--own-self] [--seconds N] [--quiet] [--keep] [--unload] [--log]`
#![forbid(unsafe_code)]

use std::{error::Error, path::PathBuf, time::Duration};

use paddock_probe::{CgroupKey, Config, NsSyscall, NsType, Outcome, Probe, Slot};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Options {
    config: Config,
    track: Option<CgroupKey>,
    seconds: u64,
    quiet: bool,
    keep: bool,
    unload: bool,
}

fn main() -> Result<()> {
    let options = options()?;
    if options.unload {
        return Ok(Probe::unload_pins(&options.config.pin_dir)?);
    }
    if options.config.program_log {
        log::set_logger(&STDERR).map_err(|error| error.to_string())?;
        log::set_max_level(log::LevelFilter::Debug);
    }
    let mut probe = Probe::load(&options.config)?;
    println!("{}", serde_json::to_string_pretty(&probe.capabilities())?);
    println!(
        "adopted: {}, host namespaces: {:?}",
        probe.adopted(),
        probe.host_namespaces()
    );
    let slot = match options.track {
        Some(cgroup) if !probe.adopted() => {
            let slot = probe.allocate_slot().ok_or("no free slot")?;
            probe.track(cgroup, slot)?;
            slot
        }
        _ => probe.slots().first().copied().unwrap_or(Slot(0)),
    };
    if options.seconds > 0 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(listen(&mut probe, &options))?;
    }
    account(&probe, slot)?;
    if options.keep {
        Ok(())
    } else {
        Ok(probe.unload()?)
    }
}

/// Prints records until the time is over.
async fn listen(probe: &mut Probe, options: &Options) -> Result<()> {
    println!("listening");
    let mut events = probe.take_events()?;
    let mut log = probe.take_program_log();
    let end = tokio::time::sleep(Duration::from_secs(options.seconds));
    tokio::pin!(end);
    loop {
        let batch = tokio::select! {
            biased;
            () = &mut end => break,
            batch = events.next() => batch?,
        };
        if let Some(log) = &mut log {
            log.flush();
        }
        for record in batch.records.iter().filter(|_| !options.quiet) {
            println!("{record:?}");
        }
        if batch.undecodable > 0 {
            println!("undecodable: {}", batch.undecodable);
        }
    }
    while !events.drain().records.is_empty() {}
    println!("delivered: {:?}", events.delivered());
    Ok(())
}

/// The counts of a slot, of the rings and of the programs.
fn account(probe: &Probe, slot: Slot) -> Result<()> {
    let counters = probe.slot_counters(slot)?;
    for syscall in [NsSyscall::Setns, NsSyscall::Unshare, NsSyscall::Clone] {
        for outcome in [Outcome::Allowed, Outcome::Failed] {
            let types: Vec<_> = NsType::ALL
                .iter()
                .map(|ty| (ty.name(), counters.ns_calls(syscall, *ty, outcome)))
                .filter(|(_, count)| *count > 0)
                .collect();
            println!(
                "{syscall:?} {outcome:?}: {} {types:?}",
                counters.calls(syscall, outcome)
            );
        }
    }
    println!(
        "slot {slot:?}: {:?}",
        counters.cells.iter().skip(108).collect::<Vec<_>>()
    );
    println!("rings: {:?}", probe.ring_counters()?);
    for stats in probe.program_stats() {
        println!("{stats:?}");
    }
    println!("tracked: {:?}", probe.tracked()?);
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options {
        config: Config {
            pin_dir: PathBuf::from("/run/paddock-probe/bpf"),
            force: Vec::new(),
            program_log: false,
        },
        track: None,
        seconds: 0,
        quiet: false,
        keep: false,
        unload: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--pin-dir" => options.config.pin_dir = PathBuf::from(value()?),
            "--force" => {
                let value = value()?;
                let (capability, rung) = value.split_once('=').ok_or("CAPABILITY=RUNG")?;
                options
                    .config
                    .force
                    .push((capability.to_owned(), rung.to_owned()));
            }
            "--track" => options.track = Some(key(&value()?)?),
            "--seconds" => options.seconds = value()?.parse()?,
            "--quiet" => options.quiet = true,
            "--keep" => options.keep = true,
            "--unload" => options.unload = true,
            "--log" => options.config.program_log = true,
            _ => return Err(format!("unknown option {argument}").into()),
        }
    }
    Ok(options)
}

fn key(text: &str) -> Result<CgroupKey> {
    let (hierarchy, id) = text.split_once(':').ok_or("HIERARCHY:ID")?;
    let id = id.parse()?;
    match hierarchy {
        "unified" => Ok(CgroupKey::Unified(id)),
        "memory" => Ok(CgroupKey::MemoryV1(id)),
        "pids" => Ok(CgroupKey::PidsV1(id)),
        _ => Err("unified, memory or pids".into()),
    }
}

static STDERR: Stderr = Stderr;

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}
