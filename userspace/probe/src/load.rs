//! Puts the object into the kernel and climbs the ladder: the best rung that loads and attaches wins.

use std::{collections::BTreeMap, error::Error as StdError, io, path::Path};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError, links::FdLink},
};
use nix::errno::Errno;

use crate::{
    CapabilityStatus, Config, Error, Refusal,
    attachment::{self, Attachment},
    hierarchies,
    hook::Hook,
    kept_link,
    kernel_types::KernelTypes,
    ladder::{Capability, ENFORCE, LADDER, QUESTION, Rung},
    late,
    maps::PINNED,
    memory_lock,
    offsets::Offsets,
    on_demand, pins, preemption, swap, tracefs,
};

/// The kernel half as `cargo xtask build` made it.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PADDOCK_EBPF_OBJECT_PATH"));

/// A rung that serves.
pub(crate) struct Attached {
    pub(crate) capability: &'static Capability,
    pub(crate) links: Vec<(&'static str, Attachment)>,
}

pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    pub(crate) attached: Vec<Attached>,
    pub(crate) statuses: Vec<CapabilityStatus>,
    /// Attached as long as programs of two generations are; see [`bridge`].
    pub(crate) bridge: Bridge,
}

/// What is loaded into.
struct Kernel<'a> {
    types: &'a KernelTypes,
    btf: &'a Btf,
    preempts: bool,
    pin_dir: &'a Path,
    /// Whether another generation's programs are pinned there.
    over: bool,
}

pub(crate) type Bridge = BTreeMap<&'static str, Attachment>;

/// `generation`: from the second on, maps and hooks are another one's, too.
pub(crate) fn load(config: &Config, types: &KernelTypes, generation: u32) -> Result<Loaded, Error> {
    let _raised = memory_lock::raise();
    let btf = types.for_aya()?;
    let mut offsets = offsets(types);
    offsets.globals.insert("GENERATION", generation);
    let pin_dir = Some(config.pin_dir.as_path());
    let mut ebpf = load_object(config.program_log, pin_dir, &btf, &offsets.globals)?;
    let mut bridge = if generation > swap::FIRST {
        bridge(&mut ebpf, &btf, &config.pin_dir)
    } else {
        Bridge::new()
    };
    let kernel = Kernel {
        types,
        btf: &btf,
        preempts: preemption::preempts(),
        pin_dir: &config.pin_dir,
        over: generation > swap::FIRST,
    };
    let mut attached = Vec::new();
    let mut statuses = Vec::new();
    for capability in LADDER {
        if capability.name == QUESTION.name && serves(&statuses, ENFORCE.name) {
            statuses.push(not_wanted(capability));
            continue;
        }
        let (links, status) = climb(
            &mut ebpf,
            &mut bridge,
            config,
            &kernel,
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

fn serves(statuses: &[CapabilityStatus], name: &str) -> bool {
    let mut all = statuses.iter();
    all.any(|status| status.capability == name && status.rung.is_some())
}

/// A better one is there.
fn not_wanted(capability: &Capability) -> CapabilityStatus {
    let refusal = |rung: &Rung| Refusal {
        rung: rung.name.to_owned(),
        errno: None,
        reason: "not needed: the kernel asks its security modules".to_owned(),
    };
    CapabilityStatus {
        capability: capability.name.to_owned(),
        rung: None,
        refused: capability.rungs.iter().map(refusal).collect(),
        caveat: None,
    }
}

/// Syscalls' exit tracepoints beside whatever rung serves. Whenever a program is attached to a
/// function or detached, the kernel takes calls that are inside it past all exit programs
/// (`bpf_tramp_image_put`); the tracepoint takes up what those calls left.
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/trampoline.c>
fn bridge(ebpf: &mut Ebpf, btf: &Btf, pin_dir: &Path) -> Bridge {
    let hooks = LADDER
        .iter()
        .flat_map(|capability| capability.rungs)
        .flat_map(|rung| rung.hooks);
    let mut links = Bridge::new();
    for (name, hook) in hooks.filter(|(_, hook)| hook.takes_up_what_entry_left()) {
        let Some(program) = ebpf.program_mut(name) else {
            continue;
        };
        match verify(program, *hook, btf).and_then(|()| attach(program, *hook, pin_dir)) {
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

pub(crate) fn offsets(types: &KernelTypes) -> Offsets {
    let mut offsets = Offsets::find(types, page_size());
    offsets.globals.extend(tracefs::field_offsets());
    let preempts = u32::from(preemption::preempts());
    offsets.globals.insert("PREEMPTS", preempts);
    offsets
}

pub(crate) fn load_object(
    program_log: bool,
    pin_dir: Option<&Path>,
    btf: &Btf,
    globals: &BTreeMap<&'static str, u32>,
) -> Result<Ebpf, Error> {
    let level = if program_log { u8::MAX } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(btf))
        .override_global("AYA_LOG_LEVEL", &level, true);
    // A map whose pin is there is taken over, any other is made and pinned.
    if let Some(pin_dir) = pin_dir {
        for name in PINNED {
            loader.map_pin_path(name, pins::map_path(pin_dir, name));
        }
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
    kernel: &Kernel<'_>,
    offsets: &Offsets,
    capability: &'static Capability,
) -> (Option<Vec<(&'static str, Attachment)>>, CapabilityStatus) {
    let mut status = CapabilityStatus {
        capability: capability.name.to_owned(),
        rung: None,
        refused: Vec::new(),
        caveat: None,
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
            match try_rung(ebpf, bridge, kernel, rung) {
                Ok(links) => {
                    status.rung = Some(rung.name.to_owned());
                    status.caveat = caveat(rung, &links, kernel.types);
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

/// When a rung does not serve, or what it leaves out.
fn caveat(
    rung: &Rung,
    links: &[(&'static str, Attachment)],
    types: &KernelTypes,
) -> Option<String> {
    let held = |(_, link): &(_, _)| matches!(link, Attachment::Held(..));
    if links.iter().any(held) {
        return Some(attachment::CAVEAT.to_owned());
    }
    let asked = |name: &str| links.iter().any(|(one, _)| *one == name);
    let not_taken = rung.hooks.iter().find_map(|(name, hook)| match hook {
        Hook::LsmIfTaken(question) if !asked(name) => Some(question),
        _ => None,
    });
    if let Some(question) = not_taken {
        return Some(format!(
            "is not asked about {question}: the kernel takes no program there"
        ));
    }
    // A call that the kernel was built without is nothing to tell of.
    let left_out: Vec<_> = rung
        .hooks
        .iter()
        .filter(|(_, hook)| hook.left_out(types))
        .filter_map(|(_, hook)| hook.optional_call())
        .collect();
    let unseen = tracefs::known_calls(&left_out);
    (!unseen.is_empty()).then(|| {
        let calls = unseen.join(", ");
        format!("does not see {calls}: the kernel's types lack its body")
    })
}

/// All hooks of a rung or none: those that were attached are detached when a later one fails. Of
/// those that hang on demand the first stands for all.
fn try_rung(
    ebpf: &mut Ebpf,
    bridge: &mut Bridge,
    kernel: &Kernel<'_>,
    rung: &Rung,
) -> Result<Vec<(&'static str, Attachment)>, Refused> {
    let by_tracefs =
        |(_, hook): &(_, Hook)| matches!(hook, Hook::Tracepoint(..) | Hook::ExitIfThere(_));
    if !rung.hooks.iter().any(by_tracefs) {
        return attach_all(ebpf, bridge, kernel, rung);
    }
    tracefs::with_tracefs(|| attach_all(ebpf, bridge, kernel, rung))
        .map_err(|error| Refused::from_error("mount tracefs", &error))?
}

fn attach_all(
    ebpf: &mut Ebpf,
    bridge: &mut Bridge,
    kernel: &Kernel<'_>,
    rung: &Rung,
) -> Result<Vec<(&'static str, Attachment)>, Refused> {
    let mut links = Vec::new();
    for (name, hook) in rung.hooks {
        if hook.left_out(kernel.types) || (hook.is_beside() && !kernel.preempts) {
            continue;
        }
        if let Some(objection) = hook.objection(kernel.types) {
            return Err(Refused::because(objection));
        }
        let program = ebpf
            .program_mut(name)
            .ok_or_else(|| Refused::because(format!("the object has no program {name}")))?;
        // What the old ones do at the moment, the new ones go on with.
        let wanted = || kernel.over && on_demand::hangs(kernel.pin_dir, name);
        let waits = on_demand::is(name) && !links.is_empty() && !wanted();
        let place = |program: &mut Program| {
            if waits && late::may_be(name, *hook) {
                return Ok(Attachment::Late);
            }
            verify(program, *hook, kernel.btf)?;
            if waits {
                return Ok(Attachment::Waits);
            }
            attach(program, *hook, kernel.pin_dir)
        };
        // The kernel takes a program once only on a tracepoint.
        let hung = bridge.remove(name).map_or_else(|| place(program), Ok);
        let link = match hung {
            Ok(link) => link,
            Err(refused) if hook.may_lack(refused.errno.as_deref()) => continue,
            Err(refused) if hook.is_beside() => {
                log::debug!("{name}: {}", refused.reason);
                continue;
            }
            Err(refused) => return Err(refused.of(name)),
        };
        links.push((*name, link));
    }
    Ok(links)
}

/// Past the kernel's verifier, attached to nothing yet.
pub(crate) fn verify(program: &mut Program, hook: Hook, btf: &Btf) -> Result<(), Refused> {
    let function = hook.function().unwrap_or_default();
    match (hook, program) {
        (
            Hook::Fentry(_) | Hook::FentryCompat(_) | Hook::FentryFunction(_),
            Program::FEntry(program),
        ) => {
            program.load(&function, btf)?;
        }
        (
            Hook::Fexit(_) | Hook::FexitCompat(_) | Hook::FexitIfThere(_) | Hook::FexitFunction(_),
            Program::FExit(program),
        ) => {
            program.load(&function, btf)?;
        }
        (Hook::Btf(name), Program::BtfTracePoint(program)) => program.load(name, btf)?,
        (Hook::Tracepoint(..) | Hook::ExitIfThere(_), Program::TracePoint(program)) => {
            program.load()?;
        }
        (
            Hook::Lsm(name) | Hook::LsmIfThere(name) | Hook::LsmIfTaken(name),
            Program::Lsm(program),
        ) => {
            program.load(name, btf)?;
        }
        (
            Hook::ProbeBeside(_) | Hook::EntryBeside(_) | Hook::ReturnBeside(_),
            Program::KProbe(program),
        ) => {
            program.load()?;
        }
        (Hook::SockAddr, Program::CgroupSockAddr(program)) => program.load()?,
        (Hook::Ingress | Hook::Egress, Program::CgroupSkb(program)) => program.load()?,
        (Hook::Called, Program::RawTracePoint(program)) => program.load()?,
        (Hook::Device, Program::CgroupDevice(program)) => program.load()?,
        (Hook::Sysctl, Program::CgroupSysctl(program)) => program.load()?,
        _ => return Err(Refused::of_another_kind()),
    }
    Ok(())
}

fn attach(program: &mut Program, hook: Hook, pin_dir: &Path) -> Result<Attachment, Refused> {
    let link = match (hook, program) {
        (_, Program::FEntry(program)) => {
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (_, Program::FExit(program)) => {
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (_, Program::BtfTracePoint(program)) => {
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (_, Program::Lsm(program)) => {
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (_, Program::KProbe(program)) => {
            let id = program.attach(hook.function().unwrap_or_default(), 0)?;
            // Before 5.15 it would go with the loader.
            let link = program.take_link(id)?;
            FdLink::try_from(link).map_err(|error| Refused::because(error.to_string()))?
        }
        (Hook::SockAddr, Program::CgroupSockAddr(program)) => {
            let root = hierarchies::unified_root()
                .map_err(|error| Refused::from_error("open the root of cgroup v2", &error))?;
            // By a link several may hang here all the same.
            let id = program.attach(root, CgroupAttachMode::Single)?;
            let link = program.take_link(id)?;
            FdLink::try_from(link).map_err(|error| Refused::because(error.to_string()))?
        }
        (Hook::Ingress | Hook::Egress, Program::CgroupSkb(program)) => {
            let root = hierarchies::unified_root()
                .map_err(|error| Refused::from_error("open the root of cgroup v2", &error))?;
            let way = match hook {
                Hook::Ingress => CgroupSkbAttachType::Ingress,
                _ => CgroupSkbAttachType::Egress,
            };
            let id = program.attach(root, way, CgroupAttachMode::Single)?;
            let link = program.take_link(id)?;
            FdLink::try_from(link).map_err(|error| Refused::because(error.to_string()))?
        }
        (Hook::Called, Program::RawTracePoint(_)) => return Ok(Attachment::Called),
        (Hook::Device, Program::CgroupDevice(program)) => kept_link::device(program, pin_dir)?,
        (Hook::Sysctl, Program::CgroupSysctl(program)) => kept_link::sysctl(program, pin_dir)?,
        (Hook::Tracepoint(..) | Hook::ExitIfThere(_), Program::TracePoint(program)) => {
            let (category, name) = match hook {
                Hook::Tracepoint(category, name) => (category, name),
                Hook::ExitIfThere(name) => ("syscalls", name),
                _ => return Err(Refused::of_another_kind()),
            };
            return Ok(attachment::to_tracepoint(program, category, name)?);
        }
        _ => return Err(Refused::of_another_kind()),
    };
    Ok(Attachment::Link(link))
}

/// Why a rung does not serve.
pub(crate) struct Refused {
    pub(crate) errno: Option<String>,
    pub(crate) reason: String,
}

impl Refused {
    fn because(reason: String) -> Self {
        Self {
            errno: None,
            reason,
        }
    }

    fn of_another_kind() -> Self {
        Self::because("the program is of another kind".to_owned())
    }

    pub(crate) fn from_error(op: &str, error: &(dyn StdError + 'static)) -> Self {
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
            // Of its mount alone.
            ProgramError::IOError(_) => Self::from_error("mount tracefs", &error),
            _ => Self::from_error("attach", &error),
        }
    }
}

pub(crate) fn errno(error: &(dyn StdError + 'static)) -> Option<Errno> {
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
