//! Plays one case in a container and compares: what it says of itself, what the host sees, what
//! paddock says.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case,
    judge::judge,
    program,
    stage::{Facts, Stage},
    under_policy::UnderPolicy,
};
use crate::context::{Context, eventually, finish};

const LEFT_OUT: &str = "paddock_program_missed_runs_total";

/// What holds for a case's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The pack `escape` in audit: as without, and counted.
    Audit,
    /// In enforce.
    Enforce,
}

impl Mode {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }
}

/// A kernel that preempts itself leaves runs of programs out, and counts them: what was told
/// meanwhile is no measure, and the case is played again.
pub fn run(context: &Context, case: &Case, mode: Mode) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for again in ["", "-2"] {
        let before = left_out(context)?;
        let Err(error) = once(context, case, mode, again) else {
            return Ok(());
        };
        if left_out(context)? == before {
            return Err(error);
        }
        println!("{}: the kernel left out runs: {error:#}", case.name);
    }
    once(context, case, mode, "-3")
}

/// So many runs by now; not asked where the kernel says that it does not preempt itself.
fn left_out(context: &Context) -> Result<u64> {
    let model = fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
    if model.contains("(none)") || model.contains("(voluntary)") {
        return Ok(0);
    }
    let sum = context.metrics()?.sum(LEFT_OUT, &[]);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    Ok(sum as u64)
}

fn once(context: &Context, case: &Case, mode: Mode, again: &str) -> Result<()> {
    let facts = Facts::of(context)?;
    let mut case = case.here(&facts)?;
    let outcome = match mode {
        Mode::Audit => None,
        Mode::Enforce => case.outcome(&facts)?,
    };
    if let Some(outcome) = &outcome {
        case.says.clone_from(&outcome.says);
        case.code = outcome.code;
        if let Some(says) = &outcome.host_says {
            case.host_says.clone_from(says);
        }
        case.but.clear();
    }
    if mode == Mode::Enforce {
        // Events are asked for by name, and the agent remembers those of the other mode's.
        case.name.push_str("-denied");
    }
    case.name.push_str(again);
    let policy = UnderPolicy::apply(context, mode)?;
    let mut stage = Stage::set(context, &format!("{case:?}"))?;
    stage.name("self.name", case.name.clone());
    let what = case.what.clone();
    let played = play(context, case, &mut stage, mode).and_then(|case| match mode {
        Mode::Audit => {
            judge(context, &case.name, &case.expect)?;
            policy.audited(&case.name, &case.expect)
        }
        Mode::Enforce => {
            let denials = outcome.map_or(0, |outcome| outcome.denials);
            policy.enforced(&case.name, denials)
        }
    });
    let struck = stage.strike();
    played.context(what)?;
    struck
}

/// The case as it went.
fn play(context: &Context, mut case: Case, stage: &mut Stage, mode: Mode) -> Result<Case> {
    let mut args = vec!["run".to_owned(), "--name".to_owned(), case.name.clone()];
    args.extend(UnderPolicy::flags(mode));
    if case.detached {
        args.push("-d".to_owned());
    }
    args.extend(case.flags.iter().map(|flag| stage.play(flag)));
    args.extend(["-v".to_owned(), context.workload_volume()]);
    if !case.calls.is_empty() {
        let path = stage.dir.join("calls");
        let calls: Vec<_> = case.calls.iter().map(|call| stage.play(call)).collect();
        program::write(&path, &calls)?;
        let volume = format!("{}:/run/calls:ro", path.display());
        args.extend(["-v".to_owned(), volume]);
    }
    args.push("host".to_owned());
    match &case.script {
        Some(script) => args.extend(["sh".to_owned(), "-c".to_owned(), stage.play(script)]),
        None => args.push("/run/calls".to_owned()),
    }
    if case.detached {
        beside(context, &case, stage, &args)?;
    } else {
        let output = context.paddock(&args)?;
        let said = lines(&output.stdout);
        case = case.when_it_says(|says| lines(&stage.play(&says.join("\n"))) == said);
        let want = lines(&stage.play(&case.says.join("\n")));
        ensure!(
            same(&said, &want) && output.code == Some(case.code),
            "it did not do what it is for: {output:?} instead of {want:?}"
        );
        on_the_host(&case, stage)?;
    }
    Ok(case)
}

/// The container lives on while the host's script runs.
fn beside(context: &Context, case: &Case, stage: &mut Stage, args: &[String]) -> Result<()> {
    context.ok(args)?;
    let pid = context.inspect(&case.name)?["pid"].as_i64();
    stage.name("self", pid.context("no pid")?.to_string());
    let want = lines(&stage.play(&case.says.join("\n")));
    eventually("it says what it is to say", || {
        Ok(lines(&context.ok(&["logs", &case.name])?) == want)
    })?;
    on_the_host(case, stage)
}

fn on_the_host(case: &Case, stage: &Stage) -> Result<()> {
    let Some(script) = &case.host else {
        return Ok(());
    };
    let mut command = Command::new("sh");
    command.args(["-c", &stage.play(script)]);
    let output = finish(command.stdin(Stdio::null()))?;
    let want = lines(&stage.play(&case.host_says.join("\n")));
    ensure!(
        same(&lines(&output.stdout), &want) && output.code == Some(0),
        "the host sees otherwise: {output:?} instead of {want:?}"
    );
    Ok(())
}

/// Line by line; one that begins with `!` is any but the rest of it.
fn same(said: &[String], want: &[String]) -> bool {
    let one = |(said, want): (&String, &String)| match want.strip_prefix('!') {
        Some(not) => said != not,
        None => said == want,
    };
    said.len() == want.len() && said.iter().zip(want).all(one)
}

/// Each line's words with one space between.
fn lines(text: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(words).collect()
}
