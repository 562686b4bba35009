//! What commands print as JSON holds to docs/schemas, and no command that prints any is without a
//! schema. The commands are those that `--help` lists.

use std::{cell::RefCell, collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::kernel::{able, host_way};
use crate::{context::Context, image::busybox, runner::Scenario, schemas::Schemas};

pub const ALL: &[Scenario] = &[Scenario::new("json::holds_to_its_schemas", holds)];

const JSON: [&str; 2] = ["--format", "json"];
/// Counts what the container below does to the host's namespace.
const POLICY: &str = "name = \"schemas\"\nmode = \"audit\"\n\
    deny = [\"namespace-escape\", \"sysrq\"]\nselect = { name = \"json-*\" }\n";

/// Commands by their words, which with hyphens are the names of their schemas.
struct Checked<'c> {
    context: &'c Context,
    schemas: Schemas,
    commands: BTreeSet<String>,
    seen: RefCell<BTreeSet<String>>,
}

impl<'c> Checked<'c> {
    fn new(context: &'c Context) -> Result<Self> {
        let mut commands = BTreeSet::new();
        print_json(context, &[], &mut commands)?;
        ensure!(commands.len() > 8, "commands with a format: {commands:?}");
        Ok(Self {
            context,
            schemas: Schemas::read()?,
            commands,
            seen: RefCell::default(),
        })
    }

    /// What `paddock WORDS --format json` prints, by the schema of its command.
    fn document(&self, words: &[&str]) -> Result<Value> {
        let two = words.iter().take(2).copied().collect::<Vec<_>>().join("-");
        let name = if self.commands.contains(&two) {
            &two
        } else {
            words[0]
        };
        let value = self.context.json(&[words, &JSON].concat())?;
        self.fits(name, &value)?;
        Ok(value)
    }

    fn fits(&self, name: &str, document: &Value) -> Result<()> {
        self.schemas
            .check(name, document)
            .with_context(|| document.to_string())?;
        self.refuses(name, document)?;
        self.seen.borrow_mut().insert(name.to_owned());
        Ok(())
    }

    /// With a key more, or without its last, it is another document.
    fn refuses(&self, name: &str, document: &Value) -> Result<()> {
        let place = if document.is_array() { "/0" } else { "" };
        let (mut more, mut less) = (document.clone(), document.clone());
        let inner = more.pointer_mut(place).and_then(Value::as_object_mut);
        let inner = inner.context("nothing is in it")?;
        let last = inner.keys().next_back().context("it has no keys")?.clone();
        inner.insert("unheard_of".to_owned(), json!(1));
        let inner = less.pointer_mut(place).and_then(Value::as_object_mut);
        inner.context("nothing is in it")?.remove(&last);
        for wrong in [more, less] {
            let taken = self.schemas.check(name, &wrong).is_ok();
            ensure!(!taken, "docs/schemas/{name}.json takes {wrong}");
        }
        Ok(())
    }

    /// No command was left out.
    fn all(&self) -> Result<()> {
        for name in &self.commands {
            ensure!(
                self.schemas.has(name),
                "`paddock {}` prints JSON and has no docs/schemas/{name}.json",
                name.replace('-', " ")
            );
            let seen = self.seen.borrow().contains(name);
            ensure!(seen, "what {name} prints was not looked at");
        }
        Ok(())
    }
}

/// Those below `words` whose help has `--format` with JSON.
fn print_json(context: &Context, words: &[&str], found: &mut BTreeSet<String>) -> Result<()> {
    let help = context.ok(&[words, &["--help"]].concat())?;
    let format = help.split_once("--format <FORMAT>");
    if format.is_some_and(|(_, rest)| rest.lines().take(3).any(|line| line.contains("json"))) {
        found.insert(words.join("-"));
    }
    let (_, list) = help.split_once("\nCommands:\n").unwrap_or_default();
    for line in list.lines().take_while(|line| !line.is_empty()) {
        // What its description goes on with stands further in.
        let Some(name) = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '))
        else {
            continue;
        };
        let name = name.split(' ').next().unwrap_or_default();
        if name != "help" {
            print_json(context, &[words, &[name]].concat(), found)?;
        }
    }
    // Without a verb it is its list.
    if found.contains(&[words, &["ls"]].concat().join("-")) {
        found.remove(&words.join("-"));
    }
    Ok(())
}

fn holds(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let scratch = context.state.with_extension("scratch");
    fs::create_dir(&scratch)?;
    let done = holds_in(context, &scratch);
    fs::remove_dir_all(&scratch)?;
    done
}

fn holds_in(context: &Context, scratch: &Path) -> Result<()> {
    let checked = Checked::new(context)?;
    let file = |name: &str| scratch.join(name).display().to_string();
    let policy = file("schemas.toml");
    fs::write(&policy, POLICY)?;
    context.ok(&["policy", "apply", &policy])?;

    make_containers(context)?;
    checked.document(&["ps", "-a"])?;
    checked.document(&["stats"])?;
    let all = context.json(&["inspect", "json-told", "json-bare", "json-over"])?;
    checked.fits("inspect", &all)?;
    checked.document(&["ns"])?;
    checked.document(&["check"])?;
    let programs = context.json(&["check", "--programs", "--format", "json"])?;
    checked.fits("check-programs", &programs)?;

    let denial = told(&checked, &file("events.jsonl"))?;
    checked.document(&["policy", "explain", &denial])?;
    checked.document(&["policy", "list"])?;
    checked.document(&["policy", "list", "schemas"])?;
    checked.document(&["policy", "show", "schemas"])?;
    checked.document(&["policy", "show", "pack:escape"])?;
    checked.document(&["policy", "check", &policy, "pack:hardened"])?;
    let recorded = file("events.jsonl");
    let hit = checked.document(&["policy", "test", &policy, "--events", &recorded])?;
    ensure!(hit["rules"][0]["attempts"].is_u64(), "{hit}");

    let tar = file("root.tar");
    fs::write(&tar, busybox()?.finish())?;
    context.ok(&["images", "import", &tar, "schemas:1"])?;
    let images = checked.document(&["images", "ls"])?;
    ensure!(context.json(&["images", "--format", "json"])? == images);
    context.ok(&["images", "rm", "schemas:1"])?;
    checked.all()
}

/// One with nearly every option, one with none that has not run, and one that ended, which
/// joined the host's uts namespace and met its memory limit.
fn make_containers(context: &Context) -> Result<()> {
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let options = [
        "run -d --name json-told --label tier=front --label new --memory 64m --memory-swap 64m",
        "--memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 64",
        "--ulimit nofile=64:128 --env A=b --workdir / --hostname told --init --tmpfs /tmp:size=1m",
        "--shm-size 1m --add-host db:10.0.0.1 --dns 10.0.0.2 --dns-search example --dns-option ndots:1",
        "--sysctl net.ipv4.ip_forward=1 --user 0:0 --group-add 7 --cap-add NET_RAW --cap-drop CHOWN",
        "--security-opt no-new-privileges --oom-score-adj 10 --restart on-failure:3",
        "--stop-signal INT --stop-timeout 3 --log-opt max-size=1m --device /dev/null:/dev/void:r",
    ];
    let mut args: Vec<&str> = options.iter().flat_map(|line| line.split(' ')).collect();
    args.extend(["--device-cgroup-rule", "c 1:* r", "-v", &volume]);
    args.extend(["host", "sleep", "600"]);
    context.ok(&args)?;
    context.ok(&["create", "--name", "json-bare", "host", "true"])?;
    let mut args = able("json-over", &[&volume, &way]);
    args.splice(1..1, ["--memory", "64m"]);
    let script = "/run/workload setns-loop /run/ns uts 3; tail /dev/zero; exit 3";
    args.extend(["sh", "-c", script]);
    let over = context.paddock(&args)?;
    ensure!(over.code == Some(3), "{over:?}");
    Ok(())
}

/// Each line of `events`, which go to a file; the id of a denial.
fn told(checked: &Checked<'_>, file: &str) -> Result<String> {
    let text = checked.context.ok(&[&["events"][..], &JSON].concat())?;
    let mut denial = None;
    let mut kinds = BTreeSet::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line)?;
        checked.fits("events", &event)?;
        let kind = event["event"].as_str().unwrap_or_default().to_owned();
        if kind == "denial" && event["container"] == "json-over" {
            denial = Some(event["id"].to_string());
        }
        kinds.insert(kind);
    }
    for kind in [
        "container",
        "namespace_call",
        "oom_kill",
        "exec",
        "exit",
        "denial",
    ] {
        ensure!(kinds.contains(kind), "no {kind} among {kinds:?}");
    }
    fs::write(file, text)?;
    denial.context("no denial of json-over")
}
