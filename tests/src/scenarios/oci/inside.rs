//! What a bundle makes of a container, seen from inside; beside runc's on the same bundle.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Bundle, config};
use crate::{
    context::{Context, eventually, finish},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("oci::same_as_runc", same_as_runc),
    Scenario::new("oci::namespaces_by_path", namespaces_by_path),
    Scenario::new("oci::user_namespace", user_namespace),
    Scenario::new("oci::devices_and_clocks", devices_and_clocks),
];

/// What a program can see of its container, from inside.
const LOOK: &str = "grep() { busybox grep \"$@\"; }; \
    grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|SigIgn|SigBlk)' /proc/self/status; \
    busybox awk '{print $4, $5, $6, $(NF-2)}' /proc/self/mountinfo | busybox sort; \
    busybox awk '/Max open files/' /proc/self/limits; \
    env | busybox sort; busybox pwd; busybox hostname; cat /proc/self/cgroup; \
    busybox find /dev | busybox sort; stat -c '%a %u:%g %t:%T' /dev/null /dev/tty /dev/full; \
    busybox ip link | grep -o 'lo: <[^>]*>'; ls /proc/self/fd; cat /proc/self/oom_score_adj; \
    ls /sys/firmware | busybox wc -l; touch /x /proc/sys/kernel/x 2>&1; busybox wc -c /proc/kcore; true";

/// Both runtimes, one bundle: what differs is written here, and nothing else does.
fn same_as_runc(context: &Context) -> Result<()> {
    let mut wanted = config(&["sh", "-c", LOOK]);
    wanted["process"]["user"]["additionalGids"] = json!([5, 27]);
    wanted["process"]["user"]["umask"] = json!(0o027);
    wanted["process"]["oomScoreAdj"] = json!(321);
    let bundle = Bundle::new(context, &wanted)?;
    let ours = bundle.oci(&["run", "same"])?;
    ensure!(ours.code == Some(0), "{ours:?}");
    let theirs = finish(
        Command::new("runc")
            .arg("--root")
            .arg(context.state.with_extension("runc"))
            .args(["run", "same"])
            .current_dir(&bundle.path)
            .stdin(Stdio::null()),
    )?;
    let _ = fs::remove_dir_all(context.state.with_extension("runc"));
    ensure!(theirs.code == Some(0), "runc: {theirs:?}");
    let (ours, theirs) = (common(&ours.stdout), common(&theirs.stdout));
    let differs: Vec<_> = ours
        .iter()
        .filter(|line| !theirs.contains(line))
        .map(|line| format!("ours {line}"))
        .chain(
            theirs
                .iter()
                .filter(|line| !ours.contains(line))
                .map(|line| format!("runc {line}")),
        )
        .collect();
    ensure!(ours.len() > 60, "too little: {ours:?}");
    ensure!(differs.is_empty(), "{}", differs.join("\n"));
    Ok(())
}

/// Without what the two may well do differently: Go ignores a signal; v1's hierarchies are
/// mounted by names of one's own; what is masked or read-only is nosuid, nodev and noexec, too,
/// where runc leaves it as procfs is mounted; a root that is on a nosuid mount stays so; and
/// /dev/core, a link to what is masked, is not made.
fn common(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.contains("/sys/fs/cgroup") && !line.starts_with("SigIgn"))
        .filter(|line| *line != "/dev/core")
        .map(|line| {
            let protected = line.contains(" /proc/") || line.contains(" /sys/firmware ");
            match line {
                _ if protected => line.replace("nosuid,nodev,noexec,", ""),
                root if root.contains(" / ") => line.replace("nosuid,", "").replace("nodev,", ""),
                other => other.to_owned(),
            }
        })
        .collect()
}

/// A pod: the second container is in the first one's namespaces, its user namespace too.
fn namespaces_by_path(context: &Context) -> Result<()> {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    for user in [false, true] {
        let mut wanted = config(&["sleep", "100"]);
        if user {
            let all = wanted["linux"]["namespaces"]
                .as_array_mut()
                .context("namespaces")?;
            all.push(json!({"type": "user"}));
            wanted["linux"]["uidMappings"] = maps.clone();
            wanted["linux"]["gidMappings"] = maps.clone();
        }
        let bundle = Bundle::new(context, &wanted)?;
        bundle.start("first")?;
        let pid = bundle.pid("first")?;
        let at = |kind: &str| format!("/proc/{pid}/ns/{kind}");
        let joined = ["pid", "ipc", "uts"];
        let mut namespaces = vec![
            json!({"type": "pid", "path": at("pid")}),
            json!({"type": "ipc", "path": at("ipc")}),
            json!({"type": "uts", "path": at("uts")}),
            json!({"type": "network"}),
            json!({"type": "mount"}),
            json!({"type": "cgroup"}),
        ];
        if user {
            namespaces.push(json!({"type": "user", "path": at("user")}));
        }
        wanted["linux"]["namespaces"] = json!(namespaces);
        wanted["hostname"] = Value::Null;
        wanted["process"]["args"] = json!([
            "sh",
            "-c",
            "for n in pid ipc uts net user; do readlink /proc/self/ns/$n; done; ps; busybox hostname; cat /proc/self/uid_map"
        ]);
        bundle.write(&wanted)?;
        let text = bundle.ok(&["run", "second"])?;
        for kind in joined.into_iter().chain(user.then_some("user")) {
            let outside = fs::read_link(at(kind))?.to_string_lossy().into_owned();
            ensure!(text.contains(&outside), "{kind}: {text}");
        }
        let own = fs::read_link(at("net"))?.to_string_lossy().into_owned();
        ensure!(!text.contains(&own), "the network is shared: {text}");
        ensure!(
            text.contains("sleep 100") && text.contains("\nbundled\n"),
            "{text}"
        );
        ensure!(!user || text.contains("100000"), "{text}");
        // A new pid namespace below a joined user namespace.
        if user {
            namespaces.retain(|one| one["type"] != "pid");
            namespaces.push(json!({"type": "pid"}));
            wanted["linux"]["namespaces"] = json!(namespaces);
            wanted["process"]["args"] = json!(["sh", "-c", "echo $$; readlink /proc/self/ns/user"]);
            bundle.write(&wanted)?;
            let text = bundle.ok(&["run", "third"])?;
            let outside = fs::read_link(at("user"))?.to_string_lossy().into_owned();
            ensure!(text == format!("1\n{outside}\n"), "{text}");
        }
        wanted["linux"]["namespaces"][0]["path"] = json!("/etc/passwd");
        bundle.write(&wanted)?;
        bundle.refused_in_place(&["run", "second"], "is no namespace")?;
        bundle.ok(&["delete", "--force", "first"])?;
        bundle.empty()?;
    }
    Ok(())
}

fn user_namespace(context: &Context) -> Result<()> {
    let mut wanted = config(&[
        "sh",
        "-c",
        "cat /proc/self/uid_map; id -u; stat -c %u /bin/busybox /dev/null; (echo x >/proc/sys/kernel/core_pattern) 2>&1; sleep 100",
    ]);
    let all = wanted["linux"]["namespaces"]
        .as_array_mut()
        .context("namespaces")?;
    all.push(json!({"type": "user"}));
    let bundle = Bundle::new(context, &wanted)?;
    bundle.refused(&["run", "mapped"], &["uidMappings"])?;
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    wanted["linux"]["uidMappings"] = maps.clone();
    wanted["linux"]["gidMappings"] = maps;
    bundle.write(&wanted)?;
    bundle.start("mapped")?;
    let status = format!("/proc/{}/status", bundle.pid("mapped")?);
    let status = fs::read_to_string(status)?;
    ensure!(status.contains("Uid:\t100000\t100000"), "{status}");
    eventually("it has looked", || {
        // The shell writes its last line in pieces.
        Ok(bundle.read("out")?.matches('\n').count() >= 5)
    })?;
    let text = bundle.read("out")?;
    let words: Vec<_> = text.split_whitespace().collect();
    // The rootfs' files are the host's root's, whom the container has no number for.
    ensure!(
        words[..6] == ["0", "100000", "1000", "0", "65534", "0"],
        "{text}"
    );
    ensure!(text.contains("ead-only file system"), "{text}");
    bundle.ok(&["delete", "--force", "mapped"])?;
    bundle.empty()
}

fn devices_and_clocks(context: &Context) -> Result<()> {
    let mut wanted = config(&[
        "sh",
        "-c",
        "stat -c '%F %a %u:%g %t:%T' /dev/extra/null /dev/null; echo x >/dev/extra/null; cat /proc/self/timens_offsets",
    ]);
    wanted["linux"]["devices"] = json!([
        {"path": "/dev/extra/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8},
    ]);
    let all = wanted["linux"]["namespaces"]
        .as_array_mut()
        .context("namespaces")?;
    all.push(json!({"type": "time"}));
    wanted["linux"]["timeOffsets"] = json!({"boottime": {"secs": 7_000_000, "nanosecs": 5}});
    let bundle = Bundle::new(context, &wanted)?;
    let text = bundle.ok(&["run", "timed"])?;
    ensure!(
        text.contains("character special file 640 7:8 1:3\ncharacter special file 666 0:0 1:3"),
        "{text}"
    );
    let offsets: Vec<_> = text
        .lines()
        .last()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    ensure!(offsets == ["boottime", "7000000", "5"], "{text}");
    // Without a /dev of its own the root's gets the devices, but never through a symlink.
    let mounts = wanted["mounts"].as_array_mut().context("mounts")?;
    mounts.retain(|mount| {
        !mount["destination"]
            .as_str()
            .unwrap_or_default()
            .starts_with("/dev")
    });
    wanted["linux"]["devices"] = json!([{"path": "/made/here", "type": "p", "fileMode": 0o600}]);
    wanted["process"]["args"] = json!(["sh", "-c", "stat -c '%F %t:%T' /dev/full /made/here"]);
    bundle.write(&wanted)?;
    let text = bundle.ok(&["run", "plain"])?;
    ensure!(text == "character special file 1:7\nfifo 0:0\n", "{text}");
    let root = bundle.path.join("rootfs");
    fs::remove_dir_all(root.join("dev"))?;
    let outside = bundle.path.join("outside");
    fs::create_dir(&outside)?;
    symlink(&outside, root.join("dev"))?;
    bundle.refused(&["run", "plain"], &["/dev/null"])?;
    ensure!(fs::read_dir(&outside)?.next().is_none(), "written outside");
    Ok(())
}
