//! A filter that only asks: whoever listens is told of each setns before it happens.
//!
//! A program may live under several filters, of which the strictest answer counts: where its own
//! refuses setns nobody is asked, where that lets it through this one stops it.

use std::collections::BTreeSet;

use crate::{
    Arch, Error, Filter, Instruction,
    action::{ALLOW, Action},
    compile::{
        AND, ARCHITECTURE, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_NOT_LESS, LOAD, NUMBER, RETURN,
        compile,
    },
    rules::Rules,
};

/// By all its numbers.
const CALL: &str = "setns";

/// Asks about setns of every calling convention of the machine's, and about nothing else.
pub fn asking_filter(arch: Arch) -> Result<Filter, Error> {
    let mut rules = Rules::new(ALLOW, arch.family());
    rules.push(CALL, Action::Notify.value(), &[]);
    compile(&rules, false)
}

/// Whether there is anything to ask about under this filter: it may let a setns through.
pub fn passes_setns(filter: &Filter, arch: Arch) -> bool {
    let mut all = arch.family().iter();
    all.any(|arch| {
        let number = arch.number(CALL);
        number.is_some_and(|number| may_pass(&filter.instructions, arch.audit(), number))
    })
}

/// Follows all ways that a call of this number can take; its arguments may be anything.
fn may_pass(program: &[Instruction], audit: u32, number: u32) -> bool {
    let mut ways = vec![(0_usize, None::<u32>)];
    let mut seen = BTreeSet::new();
    while let Some((at, word)) = ways.pop() {
        if !seen.insert((at, word)) {
            continue;
        }
        let Some(one) = program.get(at) else { continue };
        let by = |over: u8| at + 1 + usize::from(over);
        let compared = match one.code {
            LOAD => {
                let word = match one.k {
                    NUMBER => Some(number),
                    ARCHITECTURE => Some(audit),
                    _ => None,
                };
                ways.push((at + 1, word));
                continue;
            }
            AND => {
                ways.push((at + 1, word.map(|word| word & one.k)));
                continue;
            }
            JUMP => {
                let over = usize::try_from(one.k).unwrap_or(program.len());
                ways.push((at + 1 + over, word));
                continue;
            }
            RETURN if lets_through(one.k) => return true,
            RETURN => continue,
            JUMP_EQUAL => word.map(|word| word == one.k),
            JUMP_GREATER => word.map(|word| word > one.k),
            JUMP_NOT_LESS => word.map(|word| word >= one.k),
            // None that this compiler makes.
            _ => return true,
        };
        if compared != Some(false) {
            ways.push((by(one.jt), word));
        }
        if compared != Some(true) {
            ways.push((by(one.jf), word));
        }
    }
    false
}

/// What a question is stricter than. The kernel compares actions as signed numbers.
fn lets_through(action: u32) -> bool {
    const KIND: u32 = 0xffff_0000;
    (action & KIND).cast_signed() > Action::Notify.value().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, Profile, default_filter, hardened_filter};

    fn host(capabilities: &[String]) -> Host<'_> {
        Host {
            arch: Arch::X86_64,
            kernel: (6, 18),
            capabilities,
        }
    }

    #[test]
    fn it_asks_about_setns_by_every_number() {
        let filter = asking_filter(Arch::X86_64).unwrap();
        assert!(filter.notifies && filter.unknown.is_empty());
        let pass = |arch: Arch, number| may_pass(&filter.instructions, arch.audit(), number);
        for (arch, number) in [
            (Arch::X86_64, 308),
            (Arch::X86, 346),
            (Arch::X32, 0x4000_0134),
        ] {
            assert!(!pass(arch, number), "{arch:?}");
            assert!(pass(arch, number - 1) && pass(arch, number + 1), "{arch:?}");
        }
        // Another convention's number is another call.
        assert!(pass(Arch::X86, 308) && pass(Arch::X86_64, 346));
    }

    #[test]
    fn who_may_not_call_it_is_not_asked() {
        let admin = ["CAP_SYS_ADMIN".to_owned()];
        for (capabilities, passes) in [(&[][..], false), (&admin, true)] {
            let host = host(capabilities);
            for filter in [default_filter(&host), hardened_filter(&host)] {
                assert_eq!(passes_setns(&filter.unwrap(), host.arch), passes);
            }
        }
    }

    #[test]
    fn what_depends_on_arguments_may_pass() {
        let compile = |action: &str, args: &str| {
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
                "syscalls":[{{"names":["setns"],"action":"{action}","args":[{args}]}}]}}"#
            );
            let profile = Profile::parse(&text).unwrap();
            passes_setns(&profile.compile(&host(&[])).unwrap(), Arch::X86_64)
        };
        let network = r#"{"index":1,"value":1073741824,"op":"SCMP_CMP_EQ"}"#;
        for (action, args, want) in [
            ("SCMP_ACT_ALLOW", "", true),
            ("SCMP_ACT_ALLOW", network, true),
            ("SCMP_ACT_LOG", network, true),
            ("SCMP_ACT_KILL_PROCESS", network, false),
            ("SCMP_ACT_KILL", "", false),
        ] {
            assert_eq!(compile(action, args), want, "{action} {args}");
        }
    }
}
