//! The compiled programs, run by an interpreter for every number and telling arguments, against
//! (a) the rules read one by one and (b) libseccomp's program of the same profile, recorded by
//! `tests/libseccomp/record.py`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{Host, Profile, default, hardened, rules::Rule};

/// Executes a program as the kernel would; panics on what the kernel would refuse.
fn run(program: &[Instruction], number: u32, audit: u32, args: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => audit,
        ARGUMENTS.. => {
            let (index, upper) = ((offset - ARGUMENTS) / 8, (offset - ARGUMENTS) % 8 == 4);
            let (high, low) = halves(args[index as usize]);
            if upper { high } else { low }
        }
        _ => panic!("load of {offset}"),
    };
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        at += 1 + match code {
            LOAD => {
                accumulator = load(k);
                0
            }
            AND => {
                accumulator &= k;
                0
            }
            JUMP => k as usize,
            JUMP_EQUAL => jump(accumulator == k),
            JUMP_GREATER => jump(accumulator > k),
            JUMP_NOT_LESS => jump(accumulator >= k),
            RETURN => return k,
            _ => panic!("instruction {code:#x}"),
        };
    }
}

/// How many instructions it takes to know what to do with a number.
fn cost(program: &[Instruction], number: u32, audit: u32) -> usize {
    let (mut accumulator, mut at, mut count) = (0, 0, 0);
    loop {
        count += 1;
        let Instruction { code, jt, jf, k } = program[at];
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        at += 1 + match code {
            LOAD if k < ARGUMENTS => {
                accumulator = if k == NUMBER { number } else { audit };
                0
            }
            JUMP => k as usize,
            JUMP_EQUAL => jump(accumulator == k),
            JUMP_NOT_LESS => jump(accumulator >= k),
            _ => return count,
        };
    }
}

fn holds(condition: &Condition, args: &[u64; 6]) -> bool {
    let arg = args[usize::from(condition.index)];
    match condition.test {
        Test::NotEqual(value) => arg != value,
        Test::Less(value) => arg < value,
        Test::LessOrEqual(value) => arg <= value,
        Test::Equal(value) => arg == value,
        Test::GreaterOrEqual(value) => arg >= value,
        Test::Greater(value) => arg > value,
        Test::MaskedEqual { mask, value } => arg & mask == value,
    }
}

/// The rules' meaning for one number, read from top to bottom: every rule that may hold with
/// its conditions, and what becomes of the rest.
struct Meaning {
    may: Vec<(Vec<Condition>, u32)>,
    rest: u32,
}

impl Meaning {
    fn of(&self, args: &[u64; 6]) -> u32 {
        let always = self
            .may
            .iter()
            .find(|(conditions, _)| conditions.is_empty());
        let holds =
            |(conditions, _): &&(Vec<Condition>, u32)| conditions.iter().all(|c| holds(c, args));
        always
            .or_else(|| self.may.iter().find(holds))
            .map_or(self.rest, |(_, action)| *action)
    }
}

type Listing = Vec<(u32, Vec<Condition>, u32)>;

/// Every rule's every name as a number of one architecture, doors included, in order.
fn listing(rules: &Rules, arch: Arch) -> Listing {
    let mut all = Vec::new();
    for rule in rules
        .list
        .iter()
        .filter(|rule| rule.action != rules.default)
    {
        for name in &rule.names {
            let direct = (name.as_str(), rule.conditions.clone());
            let through = multiplex::door(name)
                .filter(|_| arch == Arch::X86 && rule.conditions.is_empty())
                .map(|(door, condition)| (door, vec![condition]));
            for (name, conditions) in [direct].into_iter().chain(through) {
                all.extend(arch.number(name).map(|n| (n, conditions, rule.action)));
            }
        }
    }
    all
}

/// [`listing`] of each architecture of the rules.
struct Reader<'a> {
    rules: &'a Rules,
    newer: bool,
    listings: Vec<(Arch, Listing)>,
}

impl<'a> Reader<'a> {
    fn new(rules: &'a Rules, newer: bool) -> Self {
        let listing = |arch: &Arch| (*arch, listing(rules, *arch));
        let listings = rules.architectures.iter().map(listing).collect();
        Self {
            rules,
            newer: newer && refuses(rules.default),
            listings,
        }
    }

    fn read(&self, number: u32, audit: u32) -> Meaning {
        let rest = |rest| Meaning { may: vec![], rest };
        let mut there = self
            .listings
            .iter()
            .filter(|(arch, _)| arch.audit() == audit);
        if number == u32::MAX && there.clone().next().is_some() {
            return rest(self.rules.default);
        }
        let of_x32 = number >= X32_BIT && audit == Arch::X32.audit();
        let Some((arch, list)) = there.find(|(arch, _)| (*arch == Arch::X32) == of_x32) else {
            return rest(KILL_THREAD);
        };
        let private = |number: u32| *arch == Arch::Arm && number >= ARM_PRIVATE;
        let highest = list.iter().map(|(n, ..)| *n).filter(|n| !private(*n)).max();
        let unheard = !private(number) && highest.is_some_and(|highest| number > highest);
        let may = list
            .iter()
            .filter(|(named, ..)| *named == number)
            .map(|(_, conditions, action)| (conditions.clone(), *action))
            .collect();
        let rest = if self.newer && unheard {
            RETURN_ENOSYS
        } else {
            self.rules.default
        };
        Meaning { may, rest }
    }
}

/// Each argument at, beside and far from every value that a condition compares it with.
fn samples(rules: &Rules, number: u32) -> Vec<[u64; 6]> {
    let named = |name: &String| {
        Arch::ALL
            .iter()
            .any(|arch| arch.number(name) == Some(number))
    };
    let mut values: [BTreeSet<u64>; 6] = Default::default();
    let conditions = rules
        .list
        .iter()
        .filter(|rule| rule.names.iter().any(named))
        .flat_map(|rule| &rule.conditions);
    for condition in conditions {
        let (value, more) = match condition.test {
            Test::MaskedEqual { mask, value } => (value, mask),
            Test::NotEqual(v)
            | Test::Less(v)
            | Test::LessOrEqual(v)
            | Test::Equal(v)
            | Test::GreaterOrEqual(v)
            | Test::Greater(v) => (v, 1),
        };
        values[usize::from(condition.index)].extend([
            value,
            value.wrapping_sub(1),
            value.wrapping_add(1),
            value ^ more,
            value | !more,
            value ^ (1 << 32),
            value | (0xff << 40),
            value & 0xffff_ffff,
        ]);
    }
    let doors = [Arch::X86.number("socketcall"), Arch::X86.number("ipc")];
    if doors.contains(&Some(number)) {
        values[0].extend(0..25);
    }
    let mut all = vec![[0; 6], [u64::MAX; 6]];
    for (index, some) in values.iter().enumerate() {
        let before = all.clone();
        for value in some {
            all.extend(before.iter().take(4).map(|args| {
                let mut args = *args;
                args[index] = *value;
                args
            }));
        }
    }
    all
}

/// Everything any table has, what lies beside it, and the corners.
fn numbers() -> Vec<u32> {
    let mut all: BTreeSet<u32> = (0..1024).chain(X32_BIT - 2..X32_BIT + 1024).collect();
    all.extend(ARM_PRIVATE - 2..ARM_PRIVATE + 8);
    all.extend([4096, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX]);
    all.into_iter().collect()
}

const AUDITS: [u32; 5] = [
    Arch::X86_64.audit(),
    Arch::X86.audit(),
    Arch::Aarch64.audit(),
    Arch::Arm.audit(),
    // PowerPC's, never of the family.
    0xc000_0015,
];

fn compare(what: &str, rules: &Rules, newer: bool) {
    let filter = compile(rules, newer).unwrap();
    let reader = Reader::new(rules, newer);
    for number in numbers() {
        let samples = samples(rules, number);
        for audit in AUDITS {
            let meaning = reader.read(number, audit);
            for args in &samples {
                let expected = meaning.of(args);
                let got = run(&filter.instructions, number, audit, *args);
                assert_eq!(
                    got, expected,
                    "{what}: {audit:#x} {number:#x} {args:x?}: {got:#x} for {expected:#x}"
                );
            }
        }
    }
}

fn host(arch: Arch, capabilities: &[String]) -> Host<'_> {
    Host {
        arch,
        kernel: (6, 1),
        capabilities,
    }
}

/// The recorded profiles, with the host's architecture they are for.
fn recorded() -> BTreeMap<&'static str, (Rules, &'static [u8])> {
    macro_rules! profile {
        ($arch:expr, $name:literal) => {{
            let text = include_str!(concat!("../tests/libseccomp/", $name, ".json"));
            let rules = Profile::parse(text)
                .unwrap()
                .rules(&host($arch, &[]))
                .unwrap();
            let program: &[u8] = include_bytes!(concat!("../tests/libseccomp/", $name, ".bpf"));
            ($name, (rules, program))
        }};
    }
    BTreeMap::from([
        profile!(Arch::X86_64, "operators"),
        profile!(Arch::X86_64, "deny"),
        profile!(Arch::Aarch64, "arm"),
        profile!(Arch::X86_64, "default"),
    ])
}

#[test]
fn a_program_means_what_its_rules_say() {
    for (name, (rules, _)) in recorded() {
        for newer in [false, true] {
            compare(name, &rules, newer);
        }
    }
    let some = ["CAP_SYS_ADMIN".to_owned(), "CAP_SYS_TIME".to_owned()];
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for capabilities in [&[][..], &some] {
            let host = host(arch, capabilities);
            compare("default", &default::rules(&host), true);
            compare("hardened", &hardened::rules(&host), true);
        }
    }
}

#[test]
fn libseccomp_makes_the_same_of_it() {
    for (name, (rules, recorded)) in recorded() {
        let (chunks, rest) = recorded.as_chunks::<8>();
        assert!(rest.is_empty());
        let theirs: Vec<Instruction> = chunks
            .iter()
            .map(|&[c0, c1, jt, jf, k @ ..]| Instruction {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_le_bytes(k),
            })
            .collect();
        let ours = compile(&rules, false).unwrap().instructions;
        for number in numbers() {
            let wide = is_wide(&rules, number);
            for args in samples(&rules, number) {
                for audit in AUDITS {
                    // The kernel zero-extends a 32-bit register. libseccomp counts on that for
                    // x32 too, and cuts what an argument is compared with instead of saying no.
                    let narrow = audit == Arch::X86.audit()
                        || audit == Arch::Arm.audit()
                        || number >= X32_BIT;
                    if narrow && wide {
                        continue;
                    }
                    let args = args.map(|arg| if narrow { arg & 0xffff_ffff } else { arg });
                    assert_eq!(
                        run(&ours, number, audit, args),
                        run(&theirs, number, audit, args),
                        "{name}: {audit:#x} {number:#x} {args:x?}"
                    );
                }
            }
        }
    }
}

/// A rule compares an argument of this call with more than 32 bits hold.
fn is_wide(rules: &Rules, number: u32) -> bool {
    let named = |name: &String| {
        Arch::ALL
            .iter()
            .any(|arch| arch.number(name) == Some(number))
    };
    let wide = |condition: &Condition| match condition.test {
        Test::MaskedEqual { mask, .. } => mask > u64::from(u32::MAX),
        Test::NotEqual(value)
        | Test::Less(value)
        | Test::LessOrEqual(value)
        | Test::Equal(value)
        | Test::GreaterOrEqual(value)
        | Test::Greater(value) => value > u64::from(u32::MAX),
    };
    let mut list = rules.list.iter();
    list.any(|rule| rule.conditions.iter().any(wide) && rule.names.iter().any(named))
}

/// The default's socket rule tests one argument twice, which JSON cannot say: without that.
fn writable(mut rules: Rules) -> Rules {
    for rule in &mut rules.list {
        rule.conditions.truncate(1);
    }
    rules
}

/// What `tests/libseccomp/default.json` was written by: `cargo test -p paddock-seccomp -- --ignored`,
/// then record.py.
#[test]
#[ignore = "writes a file of the source tree"]
fn write_the_default_as_json() {
    let rules = writable(default::rules(&host(Arch::X86_64, &[])));
    let list = |rule: &Rule| {
        let args: Vec<_> = rule.conditions.iter().map(as_json).collect();
        let action = if rule.action == ALLOW {
            "SCMP_ACT_ALLOW"
        } else {
            "SCMP_ACT_ERRNO"
        };
        let mut json = serde_json::json!({ "names": rule.names, "action": action, "args": args });
        if rule.action != ALLOW {
            json["errnoRet"] = (rule.action & 0xffff).into();
        }
        json
    };
    let json = serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules.list.iter().map(list).collect::<Vec<_>>(),
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libseccomp/default.json");
    std::fs::write(path, json.to_string()).unwrap();
}

fn as_json(condition: &Condition) -> serde_json::Value {
    let (op, value, second) = match condition.test {
        Test::Less(value) => ("SCMP_CMP_LT", value, 0),
        Test::Equal(value) => ("SCMP_CMP_EQ", value, 0),
        Test::Greater(value) => ("SCMP_CMP_GT", value, 0),
        Test::MaskedEqual { mask, value } => ("SCMP_CMP_MASKED_EQ", mask, value),
        other => panic!("{other:?}"),
    };
    serde_json::json!({ "index": condition.index, "op": op, "value": value, "valueTwo": second })
}

#[test]
fn a_call_costs_a_logarithm() {
    let filter = compile(&default::rules(&host(Arch::X86_64, &[])), true).unwrap();
    let audit = Arch::X86_64.audit();
    let worst = (0..470)
        .map(|number| cost(&filter.instructions, number, audit))
        .max()
        .unwrap();
    assert!(worst <= 12, "{worst} instructions");
    assert!(
        filter.instructions.len() < 500,
        "{}",
        filter.instructions.len()
    );
}

#[test]
fn long_programs_are_refused_and_long_jumps_reach() {
    let mut rules = Rules::new(Action::Errno(1).value(), &[Arch::X86_64]);
    let mut add = |count: u64| {
        rules.list.extend((0..count).flat_map(|value| {
            (0..3).map(move |index| Rule {
                names: vec!["personality".into(), "read".into(), "openat".into()],
                action: ALLOW,
                conditions: vec![Condition {
                    index,
                    test: Test::Equal(value << 20),
                }],
            })
        }));
        rules.clone()
    };
    let long = add(60);
    assert!(compile(&long, true).unwrap().instructions.len() > 2000);
    compare("long", &long, true);
    let error = compile(&add(200), true).unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
}

#[test]
fn unknown_names_are_told_and_ignored() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["teleport","read"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let filter = Profile::parse(text)
        .unwrap()
        .compile(&host(Arch::X86_64, &[]))
        .unwrap();
    assert_eq!(filter.unknown, ["teleport"]);
    let answer = run(&filter.instructions, 0, Arch::X86_64.audit(), [0; 6]);
    assert_eq!(answer, Action::Errno(1).value());
}
