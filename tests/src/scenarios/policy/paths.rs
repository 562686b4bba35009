//! What policy says of paths, where the kernel asks its security modules. Witnesses are the errors
//! that calls return, and the files on the host afterwards.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Files, enforced};
use crate::{
    context::{Context, eventually},
    runner::Scenario,
    scenarios::{found::Cgroup, kernel::equal},
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::path::by_name_and_operation", by_name).alone(),
    Scenario::new("policy::path::other_ways_to_it", other_ways),
    Scenario::new("policy::path::found_and_killed", found_and_killed),
    Scenario::new("policy::path::nothing_runs_but_what_is_named", only_named),
];

/// Whether the kernel asks; where not, such a policy is refused with these words.
fn asks(context: &Context, files: &Files) -> Result<bool> {
    if enforced::asks(context)? {
        return Ok(true);
    }
    let file = files.write("paths.toml", rules("/data"))?;
    let output = context.paddock(&["policy", "apply", &file])?;
    let want =
        format!("paddock: {file}: not in force: paths: keys: file cannot be seen here (lsm: ");
    let end =
        "); leave the rule out: launched containers write nothing by `paddock run --read-only`\n";
    ensure!(
        output.code == Some(1) && output.stderr.starts_with(&want) && output.stderr.ends_with(end),
        "{output:?} instead of {want}…{end}"
    );
    Ok(false)
}

fn rules(base: &str) -> String {
    format!(
        "name = \"paths\"\nmode = \"enforce\"\n\
         [[rule]]\nname = \"keys\"\nfile = {{ path = \"{base}/keys\", \
         operation = [\"read\", \"write\", \"create\", \"remove\"] }}\n\
         [[rule]]\nname = \"public\"\neffect = \"allow\"\n\
         file = {{ path = \"{base}/keys/pub\", operation = \"read\" }}\n\
         [[rule]]\nname = \"deep\"\nfile = {{ path = \"{base}/on/the/way\", operation = \"read\" }}\n\
         [[rule]]\nname = \"tools\"\nexec = \"{base}/tools\"\n"
    )
}

/// What is tried on which of the files, how often, how many of them are refused under the policy,
/// and how many times the rules hit each time in audit: what worked is undone by the rules' leave.
type Try<'a> = (&'a str, &'a str, u32, u32, u32);

const TRIES: &[Try<'_>] = &[
    ("read", "keys/a", 3, 3, 1),
    ("read", "keys/pub/b", 5, 0, 0),
    ("write", "keys/a", 7, 7, 1),
    ("write", "keys/pub/b", 11, 11, 1),
    ("read", "keys", 13, 13, 1),
    ("read", "open/c", 17, 0, 0),
    ("both", "open/c", 2, 0, 0),
    ("create", "keys/new", 19, 19, 3),
    ("create", "open/new", 23, 0, 0),
    ("mkdir", "keys/made", 29, 29, 2),
    ("symlink", "keys/l", 31, 31, 2),
    ("remove", "keys/a", 37, 37, 3),
    ("rmdir", "keys/empty", 41, 41, 2),
    ("chmod", "keys/a", 43, 43, 1),
    ("truncate", "keys/a", 53, 53, 1),
    ("link", "keys/a:open/x", 59, 59, 1),
    ("link", "open/c:keys/x", 61, 61, 2),
    ("link", "open/c:open/x", 5, 0, 0),
    ("rename", "keys/a:open/a", 67, 67, 2),
    ("rename", "keys:kept", 71, 71, 2),
    ("rename", "on:off", 73, 73, 1),
    ("exec", "tools/tool", 83, 83, 1),
    ("exec", "open/tool", 2, 0, 0),
    ("rename", "tools/tool:open/moved", 89, 89, 1),
];

/// Linux 5.10 takes no program before chown.
const CHOWN: Try<'_> = ("chown", "keys/a", 47, 47, 1);
/// Before 6.0 each of the two names is asked for by itself.
const EXCHANGE: [Try<'_>; 2] = [
    ("exchange", "open/c:keys/a", 79, 79, 2),
    ("exchange", "open/c:keys/a", 79, 79, 4),
];

fn tries() -> Result<Vec<Try<'static>>> {
    let old = fs::read_to_string("/proc/sys/kernel/osrelease")?.starts_with("5.10.");
    let mut all = TRIES.to_vec();
    all.push(EXCHANGE[usize::from(old)]);
    if !old {
        all.push(CHOWN);
    }
    Ok(all)
}

fn script(tries: &[Try<'_>], workload: &str, base: &str) -> String {
    let one = |(what, on, count, ..): &Try<'_>| {
        let on = on.split(':').map(|path| format!("{base}/{path}"));
        let on: Vec<_> = on.collect();
        format!("{workload} try {what} {} {count}", on.join(":"))
    };
    let all: Vec<_> = tries.iter().map(one).collect();
    all.join(" && ")
}

fn said(tries: &[Try<'_>], refused: impl Fn(u32) -> u32) -> String {
    let one = |(_, _, count, no, _): &Try<'_>| format!("{count} calls, {} refused\n", refused(*no));
    tries.iter().map(one).collect()
}

/// Of the rules together.
fn hits(context: &Context, container: &str, action: &str) -> Result<f64> {
    let labels = [
        ("container", container),
        ("policy", "paths"),
        ("action", action),
    ];
    super::hits(context, &labels)
}

/// The files, gone with it.
struct Data(PathBuf);

impl Data {
    fn new(context: &Context) -> Result<Self> {
        let template = std::env::temp_dir().join("paddock-paths-XXXXXX");
        let data = Self(nix::unistd::mkdtemp(&template)?);
        fs::set_permissions(&data.0, fs::Permissions::from_mode(0o755))?;
        for directory in ["keys/pub", "keys/empty", "open", "on/the/way", "tools"] {
            fs::create_dir_all(data.0.join(directory))?;
        }
        for file in ["keys/a", "keys/pub/b", "open/c", "on/the/way/d"] {
            fs::write(data.0.join(file), file)?;
        }
        for tool in ["tools/tool", "open/tool"] {
            fs::copy(&context.workload, data.0.join(tool))?;
        }
        // Deeper than all of its names are kept, and than they are climbed over.
        for (directory, depth) in [("open", 60), ("keys", 60), ("open/e", 120)] {
            let deep = data.0.join(directory).join("d/".repeat(depth));
            fs::create_dir_all(&deep)?;
            fs::write(deep.join("f"), "deep")?;
        }
        Ok(data)
    }

    fn volume(&self) -> String {
        format!("{}:/data", self.0.display())
    }

    fn all(&self) -> Result<BTreeSet<PathBuf>> {
        fn add(directory: &Path, all: &mut BTreeSet<PathBuf>) -> Result<()> {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    add(&entry.path(), all)?;
                }
                all.insert(entry.path());
            }
            Ok(())
        }
        let mut all = BTreeSet::new();
        add(&self.0, &mut all)?;
        Ok(all)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(context: &Context, data: &Data, name: &str, flags: &[&str], script: &str) -> Result<String> {
    let (volume, own) = (context.workload_volume(), data.volume());
    let mut args = vec![
        "run", "--name", name, "--userns", "host", "-v", &volume, "-v", &own,
    ];
    args.extend_from_slice(flags);
    args.extend_from_slice(&["host", "sh", "-c", script]);
    let output = context.paddock(&args)?;
    ensure!(output.code == Some(0), "{output:?}");
    Ok(output.stdout)
}

/// In a volume, by each operation; the same again in audit, and without.
fn by_name(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    if !asks(context, &files)? {
        return Ok(());
    }
    let data = Data::new(context)?;
    let (before, tries) = (data.all()?, tries()?);
    let script = script(&tries, "/run/workload", "/data");
    let file = files.write("paths.toml", rules("/data"))?;
    context.ok(&["policy", "apply", &file])?;
    let held = run(context, &data, "held", &[], &script)?;
    ensure!(held == said(&tries, |no| no), "{held}");
    ensure!(data.all()? == before, "something was done");
    let refused: u32 = tries.iter().map(|(.., no, _)| no).sum();
    equal("deny", hits(context, "held", "deny")?, refused)?;
    let rules_of: Value = context.json(&["policy", "list", "paths", "--format", "json"])?;
    let names = rules_of["rules"].as_array().context("rules")?.iter();
    let names: Vec<_> = names.map(|rule| rule["name"].as_str()).collect();
    ensure!(
        rules_of["rules"][0]["means"]["lsm"] == serde_json::json!(["file"])
            && names == ["keys", "deep", "tools", "mount"].map(Some),
        "{rules_of}"
    );
    told(context, &files)?;

    // The agent is gone, and it is refused all the same.
    context.kill_agent()?;
    context.start_agent(&["--detach-on-exit"])?;
    let held = run(context, &data, "after", &[], &script)?;
    ensure!(held == said(&tries, |no| no), "{held}");
    equal("deny", hits(context, "after", "deny")?, refused)?;

    context.ok(&["policy", "mode", "paths", "audit"])?;
    let audited = run(context, &data, "audited", &[], &script)?;
    ensure!(audited == said(&tries, |_| 0), "{audited}");
    ensure!(data.all()? == before, "something was not undone");
    let hit = tries.iter().map(|(_, _, count, _, each)| count * each);
    equal(
        "audit",
        hits(context, "audited", "audit")?,
        hit.sum::<u32>(),
    )?;

    context.ok(&["policy", "rm", "paths"])?;
    let free = run(context, &data, "free", &[], &script)?;
    ensure!(free == said(&tries, |_| 0), "{free}");
    Ok(())
}

/// The event has operation and path, and `policy explain` says what to write.
fn told(context: &Context, files: &Files) -> Result<()> {
    let text = context.events()?;
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "denial" && event["container"] == "held")
        .collect();
    for (operation, path) in [
        ("read", "/data/keys/a"),
        ("write", "/data/keys/pub/b"),
        ("read", "/data/keys"),
        ("create", "/data/keys/new"),
        ("exec", "/data/tools/tool"),
        ("remove", "/data/on"),
    ] {
        let of = |event: &&Value| {
            event["file"]["operation"] == operation && event["file"]["path"] == path
        };
        let event = events.iter().find(of);
        let event = event.with_context(|| format!("{operation} {path}: {text}"))?;
        ensure!(
            event["activity"] == "file" && event["policy"] == "paths",
            "{event}"
        );
        let id = event["id"].to_string();
        let told: Value = context.json(&["policy", "explain", &id, "--format", "json"])?;
        let replaced = match path {
            // Nothing is more specific than the rule.
            "/data/keys" => Some("keys"),
            // It would have taken along what the rule names.
            "/data/on" => Some("deep"),
            _ => None,
        };
        if let Some(rule) = replaced {
            ensure!(
                told["same"] == true && told["allow"][0]["replaces"] == rule,
                "{told}"
            );
            continue;
        }
        let lines = told["allow"][0]["lines"].as_str().context("no advice")?;
        ensure!(
            told["same"] == true
                && lines.contains(&format!("path = \"{path}\", operation = \"{operation}\"")),
            "{told}"
        );
        let more = files.write("more.toml", format!("{}\n{lines}", rules("/data")))?;
        let report = context.ok(&["policy", "check", &more])?;
        ensure!(report.contains("allow-file"), "{report}");
    }
    let (again, events) = (
        files.write("again.toml", rules("/data"))?,
        files.write("events.jsonl", text)?,
    );
    let report: Value = context.json(&[
        "policy", "test", &again, "--events", &events, "--format", "json",
    ])?;
    let hit = report["rules"].as_array().context("rules")?.iter();
    let hit: BTreeSet<_> = hit.filter_map(|rule| rule["rule"].as_str()).collect();
    ensure!(hit == BTreeSet::from(["deep", "keys", "tools"]), "{report}");
    Ok(())
}

/// By chroot, a relative path, symbolic links, procfs, and by everything that would make another
/// path lead there.
fn other_ways(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    if !asks(context, &files)? {
        return Ok(());
    }
    let data = Data::new(context)?;
    let file = files.write("paths.toml", rules("/data"))?;
    context.ok(&["policy", "apply", &file])?;
    let deep = |directory: &str, depth| format!("/data/{directory}/{}f", "d/".repeat(depth));
    let ways = [
        ("try read /proc/self/root/data/keys/a", 3, 3),
        ("try read /proc/1/root/data/keys/a", 5, 5),
        ("try read /tmp/link", 7, 7),
        ("try read keys/a", 11, 11),
        ("within /data try read /keys/a", 13, 13),
        ("within /data/keys try read a", 17, 17),
        ("within /data/keys try read /pub/b", 2, 0),
        ("try tree /data", 19, 19),
        ("try filesystem tmpfs", 23, 23),
        ("try bind /data:/tmp", 29, 29),
        (&format!("try read {}", deep("keys", 60)), 31, 31),
        (&format!("try read {}", deep("open", 60)), 37, 0),
        // No path that can be told is as the strictest.
        (&format!("try read {}", deep("open/e", 120)), 41, 41),
        (&format!("try create /data/open/{}", "n".repeat(200)), 43, 0),
        ("try read /data/keys-of-others", 2, 0),
    ];
    fs::write(data.0.join("keys-of-others"), "")?;
    let mut script = String::from("ln -s /data/keys/a /tmp/link && cd /data");
    let mut want = String::new();
    for (way, count, refused) in &ways {
        write!(script, " && /run/workload {way} {count}")?;
        writeln!(want, "{count} calls, {refused} refused")?;
    }
    let flags = ["--cap-add", "SYS_ADMIN"];
    let held = run(context, &data, "held", &flags, &script)?;
    ensure!(held == want, "{held}");
    let refused: u32 = ways.iter().map(|(_, _, refused)| refused).sum();
    equal("deny", hits(context, "held", "deny")?, refused)?;

    // Whoever says so may mount, and is where the mount leads.
    let file = files.write(
        "paths.toml",
        format!(
            "{}\n[[rule]]\neffect = \"allow\"\nnamed = \"mount\"\n",
            rules("/data")
        ),
    )?;
    context.ok(&["policy", "apply", &file])?;
    let script = "mount --bind /data /mnt && /run/workload try read /mnt/keys/a 3 && \
                  /run/workload try read /data/keys/a 5";
    let open = run(context, &data, "open", &flags, script)?;
    ensure!(open == "3 calls, 0 refused\n5 calls, 5 refused\n", "{open}");
    context.ok(&["policy", "rm", "paths"]).map(drop)
}

fn found_and_killed(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    if !asks(context, &files)? {
        return Ok(());
    }
    let (data, tries) = (Data::new(context)?, tries()?);
    let base = data.0.to_str().context("a path in UTF-8")?;
    let file = files.write("paths.toml", rules(base))?;
    context.ok(&["policy", "apply", &file])?;
    let cgroup = Cgroup::new(5)?;
    let name = cgroup.id[..12].to_owned();
    eventually("it is found", || {
        Ok(context.ok(&["ps", "-a"])?.contains(&name))
    })?;
    let script = script(&tries, &context.workload.display().to_string(), base);
    let output = cgroup.joined(&format!("sh -c '{script}'")).output()?;
    let want = said(&tries, |no| no);
    ensure!(output.stdout == want.as_bytes(), "{output:?}");
    let refused: u32 = tries.iter().map(|(.., no, _)| no).sum();
    equal("deny", hits(context, &name, "deny")?, refused)?;
    context.ok(&["policy", "rm", "paths"])?;

    let file = files.write(
        "paths.toml",
        "name = \"paths\"\nmode = \"enforce\"\n[[rule]]\nname = \"keys\"\nreaction = \"kill\"\n\
         file = { path = \"/data/keys\", operation = \"read\" }\n",
    )?;
    context.ok(&["policy", "apply", &file])?;
    let (volume, own) = (context.workload_volume(), data.volume());
    let output = context.paddock(&[
        "run",
        "--name",
        "doomed",
        "-v",
        &volume,
        "-v",
        &own,
        "host",
        "/run/workload",
        "try",
        "read",
        "/data/keys/a",
        "1",
    ])?;
    ensure!(
        output.code == Some(137) && output.stdout.is_empty(),
        "{output:?}"
    );
    equal("kill", hits(context, "doomed", "kill")?, 1_u32)?;
    context.ok(&["policy", "rm", "paths"]).map(drop)
}

/// The posture, and the ways to bring a program under a name that may run.
fn only_named(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    if !enforced::asks(context)? {
        return Ok(());
    }
    let data = Data::new(context)?;
    let file = files.write(
        "paths.toml",
        "name = \"paths\"\nmode = \"enforce\"\ndefault = { exec = \"deny\" }\n[[rule]]\n\
         effect = \"allow\"\nexec = [\"/bin\", \"/usr\", \"/run/workload\", \"/data/tools\"]\n",
    )?;
    context.ok(&["policy", "apply", &file])?;
    let script = "/run/workload try exec /data/tools/tool 3 && \
                  /run/workload try exec /data/open/tool 5 && \
                  /run/workload try rename /data/open/tool:/data/tools/more 7 && \
                  /run/workload try link /data/open/tool:/data/tools/more 11 && \
                  /run/workload try rename /data/open:/data/tools/more 13 && \
                  /run/workload try exchange /data/open:/data/tools 17 && \
                  /run/workload try memory /run/workload 19";
    let held = run(context, &data, "closed", &[], script)?;
    let want = [
        (3, 0),
        (5, 5),
        (7, 7),
        (11, 11),
        (13, 13),
        (17, 17),
        (19, 19),
    ];
    let want = want.map(|(count, refused)| format!("{count} calls, {refused} refused\n"));
    ensure!(held == want.concat(), "{held}");
    equal(
        "deny",
        hits(context, "closed", "deny")?,
        5 + 7 + 11 + 13 + 17 + 19_u32,
    )?;
    context.ok(&["policy", "rm", "paths"]).map(drop)
}
