//! The verbs, one after the other, told from outside by procfs and the cgroup files.

use std::{
    fs::{self, File},
    io::IoSliceMut,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
    unistd::close,
};
use serde_json::{Value, json};

use super::{Bundle, config};
use crate::{
    context::{Context, cgroup_file, cgroup_mounts, eventually, finish},
    process::program_is_out_of_reach,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("oci::create_start_kill_delete", create_start_kill_delete),
    Scenario::new("oci::exec_joins", exec_joins),
    Scenario::new("oci::terminal_by_socket", terminal_by_socket),
    Scenario::new("oci::limits_and_update", limits_and_update),
    Scenario::new("oci::pause_ps_list_events", pause_ps_list_events),
];

fn create_start_kill_delete(context: &Context) -> Result<()> {
    let bundle = Bundle::new(
        context,
        &config(&["sh", "-c", "echo started; exec sleep 100"]),
    )?;
    let pid_file = bundle.path.join("pid");
    let status = bundle
        .command(&[
            "create",
            "--pid-file",
            &pid_file.display().to_string(),
            "one",
        ])
        .stdout(File::create(bundle.path.join("out"))?)
        .status()?;
    ensure!(status.success(), "create: {status}");
    let pid: i64 = bundle.read("pid")?.parse()?;
    let state = bundle.state("one")?;
    ensure!(
        state["status"] == "created" && state["pid"] == pid && state["id"] == "one",
        "{state}"
    );
    ensure!(
        state["bundle"] == bundle.path.display().to_string(),
        "{state}"
    );
    ensure!(bundle.read("out")?.is_empty(), "it ran before its start");
    // What waits is not the program on disk, and has no more than it needs open.
    program_is_out_of_reach(&pid.to_string())?;
    bundle.refused_in_place(&["create", "one"], "exists")?;
    bundle.ok(&["start", "one"])?;
    eventually("the program writes", || {
        Ok(bundle.read("out")? == "started\n")
    })?;
    ensure!(bundle.is("one", "running")?, "not running");
    bundle.refused_in_place(&["start", "one"], "running")?;
    bundle.refused_in_place(&["delete", "one"], "running")?;
    // A shell that is process 1 takes a signal only by its handler; sleep has none either.
    bundle.ok(&["kill", "one", "KILL"])?;
    eventually("it has stopped", || bundle.is("one", "stopped"))?;
    bundle.refused_in_place(&["kill", "one", "TERM"], "stopped")?;
    bundle.ok(&["delete", "one"])?;
    bundle.refused(&["delete", "one"], &["does not exist"])?;
    bundle.refused(&["state", "one"], &["does not exist"])?;
    bundle.ok(&["delete", "--force", "one"])?;
    // Running to its end, with its exit code.
    bundle.write(&config(&["sh", "-c", "exit 23"]))?;
    let output = bundle.oci(&["run", "two"])?;
    ensure!(output.code == Some(23), "{output:?}");
    bundle.empty()
}

fn exec_joins(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &config(&["sleep", "100"]))?;
    bundle.start("room")?;
    let pid = bundle.pid("room")?;
    for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let inside = bundle.ok(&[
            "exec",
            "room",
            "readlink",
            &format!("/proc/self/ns/{namespace}"),
        ])?;
        let outside = fs::read_link(format!("/proc/{pid}/ns/{namespace}"))?;
        ensure!(
            inside.trim() == outside.to_string_lossy(),
            "{namespace}: {inside}"
        );
    }
    let output = bundle.oci(&["exec", "room", "sh", "-c", "exit 42"])?;
    ensure!(output.code == Some(42), "{output:?}");
    let text = bundle.ok(&[
        "exec",
        "--env",
        "A=b",
        "--cwd",
        "/tmp",
        "--user",
        "7:8",
        "room",
        "sh",
        "-c",
        "echo $A $GREETING; busybox pwd; id -u; id -g; busybox grep CapEff /proc/self/status",
    ])?;
    ensure!(
        text.starts_with("b hello\n/tmp\n7\n8\nCapEff:\t0000000000000000"),
        "{text}"
    );
    for (args, words) in [
        (&["exec", "room", "/nope"][..], "no such file or directory"),
        (
            &["exec", "room", "nope"],
            "executable file not found in $PATH",
        ),
        (&["exec", "room", "/etc/passwd"], "permission denied"),
        (&["exec", "--user", "root", "room", "id"], "--user \"root\""),
        (&["exec", "--user", "4294967296", "room", "id"], "--user"),
        (&["exec", "--cwd", "/nope", "room", "id"], "chdir"),
    ] {
        bundle.refused_in_place(args, words)?;
    }
    // From a file, not waited for, its id written down.
    let (process, pid_file) = (
        bundle.path.join("process.json"),
        bundle.path.join("exec.pid"),
    );
    let words = json!({"args": ["sleep", "77"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    fs::write(&process, words.to_string())?;
    let status = bundle
        .command(&["exec", "--detach", "--process"])
        .arg(&process)
        .arg("--pid-file")
        .arg(&pid_file)
        .arg("room")
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "{status}");
    let other = bundle.read("exec.pid")?;
    let line = fs::read_to_string(format!("/proc/{other}/cmdline"))?;
    ensure!(line == "sleep\x0077\0", "{line:?}");
    let own = fs::read_to_string(format!("/proc/{other}/cgroup"))?;
    ensure!(
        own == fs::read_to_string(format!("/proc/{pid}/cgroup"))?,
        "{own}"
    );
    bundle.ok(&["delete", "--force", "room"])?;
    let stat = fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
    // An ended one waits for the host's first process.
    ensure!(
        stat.is_empty() || stat.contains(") Z "),
        "it outlived its container: {stat}"
    );
    bundle.empty()
}

/// The master comes over the socket, and the other end is the container's /dev/pts/0.
fn terminal_by_socket(context: &Context) -> Result<()> {
    let mut wanted = config(&[
        "sh",
        "-c",
        "tty; stat -c %t:%T /dev/console; read line; echo got $line; busybox stty size",
    ]);
    wanted["process"]["terminal"] = json!(true);
    wanted["process"]["consoleSize"] = json!({"height": 33, "width": 111});
    let bundle = Bundle::new(context, &wanted)?;
    bundle.refused(&["create", "tty"], &["--console-socket"])?;
    let socket = bundle.path.join("console");
    let listener = UnixListener::bind(&socket)?;
    bundle.ok(&[
        "create",
        "--console-socket",
        &socket.display().to_string(),
        "tty",
    ])?;
    let (stream, _) = listener.accept()?;
    let master = receive(stream.as_raw_fd())?;
    bundle.ok(&["start", "tty"])?;
    // Inherited by number. An end of file is what a terminal answers with EIO.
    let script = format!("echo words >&{master}; cat <&{master} 2>/dev/null");
    let text = finish(Command::new("sh").args(["-c", &script]))?.stdout;
    close(master)?;
    for line in ["/dev/pts/0\r\n", "88:0\r\n", "got words\r\n", "33 111\r\n"] {
        ensure!(text.contains(line), "no {line:?} in {text:?}");
    }
    eventually("it has stopped", || bundle.is("tty", "stopped"))?;
    bundle.ok(&["delete", "tty"])?;
    bundle.empty()
}

fn receive(socket: RawFd) -> Result<RawFd> {
    let mut bytes = [0; 64];
    let mut data = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(socket, &mut data, Some(&mut space), MsgFlags::empty())?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            return fds.first().copied().context("no descriptor");
        }
    }
    bail!("no descriptor was sent")
}

fn limits_and_update(context: &Context) -> Result<()> {
    let mut wanted = config(&["sleep", "100"]);
    let cgroup = format!("paddock-oci-test-{}/deep", std::process::id());
    wanted["linux"]["cgroupsPath"] = json!(format!("/{cgroup}"));
    wanted["linux"]["resources"] = json!({
        "memory": {"limit": 64 << 20},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 512},
        "pids": {"limit": 33},
    });
    let bundle = Bundle::new(context, &wanted)?;
    bundle.start("limited")?;
    let memory = cgroup_file(&cgroup, "memory.max", ("memory", "memory.limit_in_bytes"));
    let pids = cgroup_file(&cgroup, "pids.max", ("pids", "pids.max"));
    let value = |path: &Path| -> Result<String> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(text.trim().to_owned())
    };
    ensure!(value(&memory)? == (64 << 20).to_string() && value(&pids)? == "33");
    let pid = bundle.pid("limited")?;
    let procs = cgroup_file(&cgroup, "cgroup.procs", ("memory", "cgroup.procs"));
    ensure!(value(&procs)? == pid.to_string(), "not in its cgroup");
    bundle.ok(&["update", "--memory", "32m", "--pids-limit", "44", "limited"])?;
    ensure!(value(&memory)? == (32 << 20).to_string() && value(&pids)? == "44");
    let resources = bundle.path.join("resources.json");
    fs::write(&resources, r#"{"pids": {"limit": 55}}"#)?;
    bundle.ok(&["update", "-r", &resources.display().to_string(), "limited"])?;
    ensure!(value(&pids)? == "55");
    bundle.refused_in_place(&["update", "--memory", "much", "limited"], "bytes")?;
    bundle.ok(&["delete", "--force", "limited"])?;
    ensure!(!memory.exists(), "its cgroup is left");
    // The parent was there for others to use, so it stays; here it is this scenario's.
    for (_, mount) in cgroup_mounts()? {
        let parent = mount.join(Path::new(&cgroup).parent().context("parent")?);
        ensure!(parent.is_dir(), "{} is gone", parent.display());
        fs::remove_dir(parent)?;
    }
    for path in ["/a/../../b", "..", "/", "slice:prefix:name"] {
        wanted["linux"]["cgroupsPath"] = json!(path);
        bundle.write(&wanted)?;
        bundle.refused(&["run", "limited"], &["cgroupsPath"])?;
    }
    Ok(())
}

fn pause_ps_list_events(context: &Context) -> Result<()> {
    let busy = "while true; do :; done";
    let mut wanted = config(&["sh", "-c", busy]);
    wanted["annotations"] = json!({"com.example": "kept"});
    let bundle = Bundle::new(context, &wanted)?;
    bundle.start("busy")?;
    let pid = bundle.pid("busy")?;
    let ticks = || -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(") ").context("stat")?.1;
        Ok(fields.split(' ').nth(11).context("utime")?.parse()?)
    };
    bundle.ok(&["pause", "busy"])?;
    ensure!(bundle.is("busy", "paused")?);
    let before = ticks()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    ensure!(ticks()? == before, "it ran while it was paused");
    bundle.refused_in_place(&["exec", "busy", "true"], "paused")?;
    bundle.ok(&["resume", "busy"])?;
    eventually("it runs again", || Ok(ticks()? > before))?;
    bundle.refused_in_place(&["resume", "busy"], "running")?;
    let pids: Value = serde_json::from_str(&bundle.ok(&["ps", "--format", "json", "busy"])?)?;
    ensure!(pids == json!([pid]), "{pids}");
    let list: Value = serde_json::from_str(&bundle.ok(&["list", "--format", "json"])?)?;
    ensure!(
        list[0]["id"] == "busy" && list[0]["annotations"]["com.example"] == "kept",
        "{list}"
    );
    ensure!(bundle.ok(&["list", "-q"])? == "busy\n");
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", "busy"])?)?;
    ensure!(
        stats["type"] == "stats" && stats["data"]["cpu"]["usage"]["total"].as_u64() > Some(0),
        "{stats}"
    );
    ensure!(stats["data"]["pids"]["current"] == 1, "{stats}");
    bundle.ok(&["kill", "--all", "busy", "KILL"])?;
    eventually("it has stopped", || bundle.is("busy", "stopped"))?;
    bundle.ok(&["delete", "busy"])?;
    let features: Value = serde_json::from_str(&bundle.ok(&["features"])?)?;
    ensure!(features["linux"]["cgroup"]["v2"] == true, "{features}");
    let newest = features["ociVersionMax"] == "1.3.0";
    ensure!(
        newest && features["linux"]["netDevices"]["enabled"] == true,
        "{features}"
    );
    fs::remove_file(bundle.path.join("config.json"))?;
    bundle.ok(&["spec"])?;
    let spec: Value = serde_json::from_str(&bundle.read("config.json")?)?;
    ensure!(spec["process"]["args"] == json!(["sh"]), "{spec}");
    bundle.refused(&["spec"], &["config.json"])
}
