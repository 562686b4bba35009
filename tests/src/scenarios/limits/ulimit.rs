//! The experiment of docs/guides/limits.md: a ulimit is each process's own, a limit is for all
//! of a container together.

use anyhow::{Result, ensure};

use crate::{context::Context, runner::Scenario};

pub const ALL: &[Scenario] = &[Scenario::new(
    "limits::a_ulimit_is_for_each_process",
    a_ulimit_is_for_each_process,
)];

/// `tail` keeps all it is given until there is no more, so it is as large as that.
const ONE: &str = "head -c 80000000 /dev/zero | tail -c 80000000 | wc -c";
const THREE: &str = "for i in 1 2 3; do \
    (head -c 40000000 /dev/zero; sleep 2) | tail -c 40000000 | wc -c & done; wait";

/// How many bytes came through each pipe.
fn came(context: &Context, flag: &[&str], script: &str) -> Result<Vec<u64>> {
    let words = [&["run", "--rm"], flag, &["host", "sh", "-c", script]].concat();
    let output = context.paddock(&words)?;
    let lines = output.stdout.lines().map(|line| line.trim().parse());
    Ok(lines.collect::<Result<_, _>>()?)
}

fn a_ulimit_is_for_each_process(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let ulimit = ["--ulimit", "as=67108864"];
    let limit = ["--memory", "64m"];
    let one = came(context, &ulimit, ONE)?;
    ensure!(one == [0], "80 MB in a process of 64 MiB: {one:?}");
    let three = came(context, &ulimit, THREE)?;
    ensure!(three == [40_000_000; 3], "3 times 40 MB: {three:?}");
    let one = came(context, &limit, ONE)?;
    // Where the victim is slow to give its memory back, the shell is killed too and says nothing.
    ensure!(
        one == [0] || one.is_empty(),
        "80 MB in a container of 64 MiB: {one:?}"
    );
    let three = came(context, &limit, THREE)?;
    ensure!(
        three != [40_000_000; 3],
        "3 times 40 MB in a container of 64 MiB: {three:?}"
    );
    Ok(())
}
