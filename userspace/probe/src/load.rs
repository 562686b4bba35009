//! Puts the object into the kernel and climbs the ladder: the best rung that loads and attaches wins.

use std::{collections::BTreeMap, error::Error as StdError, io};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Program, ProgramError, links::FdLink},
};
use nix::errno::Errno;

use crate::{
    CapabilityStatus, Config, Error, Refusal,
    kernel_types::KernelTypes,
    ladder::{Capability, Hook, LADDER, Rung},
    maps::PINNED,
    offsets::Offsets,
    pins, tracefs,
};

/// The kernel half as `cargo xtask build` made it.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PADDOCK_EBPF_OBJECT_PATH"));

/// A rung that serves.
pub(crate) struct Attached {
    pub(crate) capability: &'static Capability,
    pub(crate) links: Vec<(&'static str, FdLink)>,
}

pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    pub(crate) attached: Vec<Attached>,
    pub(crate) statuses: Vec<CapabilityStatus>,
    /// Attached as long as programs of two generations are; see [`bridge`].
    pub(crate) bridge: Bridge,
}

pub(crate) type Bridge = BTreeMap<&'static str, FdLink>;

/// `over`: the maps and the hooks are another generation's, too.
pub(crate) fn load(config: &Config, types: &KernelTypes, over: bool) -> Result<Loaded, Error> {
    let btf = types.for_aya()?;
    let mut offsets = Offsets::find(types, page_size());
    offsets.globals.extend(tracefs::field_offsets());
    let mut ebpf = load_object(config, &btf, &offsets.globals)?;
    let mut bridge = if over {
        bridge(&mut ebpf, &btf)
    } else {
        Bridge::new()
    };
    let mut attached = Vec::new();
    let mut statuses = Vec::new();
    for capability in LADDER {
        let (links, status) = climb(
            &mut ebpf,
            &mut bridge,
            config,
            types,
            &btf,
            &offsets,
            capability,
        );
        attached.extend(links.map(|links| Attached { capability, links }));
        statuses.push(status);
    }
    Ok(Loaded {
        ebpf,
        attached,
        statuses,
        bridge,
    })
}

/// Syscalls' exit tracepoints beside whatever rung serves. Whenever a program is attached to a
/// function or detached, the kernel takes calls that are inside it past all exit programs
/// (`bpf_tramp_image_put`); the tracepoint takes up what those calls left.
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/trampoline.c>
fn bridge(ebpf: &mut Ebpf, btf: &Btf) -> Bridge {
    let hooks = LADDER
        .iter()
        .flat_map(|capability| capability.rungs)
        .flat_map(|rung| rung.hooks);
    let mut links = Bridge::new();
    for (name, hook) in hooks.filter(|(_, hook)| hook.is_syscall_exit()) {
        let Some(program) = ebpf.program_mut(name) else {
            continue;
        };
        match attach(program, *hook, btf) {
            Ok(link) => {
                links.insert(name, link);
            }
            Err(refused) => log::warn!(
                "{name}: {}; calls that are under way may be missed",
                refused.reason
            ),
        }
    }
    links
}

fn load_object(
    config: &Config,
    btf: &Btf,
    globals: &BTreeMap<&'static str, u32>,
) -> Result<Ebpf, Error> {
    let level = if config.program_log { u8::MAX } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(btf))
        .override_global("AYA_LOG_LEVEL", &level, true);
    // A map whose pin is there is taken over, any other is made and pinned.
    for name in PINNED {
        loader.map_pin_path(name, pins::map_path(&config.pin_dir, name));
    }
    for (global, value) in globals {
        loader.override_global(global, value, true);
    }
    loader.load(OBJECT).map_err(|source| Error::Load {
        source: Box::new(source),
    })
}

/// Tries the rungs of one capability from the best down.
fn climb(
    ebpf: &mut Ebpf,
    bridge: &mut Bridge,
    config: &Config,
    types: &KernelTypes,
    btf: &Btf,
    offsets: &Offsets,
    capability: &'static Capability,
) -> (Option<Vec<(&'static str, FdLink)>>, CapabilityStatus) {
    let mut status = CapabilityStatus {
        capability: capability.name.to_owned(),
        rung: None,
        refused: Vec::new(),
    };
    let missing = capability
        .needs
        .iter()
        .find_map(|group| offsets.missing(*group));
    let forced = config
        .force
        .iter()
        .find(|(name, _)| name == capability.name)
        .map(|(_, rung)| rung);
    for rung in capability.rungs {
        let refusal = if let Some(field) = missing {
            Refused::because(format!("the kernel's types have no {field}"))
        } else if let Some(forced) = forced.filter(|forced| *forced != rung.name) {
            Refused::because(format!("the rung is forced to {forced}"))
        } else {
            match try_rung(ebpf, bridge, types, btf, rung) {
                Ok(links) => {
                    status.rung = Some(rung.name.to_owned());
                    return (Some(links), status);
                }
                Err(refused) => refused,
            }
        };
        status.refused.push(Refusal {
            rung: rung.name.to_owned(),
            errno: refusal.errno,
            reason: refusal.reason,
        });
    }
    (None, status)
}

/// All hooks of a rung or none: those that were attached are detached when a later one fails.
fn try_rung(
    ebpf: &mut Ebpf,
    bridge: &mut Bridge,
    types: &KernelTypes,
    btf: &Btf,
    rung: &Rung,
) -> Result<Vec<(&'static str, FdLink)>, Refused> {
    let mut links = Vec::new();
    for (name, hook) in rung.hooks {
        if hook.left_out(types) {
            continue;
        }
        if let Some(objection) = hook.objection(types) {
            return Err(Refused::because(objection));
        }
        let program = ebpf
            .program_mut(name)
            .ok_or_else(|| Refused::because(format!("the object has no program {name}")))?;
        // The kernel takes a program once only on a tracepoint.
        let link = match bridge.remove(name) {
            Some(link) => link,
            None => attach(program, *hook, btf).map_err(|error| error.of(name))?,
        };
        if let Ok(info) = program.info() {
            let steps = info.verified_instruction_count().unwrap_or_default();
            log::debug!("{name}: the verifier took {steps} steps");
        }
        links.push((*name, link));
    }
    Ok(links)
}

fn attach(program: &mut Program, hook: Hook, btf: &Btf) -> Result<FdLink, Refused> {
    let function = hook.function().unwrap_or_default();
    let link = match (hook, program) {
        (Hook::Fentry(_) | Hook::FentryCompat(_), Program::FEntry(program)) => {
            program.load(&function, btf)?;
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (Hook::Fexit(_) | Hook::FexitCompat(_), Program::FExit(program)) => {
            program.load(&function, btf)?;
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (Hook::Btf(name), Program::BtfTracePoint(program)) => {
            program.load(name, btf)?;
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (Hook::Tracepoint(category, name), Program::TracePoint(program)) => {
            program.load()?;
            let id = tracefs::with_tracefs(|| program.attach(category, name))
                .map_err(|error| Refused::from_error("mount tracefs", &error))??;
            FdLink::try_from(program.take_link(id)?)
                .map_err(|error| Refused::from_error("pin", &error))?
        }
        _ => {
            return Err(Refused::because(
                "the program is of another kind".to_owned(),
            ));
        }
    };
    Ok(link)
}

/// Why a rung does not serve.
struct Refused {
    errno: Option<String>,
    reason: String,
}

impl Refused {
    fn because(reason: String) -> Self {
        Self {
            errno: None,
            reason,
        }
    }

    fn from_error(op: &str, error: &(dyn StdError + 'static)) -> Self {
        let errno = errno(error);
        let told = errno.map_or_else(|| error.to_string(), |errno| errno.desc().to_owned());
        Self {
            errno: errno.map(|errno| format!("{errno:?}")),
            reason: format!("{op}: {told}"),
        }
    }

    fn of(mut self, program: &str) -> Self {
        self.reason = format!("{program}: {}", self.reason);
        self
    }
}

impl From<ProgramError> for Refused {
    fn from(error: ProgramError) -> Self {
        log::debug!("a hook was refused: {error}");
        match &error {
            ProgramError::LoadError { verifier_log, .. } => {
                let mut refused = Self::from_error("load", &error);
                // The verifier's verdict is its last line but the statistics.
                let log = verifier_log.to_string();
                let verdict = log.lines().rev().map(str::trim).find(|line| {
                    !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start))
                });
                if let Some(verdict) = verdict.filter(|_| refused.errno.as_deref() != Some("EPERM"))
                {
                    refused.reason = format!("{} ({verdict})", refused.reason);
                }
                refused
            }
            _ => Self::from_error("attach", &error),
        }
    }
}

fn errno(error: &(dyn StdError + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(Errno::from_raw(code));
        }
        cause = error.source();
    }
    None
}

fn page_size() -> u32 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u32::try_from(size).ok())
        .unwrap_or(4096)
}

/// Lines that the verifier closes every log with.
const STATISTICS: [&str; 3] = ["processed ", "verification time", "stack depth"];
