//! The JSON that people write: Docker's profile, and `linux.seccomp` of OCI's config.
//!
//! One type reads both, since Docker's is OCI's with conditions on the host added. Strict in
//! what it knows (a wrong type, action, comparison or architecture is an error with its line),
//! silent about fields it does not know, as the OCI specification wants.

use serde::Deserialize;

use crate::{
    Arch, Error, Filter, Host,
    action::{Action, EPERM},
    compile,
    rules::{Condition, Rule, Rules, SPEC_ALLOW, Test},
};

/// Docker's own has 15 kB.
const MAX_BYTES: usize = 1 << 20;

/// The kernel's `MAX_ERRNO`.
const MAX_ERRNO: u16 = 4095;

const ARGUMENTS: u64 = 6;

/// A profile that was read; whether its rules make sense is seen when it is compiled.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: Kind,
    default_errno_ret: Option<u64>,
    #[serde(default)]
    architectures: Vec<Architecture>,
    #[serde(default)]
    arch_map: Vec<ArchitectureEntry>,
    flags: Option<Vec<Flag>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Vec<Syscall>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureEntry {
    architecture: Architecture,
    sub_architectures: Option<Vec<Architecture>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: Kind,
    errno_ret: Option<u64>,
    args: Option<Vec<Argument>>,
    includes: Option<Selector>,
    excludes: Option<Selector>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

/// Docker's condition on the host: all that is given must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    #[serde(default, deserialize_with = "kernel_version")]
    min_kernel: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Kind {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Bits of seccomp(2)'s flags; TSYNC is there for compatibility, a launch has one thread.
#[derive(Clone, Copy, Debug, Deserialize)]
enum Flag {
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync = 1,
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log = 2,
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow = 4,
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv = 32,
}

/// OCI's names. Those of other machines are known and mean nothing here: no kernel that runs
/// this program can meet them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Architecture {
    #[serde(rename = "SCMP_ARCH_NATIVE")]
    Native,
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(
        rename = "SCMP_ARCH_MIPS",
        alias = "SCMP_ARCH_LOONGARCH64",
        alias = "SCMP_ARCH_M68K",
        alias = "SCMP_ARCH_MIPS64",
        alias = "SCMP_ARCH_MIPS64N32",
        alias = "SCMP_ARCH_MIPSEL",
        alias = "SCMP_ARCH_MIPSEL64",
        alias = "SCMP_ARCH_MIPSEL64N32",
        alias = "SCMP_ARCH_PARISC",
        alias = "SCMP_ARCH_PARISC64",
        alias = "SCMP_ARCH_PPC",
        alias = "SCMP_ARCH_PPC64",
        alias = "SCMP_ARCH_PPC64LE",
        alias = "SCMP_ARCH_RISCV64",
        alias = "SCMP_ARCH_S390",
        alias = "SCMP_ARCH_S390X",
        alias = "SCMP_ARCH_SH",
        alias = "SCMP_ARCH_SHEB"
    )]
    Foreign,
}

// === impl Profile ===

impl Profile {
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::TooLarge {
                bytes: text.len(),
                limit: MAX_BYTES,
            });
        }
        serde_json::from_str(text).map_err(|error| Error::Syntax {
            reason: error.to_string(),
        })
    }

    /// Where the listener of a profile that asks one waits, and what it is to be told.
    pub fn listener(&self) -> (Option<&str>, Option<&str>) {
        let path = self.listener_path.as_deref();
        (path, self.listener_metadata.as_deref())
    }

    /// The filter for a container with these capabilities on this host.
    pub fn compile(&self, host: &Host<'_>) -> Result<Filter, Error> {
        compile::compile(&self.rules(host)?, true)
    }

    pub(crate) fn rules(&self, host: &Host<'_>) -> Result<Rules, Error> {
        if self.default_action == Kind::Notify {
            return Err(Error::NotifyByDefault);
        }
        let place = || "defaultErrnoRet".to_owned();
        let default = action(self.default_action, self.default_errno_ret, place)?;
        let mut rules = Rules::new(default.value(), &self.architectures(host)?);
        if let Some(flags) = &self.flags {
            rules.flags = flags.iter().fold(0, |all, flag| all | *flag as u32);
        } else {
            rules.flags = SPEC_ALLOW;
        }
        for (syscall, number) in self.syscalls.iter().zip(1..) {
            let some = syscall.rules(number)?;
            if syscall.holds(host) {
                rules.list.extend(some);
            }
        }
        Ok(rules)
    }

    /// The host's own is always one of them, and the first.
    fn architectures(&self, host: &Host<'_>) -> Result<Vec<Arch>, Error> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(Error::TwoArchitectureLists);
        }
        let mut all = vec![host.arch];
        let mine = |entry: &&ArchitectureEntry| entry.architecture.known(host) == Some(host.arch);
        let sub = self
            .arch_map
            .iter()
            .find(mine)
            .and_then(|entry| entry.sub_architectures.as_ref());
        for architecture in self.architectures.iter().chain(sub.into_iter().flatten()) {
            if let Some(arch) = architecture.known(host)
                && !all.contains(&arch)
            {
                all.push(arch);
            }
        }
        Ok(all)
    }
}

// === impl Syscall ===

impl Syscall {
    fn names(&self, rule: usize) -> Result<Vec<String>, Error> {
        match (&self.name, &self.names) {
            (Some(_), Some(names)) if !names.is_empty() => Err(Error::TwoNames { rule }),
            (Some(name), _) => Ok(vec![name.clone()]),
            (None, Some(names)) if !names.is_empty() => Ok(names.clone()),
            (None, _) => Err(Error::NoNames { rule }),
        }
    }

    fn rules(&self, number: usize) -> Result<Vec<Rule>, Error> {
        let names = self.names(number)?;
        let place = || format!("rule {number}");
        let action = action(self.action, self.errno_ret, place)?.value();
        let args = self.args.as_deref().unwrap_or_default();
        let conditions = args
            .iter()
            .map(|arg| arg.condition(number))
            .collect::<Result<Vec<_>, _>>()?;
        let rule = |conditions: Vec<Condition>| Rule {
            names: names.clone(),
            action,
            conditions,
        };
        // Two tests of one argument were alternatives in the first profiles there were, and
        // every runtime has kept it.
        let twice = (0..6).any(|index| conditions.iter().filter(|c| c.index == index).count() > 1);
        if twice {
            return Ok(conditions.into_iter().map(|one| rule(vec![one])).collect());
        }
        Ok(vec![rule(conditions)])
    }

    fn holds(&self, host: &Host<'_>) -> bool {
        let excluded = self.excludes.as_ref().is_some_and(|selector| {
            let caps = selector.caps.iter().flatten().any(|cap| host.has(cap));
            caps || selector.names_arch(host) == Some(true) || selector.is_new(host) == Some(true)
        });
        let included = self.includes.as_ref().is_none_or(|selector| {
            let caps = selector.caps.iter().flatten().all(|cap| host.has(cap));
            caps && selector.names_arch(host) != Some(false) && selector.is_new(host) != Some(false)
        });
        included && !excluded
    }
}

// === impl Selector ===

impl Selector {
    fn names_arch(&self, host: &Host<'_>) -> Option<bool> {
        let arches = self.arches.as_ref().filter(|arches| !arches.is_empty())?;
        Some(arches.iter().any(|name| name == host.arch.docker_name()))
    }

    fn is_new(&self, host: &Host<'_>) -> Option<bool> {
        self.min_kernel.map(|least| host.kernel >= least)
    }
}

// === impl Argument ===

impl Argument {
    fn condition(self, rule: usize) -> Result<Condition, Error> {
        let test = match self.op {
            Operator::NotEqual => Test::NotEqual(self.value),
            Operator::Less => Test::Less(self.value),
            Operator::LessOrEqual => Test::LessOrEqual(self.value),
            Operator::Equal => Test::Equal(self.value),
            Operator::GreaterOrEqual => Test::GreaterOrEqual(self.value),
            Operator::Greater => Test::Greater(self.value),
            Operator::MaskedEqual => Test::MaskedEqual {
                mask: self.value,
                value: self.value_two,
            },
        };
        let index = u8::try_from(self.index).ok();
        match index.filter(|index| u64::from(*index) < ARGUMENTS) {
            Some(index) => Ok(Condition { index, test }),
            None => Err(Error::ArgumentIndex {
                rule,
                index: self.index,
            }),
        }
    }
}

// === impl Architecture ===

impl Architecture {
    fn known(self, host: &Host<'_>) -> Option<Arch> {
        match self {
            Self::Native => Some(host.arch),
            Self::X86_64 => Some(Arch::X86_64),
            Self::X86 => Some(Arch::X86),
            Self::X32 => Some(Arch::X32),
            Self::Aarch64 => Some(Arch::Aarch64),
            Self::Arm => Some(Arch::Arm),
            Self::Foreign => None,
        }
    }
}

/// With its errno, EPERM where none is given; an errno for an action that has none is an error.
fn action(kind: Kind, errno: Option<u64>, place: impl Fn() -> String) -> Result<Action, Error> {
    let data = |limit: u16| match errno {
        None => Ok(EPERM),
        Some(errno) => u16::try_from(errno)
            .ok()
            .filter(|errno| *errno <= limit)
            .ok_or_else(|| Error::Errno {
                place: place(),
                errno,
                limit,
            }),
    };
    let (plain, name) = match kind {
        Kind::Errno => return Ok(Action::Errno(data(MAX_ERRNO)?)),
        Kind::Trace => return Ok(Action::Trace(data(u16::MAX)?)),
        Kind::KillThread => (Action::KillThread, "SCMP_ACT_KILL"),
        Kind::KillProcess => (Action::KillProcess, "SCMP_ACT_KILL_PROCESS"),
        Kind::Trap => (Action::Trap, "SCMP_ACT_TRAP"),
        Kind::Allow => (Action::Allow, "SCMP_ACT_ALLOW"),
        Kind::Log => (Action::Log, "SCMP_ACT_LOG"),
        Kind::Notify => (Action::Notify, "SCMP_ACT_NOTIFY"),
    };
    match errno {
        None => Ok(plain),
        Some(_) => Err(Error::NoErrno {
            place: place(),
            action: name,
        }),
    }
}

/// `"4.8"`; an empty string is no condition.
fn kernel_version<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<(u32, u32)>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let version = || {
        let (version, patch) = text.split_once('.')?;
        Some((
            u32::from(version.parse::<u8>().ok()?),
            u32::from(patch.parse::<u8>().ok()?),
        ))
    };
    version()
        .filter(|version| *version != (0, 0))
        .map(Some)
        .ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "minKernel {text:?}: expected VERSION.PATCHLEVEL, such as 4.8"
            ))
        })
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
