//! What the plans of a container and of an exec have in common: process, credentials, program.
#![forbid(unsafe_code)]

use std::ffi::CString;

use nix::{errno::Errno, libc, sys::stat::Mode};

use super::{ASKING, Exec, Failure, Op, Plan, SECCOMP, Step, container, exec};
use crate::{
    apparmor, defaults,
    disk::kernel_text,
    spec::{Asking, Label, LaunchSpec, Process, Rlimit, Target, User},
    sys::{exec::Strings, seccomp, task::CapabilitySets},
};

/// A plan and what the monitor needs for its side of it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub plan: Plan,
    pub io: crate::monitor::io::Io,
}

/// Computes the plan; everything it opens is gone again when it is dropped.
pub(crate) fn prepare(spec: &LaunchSpec, window: Option<(u16, u16)>) -> Result<Prepared, Failure> {
    let mut prepared = match &spec.target {
        Target::Container(target) => container::prepare(spec, target, window),
        Target::Exec(target) => exec::prepare(&spec.process, target, window),
    }?;
    if let Some(asking) = &spec.asking {
        ask(
            &mut prepared.plan.steps,
            spec.process.no_new_privileges,
            asking,
        );
    }
    Ok(prepared)
}

/// The filter that asks goes below the process' own, which would judge what its installing takes;
/// where it may be installed with `no_new_privs` alone, after that.
fn ask(steps: &mut Vec<Step>, no_new_privileges: bool, asking: &Asking) {
    let before = |op: &Op| match op {
        Op::ParentDeath => no_new_privileges,
        Op::Seccomp { .. } | Op::User { .. } => !no_new_privileges,
        _ => false,
    };
    let at = steps.iter().position(|step| before(&step.op));
    let program = seccomp::Program::from(&asking.filter).asking_once();
    steps.insert(
        at.unwrap_or(steps.len()),
        step(ASKING, Op::Seccomp { program }),
    );
}

pub(super) fn step(name: &'static str, op: Op) -> Step {
    Step {
        name,
        path: None,
        op,
    }
}

pub(super) fn step_at(name: &'static str, path: &str, op: Op) -> Step {
    Step {
        name,
        path: Some(path.to_owned()),
        op,
    }
}

/// A string from outside for the kernel: one with a NUL in it is refused.
pub(super) fn c_string(step: &'static str, text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new(step, text.replace('\0', "\\0"), Errno::EINVAL))
}

/// A string of ours.
pub(super) fn literal(text: &'static std::ffi::CStr) -> CString {
    text.to_owned()
}

/// What the security modules are to make of the program: while /proc is the host's.
pub(super) fn push_labels(steps: &mut Vec<Step>, process: &Process) -> Result<(), Failure> {
    for label in &process.labels {
        let (name, at, label, text) = match label {
            // Kernels before 5.8 know only the shared file, which is then AppArmor's.
            Label::AppArmor(profile) => (
                apparmor::STEP,
                "/proc/self/attr/apparmor/exec",
                profile,
                format!("exec {profile}"),
            ),
            Label::SeLinux(label) => (
                "selinux label",
                "/proc/self/attr/exec",
                label,
                label.clone(),
            ),
        };
        let op = Op::ExecLabel {
            at: c_string(name, at)?,
            label: c_string(name, &text)?,
        };
        steps.push(step_at(name, label, op));
    }
    Ok(())
}

/// Session, stdio and the limits: before credentials go.
pub(super) fn push_session(steps: &mut Vec<Step>, process: &Process) -> Result<(), Failure> {
    steps.push(step("new session", Op::Session));
    if process.terminal {
        steps.push(step("controlling terminal", Op::ControllingTerminal));
    }
    steps.push(step("stdio", Op::Stdio));
    steps.push(step("session keyring", Op::Keyring));
    for limit in &process.rlimits {
        steps.push(step_at("rlimit", &limit.name, rlimit(limit)?));
    }
    Ok(())
}

/// The way down to the program's privileges, in the only order that works: each step needs
/// what the next takes away. The death signal is last since the kernel clears it whenever
/// capabilities change.
pub(super) fn push_credentials(
    steps: &mut Vec<Step>,
    process: &Process,
    own_user_namespace: bool,
) -> Result<(), Failure> {
    let last = last_capability()?;
    let mut there = u64::MAX >> (63 - last.min(63));
    if !own_user_namespace {
        // Root in a confined agent has less than all; it can't give what it hasn't.
        there &= own_capabilities()?;
    }
    let set = |names: &[String]| {
        let unknown = |source: defaults::UnknownCapability| {
            Failure::new("capabilities", source.name, Errno::EINVAL)
        };
        defaults::capability_set(names)
            .map(|set| set & there)
            .map_err(unknown)
    };
    let wanted = &process.capabilities;
    let cwd = c_string("working directory", &process.cwd)?;
    let enter = Op::WorkingDirectory { path: cwd };
    steps.push(step_at("working directory", &process.cwd, enter));
    let keep = set(&wanted.bounding)?;
    steps.push(step("bounding set", Op::Bounding { keep, last }));
    if let Some(filter) = &process.seccomp
        && !process.no_new_privileges
    {
        let program = filter.into();
        steps.push(step(SECCOMP, Op::Seccomp { program }));
    }
    let User {
        uid, gid, groups, ..
    } = process.user.clone();
    steps.push(step("user", Op::User { uid, gid, groups }));
    let sets = CapabilitySets {
        effective: set(&wanted.effective)?,
        permitted: set(&wanted.permitted)?,
        inheritable: set(&wanted.inheritable)?,
    };
    let ambient = set(&wanted.ambient)?;
    steps.push(step("capabilities", Op::Capabilities { sets, ambient }));
    if process.no_new_privileges {
        steps.push(step("no_new_privs", Op::NoNewPrivileges));
    }
    steps.push(step("parent death signal", Op::ParentDeath));
    Ok(())
}

/// The filter that is to come last; see [`Plan::seccomp`].
pub(super) fn last_filter(process: &Process) -> Option<seccomp::Program> {
    let filter = process.seccomp.as_ref();
    filter
        .filter(|_| process.no_new_privileges)
        .map(seccomp::Program::from)
}

/// What the program makes is readable for all unless it was asked otherwise.
pub(super) fn umask(user: &User) -> Mode {
    Mode::from_bits_truncate(user.umask.unwrap_or(0o022))
}

/// Strings and candidates, as execvp would try them.
pub(super) fn program(process: &Process) -> Result<Exec, Failure> {
    const STEP: &str = "exec";
    let name = process.args.first().cloned().unwrap_or_default();
    if name.is_empty() {
        return Err(Failure {
            exit_code: 127,
            ..Failure::new(STEP, name, Errno::ENOENT)
        });
    }
    let strings = |texts: &[String]| -> Result<Strings, Failure> {
        Ok(Strings::new(
            texts
                .iter()
                .map(|text| c_string(STEP, text))
                .collect::<Result<_, _>>()?,
        ))
    };
    let path = process
        .env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="));
    let candidates = candidates(&name, path.unwrap_or(defaults::PATH));
    Ok(Exec {
        candidates: candidates
            .iter()
            .map(|path| c_string(STEP, path))
            .collect::<Result<_, _>>()?,
        argv: strings(&process.args)?,
        envp: strings(&process.env)?,
        name,
    })
}

/// execvp(3): a name with a slash is a path; else each directory of `PATH`, an empty one being
/// the working directory.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let join = |directory: &str| match directory {
        "" => format!("./{name}"),
        directory => format!("{directory}/{name}"),
    };
    path.split(':').map(join).collect()
}

fn rlimit(limit: &Rlimit) -> Result<Op, Failure> {
    let resource = match limit.name.as_str() {
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        _ => return Err(Failure::new("rlimit", &limit.name, Errno::EINVAL)),
    };
    Ok(Op::Rlimit {
        resource,
        soft: limit.soft,
        hard: limit.hard,
    })
}

fn last_capability() -> Result<u8, Failure> {
    const PATH: &str = "/proc/sys/kernel/cap_last_cap";
    let text = kernel_text(PATH).map_err(|source| io_failure("capabilities", PATH, &source))?;
    text.trim()
        .parse()
        .map_err(|_| Failure::new("capabilities", PATH, Errno::EINVAL))
}

fn own_capabilities() -> Result<u64, Failure> {
    const PATH: &str = "/proc/self/status";
    let text = kernel_text(PATH).map_err(|source| io_failure("capabilities", PATH, &source))?;
    text.lines()
        .find_map(|line| line.strip_prefix("CapPrm:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .ok_or_else(|| Failure::new("capabilities", PATH, Errno::EINVAL))
}

/// An error of std's as a failure.
pub(crate) fn io_failure(
    step: &'static str,
    path: impl AsRef<std::path::Path>,
    source: &std::io::Error,
) -> Failure {
    Failure::new(
        step,
        path,
        source.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Capabilities;

    fn process(args: &[&str], env: &[&str]) -> Process {
        Process {
            args: args.iter().map(ToString::to_string).collect(),
            env: env.iter().map(ToString::to_string).collect(),
            cwd: "/".into(),
            terminal: false,
            stdin: false,
            user: User::default(),
            account: None,
            capabilities: Capabilities::of_root(vec!["CAP_KILL".into()]),
            no_new_privileges: true,
            rlimits: vec![],
            oom_score_adj: None,
            seccomp: None,
            labels: vec![],
        }
    }

    #[test]
    fn a_name_is_searched_and_a_path_is_not() {
        assert_eq!(
            candidates("sh", "/bin::/usr/bin"),
            ["/bin/sh", "./sh", "/usr/bin/sh"]
        );
        assert_eq!(candidates("bin/sh", "/bin"), ["bin/sh"]);
    }

    #[test]
    fn the_programs_own_path_counts() {
        let exec = program(&process(&["sh"], &["A=1", "PATH=/x"])).unwrap();
        assert_eq!(exec.candidates, [c"/x/sh".to_owned()]);
        assert_eq!(program(&process(&["sh"], &[])).unwrap().candidates.len(), 6);
    }

    #[test]
    fn no_program_is_not_found_and_a_nul_is_refused() {
        assert_eq!(program(&process(&[], &[])).unwrap_err().exit_code, 127);
        assert_eq!(
            program(&process(&["a\0b"], &[])).unwrap_err().errno,
            Errno::EINVAL
        );
    }

    #[test]
    fn privileges_go_in_order_and_the_death_signal_is_last() {
        let mut steps = Vec::new();
        push_credentials(&mut steps, &process(&["x"], &[]), true).unwrap();
        let names: Vec<_> = steps.iter().map(|step| step.name).collect();
        let expected = [
            "working directory",
            "bounding set",
            "user",
            "capabilities",
            "no_new_privs",
            "parent death signal",
        ];
        assert_eq!(names, expected);
        let Op::Capabilities { sets, ambient } = &steps[3].op else {
            panic!("{steps:?}")
        };
        assert_eq!((sets.effective, sets.permitted), (0x20, 0x20));
        assert_eq!((sets.inheritable, *ambient), (0, 0));
    }

    /// Where the kernel wants CAP_SYS_ADMIN for it, the filter comes before that goes.
    #[test]
    fn a_filter_is_last_or_a_step_before_the_user_changes() {
        let mut process = process(&["x"], &[]);
        process.seccomp = Some(paddock_seccomp::Filter::default());
        let names = |process: &Process| {
            let mut steps = Vec::new();
            push_credentials(&mut steps, process, true).unwrap();
            steps.iter().map(|step| step.name).collect::<Vec<_>>()
        };
        assert!(!names(&process).contains(&SECCOMP) && last_filter(&process).is_some());
        process.no_new_privileges = false;
        assert_eq!(names(&process)[1..4], ["bounding set", SECCOMP, "user"]);
        assert!(last_filter(&process).is_none());
    }

    #[test]
    fn who_asks_is_below_the_processs_own_filter() {
        let mut process = process(&["x"], &[]);
        process.seccomp = Some(paddock_seccomp::Filter::default());
        let asking = Asking {
            filter: paddock_seccomp::Filter::default(),
            program: "/pin".into(),
        };
        let names = |process: &Process| {
            let mut steps = Vec::new();
            push_credentials(&mut steps, process, true).unwrap();
            ask(&mut steps, process.no_new_privileges, &asking);
            steps.iter().map(|step| step.name).collect::<Vec<_>>()
        };
        let with = names(&process);
        assert_eq!(
            with[with.len() - 3..],
            ["no_new_privs", ASKING, "parent death signal"]
        );
        process.no_new_privileges = false;
        assert_eq!(names(&process)[2..5], [ASKING, SECCOMP, "user"]);
        process.seccomp = None;
        assert_eq!(names(&process)[2..4], [ASKING, "user"]);
    }

    #[test]
    fn unknown_names_fail_the_plan() {
        let mut process = process(&["x"], &[]);
        process.capabilities.bounding.push("CAP_NOPE".into());
        let failure = push_credentials(&mut Vec::new(), &process, true).unwrap_err();
        assert_eq!(
            (failure.step, failure.path.as_deref()),
            ("capabilities", Some("CAP_NOPE"))
        );
        process.rlimits.push(Rlimit {
            name: "RLIMIT_X".into(),
            soft: 1,
            hard: 1,
        });
        assert_eq!(
            push_session(&mut Vec::new(), &process).unwrap_err().step,
            "rlimit"
        );
    }
}
