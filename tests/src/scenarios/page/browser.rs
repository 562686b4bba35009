//! The page in a real Chromium, wide and on a phone: what it shows, that it stays by itself, and
//! that nothing a container calls itself becomes more than text. On the host only.

use std::{collections::HashMap, env, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::super::kernel::{able, host_way};
use crate::{
    chromium::{Chromium, size_of},
    context::{Context, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("page::chromium_wide_and_on_a_phone", wide_and_narrow),
    Scenario::new("page::chromium_keeps_up", keeps_up),
    Scenario::new("page::chromium_runs_nothing_of_a_container", runs_nothing),
];

/// Where `cargo xtask test` wants the pictures.
const PICTURES: &str = "PADDOCK_PICTURES";
/// A table's rows as somebody sees them: what is not displayed is left out.
const SEEN: &str = "(() => {
    const shown = (one) => one.getClientRects().length > 0;
    const rows = (table) => [...table.rows].map((row) =>
        [...row.cells].filter(shown).map((cell) => cell.innerText.trim()));
    return {
        inner: innerWidth,
        scroll: document.scrollingElement.scrollWidth,
        text: document.body.innerText,
        tables: [...document.querySelectorAll('table')].map(rows),
        walls: [...document.querySelectorAll('.ns span')].map((one) =>
            [one.title, one.innerText, getComputedStyle(one).backgroundColor]),
        right: [...document.querySelectorAll('table')].slice(0, 2).flatMap((table) =>
            [...table.querySelectorAll('th,td')].filter(shown).map((cell) =>
                cell.getBoundingClientRect().right)).reduce((a, b) => Math.max(a, b), 0),
        bars: [...document.querySelectorAll('.bar')].filter(shown).map((one) =>
            one.firstChild.getBoundingClientRect().width / one.clientWidth),
        elements: [...new Set([...document.querySelectorAll('*')].map((one) => one.localName))],
        ran: typeof window.ran,
    };
})()";

#[derive(Clone, Debug, Deserialize)]
struct Seen {
    inner: u32,
    scroll: u32,
    text: String,
    tables: Vec<Vec<Vec<String>>>,
    /// A namespace, the word for it, its colour.
    walls: Vec<(String, String, String)>,
    /// How far the containers' tables reach.
    right: f64,
    bars: Vec<f64>,
    elements: Vec<String>,
    ran: String,
}

impl Seen {
    fn by(chromium: &mut Chromium) -> Result<Self> {
        Ok(serde_json::from_value(chromium.evaluate(SEEN)?)?)
    }

    /// Of the first table: what is below a head's word in a container's row.
    fn cell(&self, container: &str, head: &str) -> Result<&str> {
        let table = self.tables.first().context("no table")?;
        let of = |cells: &Vec<String>| cells.iter().position(|cell| cell == head);
        let column = table.first().and_then(of).context("no such column")?;
        let row = table.iter().find(|row| row[0] == container);
        let row = row.with_context(|| format!("{container} is not shown"))?;
        Ok(&row[column])
    }

    /// Of the last table: what happened to a container.
    fn happened(&self, container: &str) -> Vec<&str> {
        let rows = self.tables.last().into_iter().flatten();
        let of = rows.filter(|row| row.len() == 3 && row[1] == container);
        of.map(|row| row[2].as_str()).collect()
    }
}

const ESCAPES: u32 = 3;
const ATTEMPTS: u32 = 2;

/// Two who share walls, one near its limit, one that escapes, one that tries to, one out of memory.
fn set_out(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let idle = ["host", "sleep", "600"];
    let full = "head -c 26000000 /dev/zero >/dev/shm/full; exec sleep 600";
    for (name, options, command) in [
        ("web", &[][..], &idle[..]),
        (
            "web-metrics",
            &["--network", "container:web", "--uts", "host"],
            &idle,
        ),
        ("db", &["--memory", "32m"], &["host", "sh", "-c", full]),
    ] {
        let args = [&["run", "-d", "--name", name], options, command].concat();
        context.ok(&args)?;
    }
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let escapes = ESCAPES.to_string();
    let mut args = able("digger", &[&volume, &way]);
    args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", &escapes]);
    context.ok(&args)?;
    let attempts = ATTEMPTS.to_string();
    let mut args = vec!["run", "--name", "prober", "-v", &volume, "-v", &way];
    // The default profile would refuse it before anybody looks.
    args.extend(["--security-opt", "seccomp=unconfined", "host"]);
    args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", &attempts]);
    context.ok(&args)?;
    let killed = context.paddock(&[
        "run",
        "--name",
        "batch",
        "--memory",
        "64m",
        "host",
        "tail",
        "/dev/zero",
    ])?;
    ensure!(killed.code == Some(137), "{killed:?}");
    Ok(())
}

const ALL_OF_THEM: [&str; 6] = ["web", "web-metrics", "db", "digger", "prober", "batch"];

fn clean_up(context: &Context) -> Result<()> {
    let args = [&["rm", "-f"], &ALL_OF_THEM[..]].concat();
    context.ok(&args).map(drop)
}

fn wide_and_narrow(context: &Context) -> Result<()> {
    let Some(mut chromium) = Chromium::start(context)? else {
        return Ok(());
    };
    set_out(context)?;
    let address = context.address()?;
    let url = format!("http://{address}/");
    eventually("db has filled its memory", || is_full(context))?;
    for (width, height) in [(1200, 900), (390, 844)] {
        chromium.resize(width, height)?;
        chromium.open(&url)?;
        let seen = Seen::by(&mut chromium)?;
        ensure!(seen.inner == width, "{} px wide", seen.inner);
        ensure!(
            seen.scroll <= seen.inner,
            "{} px of a page in {}",
            seen.scroll,
            seen.inner
        );
        ensure!(
            seen.right <= f64::from(width),
            "tables of {} px in {width}: what is right of that is out of sight",
            seen.right
        );
        shows_all(context, &seen).with_context(|| format!("{width}: {seen:?}"))?;
        let bar = seen.bars.iter().any(|share| (0.7..=1.0).contains(share));
        ensure!(bar == (width == 1200), "{width}: {:?}", seen.bars);
        let picture = chromium.picture()?;
        let (is, high) = size_of(&picture)?;
        ensure!(is == width && high >= height, "{is} x {high}");
        keep(&format!("page-{width}.png"), &picture)?;
    }
    quiet(&chromium, &url)?;
    chromium.close()?;
    clean_up(context)
}

/// By its cgroup's file.
fn is_full(context: &Context) -> Result<bool> {
    let cgroup = context.inspect("db")?["cgroup"]
        .as_str()
        .context("no cgroup")?
        .to_owned();
    let file = crate::context::cgroup_file(
        cgroup.trim_start_matches('/'),
        "memory.current",
        ("memory", "memory.usage_in_bytes"),
    );
    let used: u64 = fs::read_to_string(file)?.trim().parse()?;
    Ok(used >= 26_000_000)
}

fn shows_all(context: &Context, seen: &Seen) -> Result<()> {
    for (name, state, kills, escapes) in [
        ("web", "running", "0", "0"),
        ("web-metrics", "running", "0", "0"),
        ("db", "running", "0", "0"),
        ("digger", "exited (0)", "0", "3"),
        ("prober", "exited (0)", "0", "0"),
        ("batch", "exited (137)", "1", "0"),
    ] {
        let row = [
            seen.cell(name, "State")?,
            seen.cell(name, "OOM")?,
            seen.cell(name, "Escapes")?,
        ];
        ensure!(row == [state, kills, escapes], "{name}: {row:?}");
    }
    // Its events are those that are told, by who did it.
    let count = |container: &str, begin: &str| {
        let happened = seen.happened(container).into_iter();
        let begins = happened.filter(|what| what.starts_with(begin));
        u32::try_from(begins.count())
    };
    let did = count("digger", "escape: setns uts of host by workload[")?;
    let tried = count("prober", "attempt: setns uts of host by ")?;
    let killed = count("batch", "out of memory: tail[")?;
    ensure!(
        (did, tried, killed) == (ESCAPES, ATTEMPTS, 1),
        "{did} escapes, {tried} attempts, {killed} kills"
    );
    walls(context, seen)
}

/// What procfs says of those who run, in words and colours.
fn walls(context: &Context, seen: &Seen) -> Result<()> {
    const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    const WHO: [&str; 3] = ["web", "web-metrics", "db"];
    let link = |pid: &str, kind: &str| -> Result<String> {
        Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?
            .display()
            .to_string())
    };
    let table = seen.tables.get(1).context("no namespaces")?;
    ensure!(table[0][1..] == KINDS, "{:?}", table[0]);
    let mut inodes = Vec::new();
    for (name, row) in WHO.iter().zip(&table[1..]) {
        ensure!(row[0] == *name, "{row:?}");
        let pid = context.inspect(name)?["pid"].to_string();
        for kind in KINDS {
            inodes.push((kind, link(&pid, kind)?));
        }
    }
    let mut with: HashMap<&str, u32> = HashMap::new();
    for (_, inode) in &inodes {
        *with.entry(inode).or_default() += 1;
    }
    ensure!(seen.walls.len() == inodes.len(), "{:?}", seen.walls);
    for ((kind, inode), (title, word, colour)) in inodes.iter().zip(&seen.walls) {
        let (want, painted) = if *inode == link("self", kind)? {
            ("host", "rgb(102, 102, 119)")
        } else if with[inode.as_str()] > 1 {
            ("…", "rgb(187, 136, 0)")
        } else {
            ("own", "rgb(34, 136, 51)")
        };
        ensure!(
            title == inode && word.starts_with(want) && colour == painted,
            "{inode}: {title} {word} {colour}"
        );
    }
    Ok(())
}

/// Nothing red in the console, nothing asked of anybody else.
fn quiet(chromium: &Chromium, url: &str) -> Result<()> {
    let complaints = chromium.complaints();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    let requests = chromium.requests();
    ensure!(
        !requests.is_empty() && requests.iter().all(|one| one.starts_with(url)),
        "{requests:?}"
    );
    Ok(())
}

fn keep(name: &str, picture: &[u8]) -> Result<()> {
    if let Some(dir) = env::var_os(PICTURES).map(PathBuf::from) {
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(name), picture)?;
    }
    Ok(())
}

/// A page that somebody left open shows what began and ended since.
fn keeps_up(context: &Context) -> Result<()> {
    let Some(mut chromium) = Chromium::start(context)? else {
        return Ok(());
    };
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "early", "host", "sleep", "600"])?;
    let url = format!("http://{}/", context.address()?);
    chromium.open(&url)?;
    let before = Seen::by(&mut chromium)?;
    ensure!(before.cell("early", "State")? == "running", "{before:?}");
    context.ok(&["run", "-d", "--name", "late", "host", "sleep", "600"])?;
    context.ok(&["rm", "-f", "early"])?;
    let mut is_new = false;
    // One may have begun before.
    for _ in 0..2 {
        chromium.loads_again()?;
        let after = Seen::by(&mut chromium)?;
        let late = after.cell("late", "State");
        is_new =
            late.is_ok_and(|state| state == "running") && after.cell("early", "State").is_err();
        if is_new {
            break;
        }
    }
    ensure!(is_new, "{:?}", Seen::by(&mut chromium)?);
    quiet(&chromium, &url)?;
    chromium.close()?;
    context.ok(&["rm", "-f", "late"]).map(drop)
}

/// Short enough for a process' name, which is cut after 15 bytes.
const NAME: &str = "<svg onload=f>";
/// A directory's, which is an image's name.
const IMAGE: &str = "<img src=x onerror='ran=1'>";

fn runs_nothing(context: &Context) -> Result<()> {
    let Some(mut chromium) = Chromium::start(context)? else {
        return Ok(());
    };
    context.start_agent(&["--detach-on-exit"])?;
    let root = context.state.with_extension("root");
    let done = show_hostile(context, &mut chromium, &root.join(IMAGE));
    fs::remove_dir_all(&root)?;
    done?;
    chromium.close()
}

fn show_hostile(context: &Context, chromium: &mut Chromium, image: &std::path::Path) -> Result<()> {
    fs::create_dir_all(image.join("bin"))?;
    fs::copy(&context.workload, image.join("bin/workload"))?;
    let path = image.display().to_string();
    context.ok(&[
        "run",
        "--name",
        "image",
        &path,
        "/bin/workload",
        "exit",
        "0",
    ])?;
    let script =
        format!("printf \"{NAME}\" >/proc/self/comm; a=xxxxxxxx; while :; do a=$a$a; done");
    let killed = context.paddock(&[
        "run", "--name", "process", "--memory", "64m", "host", "sh", "-c", &script,
    ])?;
    ensure!(killed.code == Some(137), "{killed:?}");

    let url = format!("http://{}/", context.address()?);
    chromium.resize(1200, 900)?;
    chromium.open(&url)?;
    let seen = Seen::by(chromium)?;
    for says in [NAME, IMAGE] {
        ensure!(seen.text.contains(says), "no {says}: {}", seen.text);
    }
    let is_markup = |name: &str| seen.elements.iter().any(|one| one == name);
    ensure!(
        !is_markup("img") && !is_markup("svg") && !is_markup("script") && seen.ran == "undefined",
        "{seen:?}"
    );
    quiet(chromium, &url)?;

    // That it would be told here, and would not run either, were it markup.
    chromium.evaluate(&format!("document.body.innerHTML += \"{IMAGE}\""))?;
    let settled: Value = chromium
        .evaluate("new Promise((done) => setTimeout(() => done(typeof window.ran), 200))")?;
    ensure!(settled == "undefined", "it ran: {settled}");
    let complaints = chromium.complaints().join("\n");
    ensure!(
        complaints.contains("img-src") && complaints.contains("script-src"),
        "{complaints}"
    );
    context.ok(&["rm", "-f", "image", "process"]).map(drop)
}
