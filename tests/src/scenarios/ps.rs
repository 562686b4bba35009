//! `ps` with filters: which containers it shows, by the ids that `run` and `create` gave.

use anyhow::{Result, ensure};

use crate::{context::Context, runner::Scenario};

pub const ALL: &[Scenario] = &[
    Scenario::new("ps::filters", filters),
    Scenario::new("ps::bad_filters", bad_filters),
];

fn filters(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let id = |text: String| text.trim().to_owned();
    let failed = context.paddock(&[
        "run",
        "--name",
        "f-done",
        "-l",
        "tier=back",
        "host",
        "sh",
        "-c",
        "exit 7",
    ])?;
    ensure!(failed.code == Some(7), "{failed:?}");
    let made = id(context.ok(&[
        "create",
        "--name",
        "f-made",
        "-l",
        "tier=front",
        "-l",
        "new",
        "host",
        "true",
    ])?);
    let runs = id(context.ok(&[
        "run",
        "-d",
        "--name",
        "f-runs",
        "-l",
        "tier=front",
        "host",
        "sleep",
        "60",
    ])?);
    let done = id(context.ok(&["ps", "-aq", "--no-trunc", "--filter", "name=^f-done$"])?);
    ensure!(done.len() == 64 && done != made && done != runs, "{done}");
    let all = [("done", &done), ("made", &made), ("runs", &runs)];
    for (words, want) in [
        ("-a -f name=f-", "done made runs"),
        ("-f name=f-", "made runs"),
        ("-f name=f-made -f name=f-runs", "made runs"),
        ("-f name=f- -f status=exited", "done"),
        ("-f name=f- -f status=exited -f status=created", "done made"),
        ("-f name=f- -f status=paused", ""),
        ("-f name=f- -f exited=7", "done"),
        ("-f name=f- -f exited=8", ""),
        ("-f label=tier=front", "made runs"),
        ("-f label=tier=front -f label=new", "made"),
        ("-a -f label=tier -f name=done -f name=runs", "done runs"),
        ("-l -f name=f-", "runs"),
        ("-n 2 -f name=f-", "made runs"),
    ] {
        let flags: Vec<_> = words.split(' ').collect();
        let text = context.ok(&[&["ps", "-q", "--no-trunc"][..], &flags].concat())?;
        let mut got: Vec<_> = text
            .lines()
            .map(|line| {
                all.iter()
                    .find(|(_, id)| *id == line)
                    .map_or(line, |(name, _)| name)
            })
            .collect();
        got.sort_unstable();
        ensure!(got.join(" ") == want, "{words}: {got:?} for {want}");
    }
    let by_id = context.json(&[
        "ps",
        "--format",
        "json",
        "--filter",
        &format!("id={}", &runs[..12]),
    ])?;
    ensure!(by_id[0]["id"] == *runs && by_id[1].is_null(), "{by_id}");
    ensure!(by_id[0]["labels"][0][1] == "front", "{by_id}");
    Ok(())
}

fn bad_filters(context: &Context) -> Result<()> {
    for (filter, says) in [
        ("colour=red", "no such key"),
        ("web", "expected name="),
        (
            "status=dead",
            "created, running, paused, restarting, exited",
        ),
        ("exited=256", "0 to 255"),
        ("name=", "wants a value"),
    ] {
        let output = context.paddock(&["ps", "--filter", filter])?;
        ensure!(
            output.code == Some(1) && output.stderr.contains(says) && output.stdout.is_empty(),
            "{filter}: {output:?}"
        );
    }
    Ok(())
}
