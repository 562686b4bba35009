//! Which calls a container may make: errnos of raw calls, and the kernel's own word in
//! /proc/PID/status.
//!
//! Each call is chosen so that the kernel itself would answer something else: what a container
//! without a filter gets stands beside it.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    context::{Context, finish},
    raw::{self, Call, call, call32},
    runner::Scenario,
    scenarios::kernel::served,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "privilege::seccomp_default_answers_as_dockers",
        default_answers_as_dockers,
    ),
    Scenario::new(
        "privilege::seccomp_follows_capabilities",
        follows_capabilities,
    ),
    Scenario::new("privilege::seccomp_other_doors", other_doors),
    Scenario::new(
        "privilege::seccomp_is_on_in_run_and_exec",
        is_on_in_run_and_exec,
    ),
    Scenario::new("privilege::seccomp_own_profile", own_profile),
    Scenario::new("privilege::seccomp_bad_profile", bad_profile),
];

const EPERM: u8 = 1;
const ESRCH: u8 = 3;
const EFAULT: u8 = 14;
const EINVAL: u8 = 22;
const ENOSYS: u8 = 38;
const EOPNOTSUPP: u8 = 95;
const EAFNOSUPPORT: u8 = 97;

const NEWUSER: u64 = 0x1000_0000;
/// With this the kernel refuses a new user namespace, where it gets to see the call.
const FS: u64 = 0x200;
const NOWHERE: u64 = 0x3fff_ffff;
/// Above an `int`.
const HIGH: u64 = 1 << 32;
const X32: u32 = 0x4000_0000;

/// A call, what a default container gets and what one without a filter gets.
const TABLE: [(Call, u8, u8); 20] = [
    (call("getpid", 39, [0; 4]), 0, 0),
    (
        call("unshare(USER)", 272, [NEWUSER | 1, 0, 0, 0]),
        EPERM,
        EINVAL,
    ),
    (
        call("clone(USER)", 56, [NEWUSER + FS + 17, 0, 0, 0]),
        EPERM,
        EINVAL,
    ),
    (call("clone3", 435, [0; 4]), ENOSYS, EINVAL),
    (call("mount", 165, [0; 4]), EPERM, EFAULT),
    (call("setns", 308, [NOWHERE, 0, 0, 0]), EPERM, 9),
    (call("keyctl", 250, [0xffff, 0, 0, 0]), EPERM, EOPNOTSUPP),
    (call("add_key", 248, [0; 4]), EPERM, EFAULT),
    (call("request_key", 249, [0; 4]), EPERM, EFAULT),
    (call("kcmp", 312, [NOWHERE, NOWHERE, 0, 0]), EPERM, ESRCH),
    (
        call("personality(ADDR_NO_RANDOMIZE)", 135, [0x4_0000, 0, 0, 0]),
        EPERM,
        0,
    ),
    (call("personality(ask)", 135, [0xffff_ffff, 0, 0, 0]), 0, 0),
    (call("ptrace", 101, [16, NOWHERE, 0, 0]), ESRCH, ESRCH),
    (call("chroot", 161, [0; 4]), EFAULT, EFAULT),
    (call("socket(INET)", 41, [2, 2, 0, 0]), 0, 0),
    (call("socket(45)", 41, [45, 99, 0, 0]), EINVAL, EINVAL),
    (
        call("socket(100)", 41, [100, 2, 0, 0]),
        EAFNOSUPPORT,
        EAFNOSUPPORT,
    ),
    // A family is 32 bits wide for the kernel, whatever is above.
    (
        call("socket(45 + high bits)", 41, [45 + HIGH, 99, 0, 0]),
        EPERM,
        EINVAL,
    ),
    (call("in the list's gap", 400, [0; 4]), EPERM, ENOSYS),
    (call("newer than the list", 600, [0; 4]), ENOSYS, ENOSYS),
];

/// Two whose unfiltered answer depends on what this kernel was built with.
const SOCKETS: [Call; 3] = [
    call("socket(ALG)", 41, [38, 99, 0, 0]),
    call("socket(VSOCK)", 41, [40, 99, 0, 0]),
    call("socket(VSOCK + high bits)", 41, [40 + HIGH, 99, 0, 0]),
];

/// What the calls get in a container with these flags.
fn answers(context: &Context, flags: &[&str], calls: &[Call]) -> Result<Vec<u8>> {
    let program = raw::write(&context.state, "calls", calls)?;
    let volume = format!("{}:/run/calls:ro", program.display());
    let mut args = vec!["run", "--rm", "-v", &volume];
    args.extend(flags);
    args.extend(["host", "/run/calls"]);
    let output = context.paddock(&args);
    fs::remove_file(program)?;
    let output = output?;
    ensure!(output.code == Some(0), "{flags:?}: {output:?}");
    Ok(output.stdout.into_bytes())
}

fn compare(what: &str, calls: &[Call], got: &[u8], want: &[u8]) -> Result<()> {
    ensure!(got.len() == calls.len(), "{what}: {got:?}");
    for ((call, got), want) in calls.iter().zip(got).zip(want) {
        ensure!(got == want, "{what}: {}: errno {got} for {want}", call.what);
    }
    Ok(())
}

fn default_answers_as_dockers(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let calls = TABLE.map(|(call, ..)| call);
    let refused = TABLE.map(|(_, filtered, _)| filtered);
    compare("default", &calls, &answers(context, &[], &calls)?, &refused)?;
    let spelt = ["--security-opt", "seccomp=default"];
    compare(
        "spelt out",
        &calls,
        &answers(context, &spelt, &calls)?,
        &refused,
    )?;
    // Installed early, while there is CAP_SYS_ADMIN: the same rules.
    let early = ["--security-opt", "no-new-privileges=false"];
    compare(
        "early",
        &calls,
        &answers(context, &early, &calls)?,
        &refused,
    )?;
    let off = ["--security-opt", "seccomp=unconfined"];
    let open = TABLE.map(|(.., open)| open);
    compare(
        "unconfined",
        &calls,
        &answers(context, &off, &calls)?,
        &open,
    )?;
    compare(
        "sockets",
        &SOCKETS,
        &answers(context, &[], &SOCKETS)?,
        &[EPERM; 3],
    )?;
    let got = answers(context, &off, &SOCKETS)?;
    ensure!(!got.contains(&EPERM), "unconfined sockets: {got:?}");
    Ok(())
}

fn follows_capabilities(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let calls = [
        call("clone3", 435, [0; 4]),
        call("unshare(0)", 272, [0; 4]),
        call("mount", 165, [0; 4]),
        call("chroot", 161, [0; 4]),
        call("kcmp", 312, [NOWHERE, NOWHERE, 0, 0]),
    ];
    for (flags, want) in [
        (
            ["--cap-add", "SYS_ADMIN"],
            [EINVAL, 0, EFAULT, EFAULT, EPERM],
        ),
        (
            ["--cap-drop", "SYS_CHROOT"],
            [ENOSYS, EPERM, EPERM, EPERM, EPERM],
        ),
        (
            ["--cap-add", "SYS_PTRACE"],
            [ENOSYS, EPERM, EPERM, EFAULT, ESRCH],
        ),
    ] {
        let got = answers(context, &flags, &calls)?;
        compare(&flags.join(" "), &calls, &got, &want)?;
    }
    Ok(())
}

/// x32 has its own numbers behind the same door; i386 has a door of its own. Whether the kernel
/// serves that one shows outside of any container.
fn other_doors(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let x32 = [
        call("x32 getpid", X32 + 39, [0; 4]),
        call("x32 unshare", X32 + 272, [NEWUSER | 1, 0, 0, 0]),
        call("x32 clone3", X32 + 435, [0; 4]),
        call("x32 keyctl", X32 + 250, [0xffff, 0, 0, 0]),
    ];
    let got = answers(context, &[], &x32)?;
    // A kernel without x32, as Debian's, has no getpid there.
    ensure!([0, ENOSYS].contains(&got[0]), "x32 getpid: {}", got[0]);
    compare("x32", &x32, &got, &[got[0], EPERM, ENOSYS, EPERM])?;
    let i386 = [
        call32("i386 getpid", 20, [0; 4]),
        call32("i386 unshare", 310, [NEWUSER | 1, 0, 0, 0]),
        call32("i386 clone3", 435, [0; 4]),
        call32("i386 keyctl", 288, [0xffff, 0, 0, 0]),
        call32("i386 mount", 21, [0; 4]),
        call32("i386 socket(VSOCK)", 359, [40, 99, 0, 0]),
        call32("i386 newer", 600, [0; 4]),
    ];
    let program = raw::write(&context.state, "direct", &i386[..1])?;
    let direct = finish(&mut Command::new(&program));
    fs::remove_file(&program)?;
    if direct?.code == Some(0) {
        let want = [0, EPERM, ENOSYS, EPERM, EPERM, EPERM, ENOSYS];
        compare("i386", &i386, &answers(context, &[], &i386)?, &want)?;
        let own = context.state.with_extension("profile");
        // A profile of this machine's calls alone: the other door kills.
        fs::write(&own, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#)?;
        let option = format!("seccomp={}", own.display());
        let got = answers(context, &["--security-opt", &option], &i386[..1]);
        fs::remove_file(own)?;
        let error = got.err().context("i386 got through")?.to_string();
        ensure!(error.contains("Some(159)"), "{error}");
        return Ok(());
    }
    // The instruction itself is a fault here.
    let error = answers(context, &[], &i386[..1]).err();
    let error = error.context("i386 only inside?")?.to_string();
    ensure!(error.contains("Some(139)"), "{error}");
    Ok(())
}

/// Mode and number of filters of a process.
fn mode(pid: &str) -> Result<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok())
            .with_context(|| format!("no {name} in {status}"))
    };
    Ok((field("Seccomp:")?, field("Seccomp_filters:")?))
}

fn is_on_in_run_and_exec(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    // Whatever this machine filters for everybody comes on top.
    let own = mode("self")?;
    let pid = |name: &str| -> Result<String> {
        let pid = context.inspect(name)?["pid"].as_i64();
        Ok(pid.context("no pid")?.to_string())
    };
    let calls = TABLE.map(|(call, ..)| call);
    let program = raw::write(&context.state, "calls", &calls)?;
    let volume = format!("{}:/run/calls:ro", program.display());
    for (name, options, filters) in [
        ("shut", &[][..], 1),
        ("early", &["--security-opt", "no-new-privileges=false"], 1),
        ("kept", &["--init"], 1),
        (
            "kept-early",
            &["--init", "--security-opt", "no-new-privileges=false"],
            1,
        ),
        ("open", &["--security-opt", "seccomp=unconfined"], 0),
    ] {
        let mut args = vec!["run", "-d", "--name", name, "-v", &volume];
        args.extend(options);
        args.extend(["host", "sleep", "60"]);
        context.ok(&args)?;
        // Where no security module is asked a filter is, about setns alone.
        let asked = filters == 0 && served(context, "question", "seccomp")?;
        let want = if filters == 1 || asked {
            (2, own.1 + 1)
        } else {
            own
        };
        let got = mode(&pid(name)?)?;
        ensure!(got == want, "{name}: {got:?} for {want:?}");
        let got = context.ok(&["exec", name, "/run/calls"])?;
        let answers = TABLE.map(|(_, shut, open)| if filters == 1 { shut } else { open });
        compare(&format!("exec in {name}"), &calls, got.as_bytes(), &answers)?;
    }
    fs::remove_file(program)?;
    Ok(())
}

/// Three calls are all that a static program needs, exec among them: nothing of paddock's own
/// is left to do when the filter is on.
fn own_profile(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let path = context.state.with_extension("profile");
    let option = format!("seccomp={}", path.display());
    let flags = ["--security-opt", option.as_str()];
    let result = (|| {
        let calls = [
            call("mkdir", 83, [0; 4]),
            call("rmdir", 84, [0; 4]),
            call("kill", 62, [NOWHERE, 9, 0, 0]),
            call("kill", 62, [NOWHERE, 0, 0, 0]),
        ];
        fs::write(
            &path,
            r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[
                {"names":["execve","write","exit_group","teleport"],"action":"SCMP_ACT_ALLOW"},
                {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":77},
                {"names":["rmdir"],"action":"SCMP_ACT_ALLOW"},
                {"names":["kill"],"action":"SCMP_ACT_ERRNO","errnoRet":78,
                 "args":[{"index":1,"value":0,"op":"SCMP_CMP_GT"}]},
                {"names":["kill"],"action":"SCMP_ACT_ALLOW",
                 "args":[{"index":1,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        )?;
        let got = answers(context, &flags, &calls)?;
        compare("own profile", &calls, &got, &[77, EFAULT, 78, ESRCH])?;
        // 128 + SIGSYS.
        let error = answers(context, &flags, &[call("getpid", 39, [0; 4])]).err();
        let error = error.context("getpid got through")?.to_string();
        ensure!(error.contains("Some(159)"), "{error}");
        Ok(())
    })();
    fs::remove_file(path)?;
    result
}

fn bad_profile(context: &Context) -> Result<()> {
    let path = context.state.with_extension("profile");
    let option = format!("seccomp={}", path.display());
    let deep = format!(r#"{{"defaultAction":{}"#, "[".repeat(50_000));
    let long = format!(r#"{{"defaultAction":"{}"}}"#, "x".repeat(2 << 20));
    let notify = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}"#;
    for (text, says) in [
        ("", "EOF"),
        ("[1]", "line 1"),
        (r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#, "SCMP_ACT_MAYBE"),
        (r#"{"defaultAction":["SCMP_ACT_ALLOW"]}"#, "line 1"),
        (deep.as_str(), "line 1"),
        (long.as_str(), "1048576 bytes"),
        (notify, "SCMP_ACT_NOTIFY"),
    ] {
        fs::write(&path, text)?;
        let output = context.paddock(&["run", "--rm", "--security-opt", &option, "host", "true"]);
        fs::remove_file(&path)?;
        let output = output?;
        let lines = output
            .stderr
            .lines()
            .filter(|line| !line.is_empty())
            .count();
        ensure!(
            output.code == Some(125) && output.stderr.contains(says) && output.stderr.len() < 2000,
            "{says}: {output:?}"
        );
        ensure!(lines <= 5, "{says}: {lines} lines: {}", output.stderr);
    }
    let output = context.paddock(&["run", "--rm", "--security-opt", &option, "host", "true"])?;
    ensure!(
        output.code == Some(125) && output.stderr.contains("No such file"),
        "{output:?}"
    );
    Ok(())
}
