//! From rules to classic BPF.
//!
//! The architecture comes first, then a binary search over the syscall number, then, for few
//! calls, conditions on arguments. A program of seccomp's only jumps forward and only loads
//! aligned words of [`struct seccomp_data`](https://man7.org/linux/man-pages/man2/seccomp.2.html):
//! number, architecture, instruction pointer, six arguments of 64 bits.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Arch, Error, Filter, Instruction,
    action::{ALLOW, Action, KILL_THREAD},
    arch::{ARM_PRIVATE, X32_BIT},
    multiplex,
    rules::{Condition, Rules, Test},
};

/// The kernel's `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// linux/bpf_common.h: class, size, mode, operation.
pub(crate) const LOAD: u16 = 0x20;
pub(crate) const AND: u16 = 0x54;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const JUMP_EQUAL: u16 = 0x15;
pub(crate) const JUMP_GREATER: u16 = 0x25;
pub(crate) const JUMP_NOT_LESS: u16 = 0x35;
pub(crate) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`, little endian.
pub(crate) const NUMBER: u32 = 0;
pub(crate) const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ENOSYS: u32 = 38;
const RETURN_ENOSYS: u32 = Action::Errno(38).value();

/// What becomes of a call by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Always(u32),
    /// The first of these that holds, else the default.
    When(Vec<(Vec<Condition>, u32)>),
}

/// `newer`: where the default is a refusal, numbers above the highest that the rules name get
/// ENOSYS, so that a C library falls back from a call that the profile's author had never
/// heard of. runc's rule.
pub(crate) fn compile(rules: &Rules, newer: bool) -> Result<Filter, Error> {
    let newer = newer && refuses(rules.default);
    let mut unknown = BTreeSet::new();
    let mut program = vec![load(ARCHITECTURE)];
    let mut audits: Vec<u32> = rules
        .architectures
        .iter()
        .map(|arch| arch.audit())
        .collect();
    audits.sort_unstable();
    audits.dedup();
    // The machine's own first: the kernel asks it most.
    if let Some(own) = rules.architectures.first() {
        audits.sort_by_key(|audit| *audit != own.audit());
    }
    for audit in audits {
        let mut here = vec![load(NUMBER)];
        let outcomes = outcomes(rules, audit, newer, &mut unknown);
        here.extend(search(&outcomes, rules.default)?);
        // Past 255 instructions a conditional jump does not reach.
        program.push(jump(JUMP_EQUAL, audit, 1, 0));
        program.push(skip(here.len())?);
        program.extend(here);
    }
    program.push(give(KILL_THREAD));
    check_length(program.len())?;
    let notify = Action::Notify.value();
    Ok(Filter {
        instructions: program,
        flags: rules.flags,
        notifies: rules.list.iter().any(|rule| rule.action == notify),
        unknown: unknown.into_iter().collect(),
    })
}

/// Neither lets the call through nor leaves it to a tracer, and is not ENOSYS already.
fn refuses(action: u32) -> bool {
    const KIND: u32 = 0xffff_0000;
    let lenient = [ALLOW, Action::Log.value(), Action::Trace(0).value()];
    !lenient.contains(&(action & KIND)) && action & !KIND != ENOSYS
}

/// Runs of numbers with one outcome each, from 0 on without a gap, of all the calling
/// conventions that share an audit number.
fn outcomes(
    rules: &Rules,
    audit: u32,
    newer: bool,
    unknown: &mut BTreeSet<String>,
) -> Vec<(u32, Decision)> {
    let other = Decision::Always(rules.default);
    let foreign = Decision::Always(KILL_THREAD);
    let mut starts = BTreeMap::new();
    let here = |arch: &Arch| rules.architectures.contains(arch);
    let sharing = Arch::ALL.iter().filter(|arch| arch.audit() == audit);
    for arch in sharing {
        let first = if *arch == Arch::X32 { X32_BIT } else { 0 };
        if !here(arch) {
            starts.insert(first, foreign.clone());
            continue;
        }
        starts.insert(first, other.clone());
        let decisions = decisions(rules, *arch, unknown);
        let private = |number: &u32| *arch == Arch::Arm && *number >= ARM_PRIVATE;
        let last = decisions.keys().filter(|number| !private(number)).max();
        let mut after = Vec::new();
        if newer && let Some(last) = last {
            after.push((last + 1, Decision::Always(RETURN_ENOSYS)));
            if *arch == Arch::Arm {
                after.push((ARM_PRIVATE, other.clone()));
            }
        }
        for (number, decision) in decisions {
            starts.insert(number, decision);
            starts.entry(number + 1).or_insert_with(|| other.clone());
        }
        for (number, decision) in after {
            // Never over a rule's own.
            if starts.get(&number).is_none_or(|found| *found == other) {
                starts.insert(number, decision);
            }
        }
    }
    // A tracer has called the call off by making it -1: no business of the architecture's.
    starts.insert(u32::MAX, other);
    let mut runs: Vec<(u32, Decision)> = starts.into_iter().collect();
    runs.dedup_by(|next, previous| next.1 == previous.1);
    runs
}

/// By number, for those that any rule names.
fn decisions(rules: &Rules, arch: Arch, unknown: &mut BTreeSet<String>) -> BTreeMap<u32, Decision> {
    let mut decisions = BTreeMap::new();
    for rule in &rules.list {
        for name in &rule.names {
            if !Arch::ALL.iter().any(|arch| arch.number(name).is_some()) {
                unknown.insert(name.clone());
            }
            if rule.action == rules.default {
                continue;
            }
            if let Some(number) = arch.number(name) {
                add(&mut decisions, number, &rule.conditions, rule.action);
            }
            let door = multiplex::door(name).filter(|_| arch == Arch::X86);
            if let Some((door, condition)) = door
                && rule.conditions.is_empty()
                && let Some(number) = arch.number(door)
            {
                add(&mut decisions, number, &[condition], rule.action);
            }
        }
    }
    decisions
}

fn add(
    decisions: &mut BTreeMap<u32, Decision>,
    number: u32,
    conditions: &[Condition],
    action: u32,
) {
    let known = decisions
        .entry(number)
        .or_insert_with(|| Decision::When(Vec::new()));
    match known {
        Decision::Always(_) => {}
        Decision::When(_) if conditions.is_empty() => *known = Decision::Always(action),
        Decision::When(list) => list.push((conditions.to_vec(), action)),
    }
}

/// The number is in the accumulator.
fn search(runs: &[(u32, Decision)], default: u32) -> Result<Vec<Instruction>, Error> {
    let mut tail = Tail::default();
    match tail.search(runs, default)? {
        Target::Return(action) => drop(tail.push(give(action))),
        // The one that came last, so it is the first.
        Target::At(_) => {}
    }
    tail.0.reverse();
    Ok(tail.0)
}

/// The end of a program, growing towards its beginning: what is jumped to is there already, so
/// most returns are another's too. Half the instructions, for the kernel to check and translate
/// at each install.
#[derive(Debug, Default)]
struct Tail(Vec<Instruction>);

/// Where an instruction is, counted from the program's end.
type Place = usize;

#[derive(Clone, Copy, Debug)]
enum Target {
    At(Place),
    Return(u32),
}

impl Tail {
    fn push(&mut self, instruction: Instruction) -> Place {
        self.0.push(instruction);
        self.0.len() - 1
    }

    fn search(&mut self, runs: &[(u32, Decision)], default: u32) -> Result<Target, Error> {
        Ok(match runs {
            [] => Target::Return(default),
            [(_, Decision::Always(action))] => Target::Return(*action),
            [(_, Decision::When(list))] => {
                let block = conditional(list, default)?;
                self.0.extend(block.iter().rev());
                Target::At(self.0.len() - 1)
            }
            _ => {
                let (low, high) = runs.split_at(runs.len() / 2);
                let first_high = high[0].0;
                let high = self.search(high, default)?;
                let low = self.search(low, default)?;
                // Either may put one more instruction between.
                let high = self.near(high, 1)?;
                let low = self.near(low, 0)?;
                let (yes, no) = (self.over(high, 0)?, self.over(low, 0)?);
                Target::At(self.push(jump(JUMP_NOT_LESS, first_high, yes, no)))
            }
        })
    }

    /// Instructions between `place` and one that comes `before` others to come.
    fn over(&self, place: Place, before: usize) -> Result<u8, Error> {
        let over = self.0.len() - 1 - place + before;
        u8::try_from(over).map_err(|_| Error::TooLong {
            instructions: over,
            limit: usize::from(u8::MAX),
        })
    }

    /// A place to jump to that a conditional jump reaches from `before` instructions further on.
    fn near(&mut self, target: Target, before: usize) -> Result<Place, Error> {
        let reach = usize::from(u8::MAX).saturating_sub(before) + 1;
        let first = self.0.len().saturating_sub(reach);
        match target {
            Target::At(place) if self.over(place, before).is_ok() => Ok(place),
            Target::At(place) => {
                let over = self.0.len() - 1 - place;
                Ok(self.push(skip(over)?))
            }
            Target::Return(action) => {
                let wanted = give(action);
                let found = self.0[first..].iter().rposition(|one| *one == wanted);
                Ok(found.map_or_else(|| self.push(wanted), |at| first + at))
            }
        }
    }
}

fn conditional(list: &[(Vec<Condition>, u32)], default: u32) -> Result<Vec<Instruction>, Error> {
    let mut program = Vec::new();
    for (conditions, action) in list {
        let mut all = vec![give(*action)];
        // From the last to the first, so that what a failed one jumps over is known.
        for condition in conditions.iter().rev() {
            let mut this = test(condition, all.len())?;
            this.extend(all);
            all = this;
        }
        program.extend(all);
    }
    program.push(give(default));
    Ok(program)
}

/// Falls through when it holds and jumps over `rest` instructions more when it does not.
fn test(condition: &Condition, rest: usize) -> Result<Vec<Instruction>, Error> {
    let low = load(ARGUMENTS + 8 * u32::from(condition.index));
    let high = load(ARGUMENTS + 8 * u32::from(condition.index) + 4);
    let no = |after: usize| {
        let over = rest + after;
        u8::try_from(over).map_err(|_| Error::TooLong {
            instructions: over,
            limit: usize::from(u8::MAX),
        })
    };
    // Upper halves first; only where they are equal do the lower ones decide. `strict` goes on
    // where the upper half alone says yes.
    let ordered = |value: u64, strict: u16, yes_above: bool, negate: bool| {
        let (value_high, value_low) = halves(value);
        let above = if yes_above { 3 } else { no(3)? };
        let below = if yes_above { no(2)? } else { 2 };
        let last = if negate {
            jump(strict, value_low, no(0)?, 0)
        } else {
            jump(strict, value_low, 0, no(0)?)
        };
        Ok(vec![
            high,
            jump(JUMP_GREATER, value_high, above, 0),
            jump(JUMP_EQUAL, value_high, 0, below),
            low,
            last,
        ])
    };
    match condition.test {
        Test::Greater(value) => ordered(value, JUMP_GREATER, true, false),
        Test::GreaterOrEqual(value) => ordered(value, JUMP_NOT_LESS, true, false),
        Test::Less(value) => ordered(value, JUMP_NOT_LESS, false, true),
        Test::LessOrEqual(value) => ordered(value, JUMP_GREATER, false, true),
        Test::Equal(value) => {
            let (value_high, value_low) = halves(value);
            Ok(vec![
                high,
                jump(JUMP_EQUAL, value_high, 0, no(2)?),
                low,
                jump(JUMP_EQUAL, value_low, 0, no(0)?),
            ])
        }
        Test::NotEqual(value) => {
            let (value_high, value_low) = halves(value);
            Ok(vec![
                high,
                jump(JUMP_EQUAL, value_high, 0, 2),
                low,
                jump(JUMP_EQUAL, value_low, no(0)?, 0),
            ])
        }
        Test::MaskedEqual { mask, value } => {
            let ((mask_high, mask_low), (value_high, value_low)) = (halves(mask), halves(value));
            Ok(vec![
                high,
                and(mask_high),
                jump(JUMP_EQUAL, value_high, 0, no(3)?),
                low,
                and(mask_low),
                jump(JUMP_EQUAL, value_low, 0, no(0)?),
            ])
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "cutting in two halves is what it is for"
)]
const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

const fn load(offset: u32) -> Instruction {
    jump(LOAD, offset, 0, 0)
}

const fn and(mask: u32) -> Instruction {
    jump(AND, mask, 0, 0)
}

const fn give(action: u32) -> Instruction {
    jump(RETURN, action, 0, 0)
}

fn skip(instructions: usize) -> Result<Instruction, Error> {
    check_length(instructions)?;
    Ok(jump(
        JUMP,
        u32::try_from(instructions).unwrap_or_default(),
        0,
        0,
    ))
}

fn check_length(instructions: usize) -> Result<(), Error> {
    if instructions <= MAX_INSTRUCTIONS {
        return Ok(());
    }
    Err(Error::TooLong {
        instructions,
        limit: MAX_INSTRUCTIONS,
    })
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
