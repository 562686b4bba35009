//! Programs that are not in the kernel before they are wanted: those that judge paths, but for
//! the first, which shows that the kernel takes them. Ten of them take its verifier longer than
//! half of the others do together, and most hosts have no policy of paths.

use std::path::PathBuf;

use aya::Ebpf;

use crate::{
    Error, Probe,
    attachment::Attachment,
    hook::Hook,
    kernel_types::KernelTypes,
    ladder::PATHS,
    load::{self, Attached, load_object, verify},
    memory_lock, on_demand, pins, swap,
};

/// What is still to be loaded. Takes its time: not to be done while the probe is held.
#[derive(Debug)]
pub struct Late {
    pin_dir: PathBuf,
    program_log: bool,
    generation: u64,
    programs: Vec<String>,
}

/// Programs that are loaded and pinned, and hang nowhere yet.
#[derive(Debug)]
pub struct Arrived(Vec<String>);

/// Whether a program may come later. Where a kernel may lack the hook, that is to be known.
pub(crate) fn may_be(program: &str, hook: Hook) -> bool {
    on_demand::judges_paths(program) && matches!(hook, Hook::Lsm(_))
}

/// Those that are loaded, and the names of those that are not.
pub(crate) fn apart(attached: Vec<Attached>) -> (Vec<(&'static str, Attachment)>, Vec<String>) {
    let all = attached.into_iter().flat_map(|rung| rung.links);
    let (late, loaded): (Vec<_>, _) = all.partition(|(_, link)| matches!(link, Attachment::Late));
    (
        loaded,
        late.into_iter().map(|(name, _)| name.to_owned()).collect(),
    )
}

impl Probe {
    /// What [`Probe::any_paths`] needs first; `None` where all is there.
    pub fn late(&self) -> Option<Late> {
        let programs = self.manifest.late.clone();
        (!programs.is_empty()).then(|| Late {
            pin_dir: self.pin_dir.clone(),
            program_log: self.manifest.program_log,
            generation: swap::read(&self.maps.control).generation,
            programs,
        })
    }

    /// Takes them among its own.
    pub fn arrived(&mut self, Arrived(programs): Arrived) -> Result<(), Error> {
        let (manifest, pin_dir) = (&mut self.manifest, &self.pin_dir);
        manifest.late.retain(|late| !programs.contains(late));
        manifest.programs.extend(programs);
        manifest.write(pin_dir)?;
        self.introduce_links(true);
        Ok(())
    }
}

impl Late {
    /// All or none. Blocking.
    pub fn load(self) -> Result<Arrived, Error> {
        let _raised = memory_lock::raise();
        let types = KernelTypes::read()?;
        let btf = types.for_aya()?;
        let mut globals = load::offsets(&types).globals;
        let generation = u32::try_from(self.generation).unwrap_or(u32::MAX);
        globals.insert("GENERATION", generation);
        let pin_dir = Some(self.pin_dir.as_path());
        let mut ebpf = load_object(self.program_log, pin_dir, &btf, &globals)?;
        let hooks = PATHS.rungs.iter().flat_map(|rung| rung.hooks);
        let place = |ebpf: &mut Ebpf, name: &str| {
            let path = pins::program_path(&self.pin_dir, name);
            let hook = hooks.clone().find(|(one, _)| *one == name);
            let refused = |reason| Error::Late {
                program: name.to_owned(),
                reason,
            };
            let (Some((_, hook)), Some(program)) = (hook, ebpf.program_mut(name)) else {
                return Err(refused("the object has no such program".to_owned()));
            };
            verify(program, *hook, &btf).map_err(|error| refused(error.reason))?;
            // Of one that died before it took them among its own.
            pins::remove_program(&self.pin_dir, name)?;
            program
                .pin(&path)
                .map_err(|source| Error::Pin { path, source })
        };
        for name in &self.programs {
            if let Err(error) = place(&mut ebpf, name) {
                for placed in &self.programs {
                    // What failed is told.
                    let _ = pins::remove_program(&self.pin_dir, placed);
                }
                return Err(error);
            }
        }
        Ok(Arrived(self.programs))
    }
}
