//! What the running kernel's verifier says of each program of the object, one by one.
//!
//! Nothing is attached. For finding out what a change or a kernel costs, and where a limit of
//! the verifier comes near.

use std::collections::BTreeSet;

use aya::programs::ProgramInfo;
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    kernel_types::KernelTypes,
    ladder::LADDER,
    load::{self, load_object},
    memory_lock,
};

/// A program, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub program: String,
    /// Instructions that the verifier walked through; `None` before Linux 5.16, and where it
    /// was refused.
    pub steps: Option<u32>,
    /// Instructions of the program as the kernel keeps it, dead ones gone.
    pub instructions: Option<u32>,
    /// Symbolic, such as `EPERM`, where loading was refused.
    pub errno: Option<String>,
    /// Why it is not loaded here.
    pub reason: Option<String>,
}

/// Loads each program of the ladder by itself, and lets go of all at the end. As root; blocking.
pub fn verify_all() -> Result<Vec<Verified>, Error> {
    let _raised = memory_lock::raise();
    let types = KernelTypes::read()?;
    let btf = types.for_aya()?;
    let offsets = load::offsets(&types);
    let mut ebpf = load_object(false, None, &btf, &offsets.globals)?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for capability in LADDER {
        let missing = capability
            .needs
            .iter()
            .find_map(|group| offsets.missing(*group));
        let hooks = capability.rungs.iter().flat_map(|rung| rung.hooks);
        for (name, hook) in hooks.filter(|(name, _)| seen.insert(*name)) {
            let mut verified = Verified {
                program: (*name).to_owned(),
                steps: None,
                instructions: None,
                errno: None,
                reason: missing.map(|field| format!("the kernel's types have no {field}")),
            };
            if hook.left_out(&types) {
                verified.reason = Some("the kernel has no 32-bit entry".to_owned());
            }
            let objection = hook.objection(&types);
            verified.reason = verified.reason.or(objection);
            let program = ebpf.program_mut(name).filter(|_| verified.reason.is_none());
            if let Some(program) = program {
                match load::verify(program, *hook, &btf) {
                    Ok(()) => verified.of(program.info().ok()),
                    Err(refused) => {
                        verified.errno = refused.errno;
                        verified.reason = Some(refused.reason);
                    }
                }
            }
            all.push(verified);
        }
    }
    for (name, _) in ebpf.programs().filter(|(name, _)| !seen.contains(name)) {
        all.push(Verified {
            program: name.to_owned(),
            steps: None,
            instructions: None,
            errno: None,
            reason: Some("no rung of the ladder uses it".to_owned()),
        });
    }
    Ok(all)
}

impl Verified {
    fn of(&mut self, info: Option<ProgramInfo>) {
        /// A slot of the kernel's translated program.
        const INSTRUCTION: u32 = 8;
        if let Some(info) = info {
            self.steps = info.verified_instruction_count();
            self.instructions = info.size_translated().map(|bytes| bytes / INSTRUCTION);
        }
    }
}
