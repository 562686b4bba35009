//! Launches one workload without an agent: cgroup, zygote, monitor, output, exit record.
//!
//! usage: launch [-t] [-i] [-v SOURCE:TARGET[:ro]]… [--cap NAME]… [--host NAMESPACE]… [--read-only]
//!               [--memory BYTES] [--exec PID START_TIME CGROUP] host|DIR COMMAND…
//!
//! Needs root. Exits as the workload does; prints `started` and `exited` records on stderr.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use paddock_cgroups::{Cgroup, Hierarchies, Limits};
use paddock_runtime::{
    client::Connection,
    defaults,
    protocol::{Packet, Request},
    spec::{
        Capabilities, ContainerSpec, ExecSpec, IdMaps, LaunchSpec, LogLimits, Mount, MountSource,
        Namespace, Process, Rootfs, Target, User,
    },
    zygote::{self, Zygote},
};

fn main() -> ExitCode {
    if std::env::args().next().as_deref() == Some(zygote::ARGV0) {
        zygote::serve();
    }
    match run() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(error) => {
            let mut cause: Option<&(dyn Error + 'static)> = Some(error.as_ref());
            while let Some(error) = cause {
                eprintln!("launch: {error}");
                cause = error.source();
            }
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<i32, Box<dyn Error>> {
    let id = format!("example-{}", std::process::id());
    let dir = PathBuf::from("/run")
        .join(format!("paddock-{id}"))
        .join("containers")
        .join(&id);
    let (spec, limits) = parse(&id, &dir)?;
    fs::create_dir_all(&dir)?;
    if let Target::Container(target) = &spec.target {
        Cgroup::create(&Hierarchies::discover()?, &target.cgroup)?.apply(&limits)?;
    }
    let zygote = Zygote::spawn()?;
    let monitor = zygote.launch(&spec)?;
    eprintln!("zygote {} monitor {monitor}", zygote.pid());
    let connection = Connection::connect(&dir.join("monitor.sock"))?;
    connection.send(Request::Attach, &[])?;
    connection.send(Request::Start, &[])?;
    if spec.process.stdin {
        let mut input = Vec::new();
        std::io::stdin().read_to_end(&mut input)?;
        for chunk in input.chunks(32 * 1024) {
            connection.send(Request::Stdin, chunk)?;
        }
        connection.send(Request::StdinEof, &[])?;
    }
    let code = follow(&connection)?;
    fs::remove_dir_all(dir.ancestors().nth(2).ok_or("no state directory")?)?;
    Ok(code)
}

fn follow(connection: &Connection) -> Result<i32, Box<dyn Error>> {
    loop {
        match connection.recv()? {
            Some(Packet::Stdout(bytes)) => std::io::stdout().write_all(&bytes)?,
            Some(Packet::Stderr(bytes)) => std::io::stderr().write_all(&bytes)?,
            Some(Packet::Logged(_)) => {}
            Some(Packet::Started(started)) => eprintln!("{started:?}"),
            Some(Packet::Failed(failed)) => {
                eprintln!("{failed:?}");
                return Ok(failed.exit_code);
            }
            Some(Packet::Exited(exit)) => {
                eprintln!("{exit:?}");
                return Ok(exit.exit_code);
            }
            None => return Err("the monitor was killed".into()),
        }
    }
}

fn parse(id: &str, dir: &Path) -> Result<(LaunchSpec, Limits), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: see the top of launch.rs");
    let mut limits = Limits::default();
    let mut capabilities: Vec<String> = defaults::CAPABILITIES
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut target = ContainerSpec {
        rootfs: Rootfs::Host,
        root_maps: None,
        read_only: false,
        init: false,
        hostname: Some("example".into()),
        domainname: None,
        cgroup: format!("paddock/example/{id}"),
        namespaces: defaults::namespaces(),
        id_maps: IdMaps::identity(),
        mounts: Vec::new(),
        devices: Vec::new(),
        masked_paths: defaults::masked_paths(),
        read_only_paths: defaults::read_only_paths(),
        sysctls: Vec::new(),
        device_rules: Vec::new(),
    };
    let mut volumes = Vec::new();
    let (mut terminal, mut stdin, mut exec) = (false, false, None);
    loop {
        match next()?.as_str() {
            "-t" => terminal = true,
            "-i" => stdin = true,
            "-v" => volumes.push(bind(&next()?)?),
            "--cap" => capabilities.push(next()?),
            "--read-only" => target.read_only = true,
            "--memory" => limits.memory.limit = Some(next()?.parse()?),
            "--exec" => {
                let (pid, start_time) = (next()?.parse()?, next()?.parse()?);
                exec = Some(ExecSpec {
                    pid,
                    start_time,
                    cgroup: next()?,
                    types: Vec::new(),
                });
            }
            "--host" => {
                let namespaces = &mut target.namespaces;
                *match next()?.as_str() {
                    "cgroup" => &mut namespaces.cgroup,
                    "ipc" => &mut namespaces.ipc,
                    "net" => &mut namespaces.net,
                    "pid" => &mut namespaces.pid,
                    "user" => &mut namespaces.user,
                    "uts" => &mut namespaces.uts,
                    other => return Err(format!("no namespace {other}").into()),
                } = Namespace::Host;
            }
            "host" => break,
            directory => {
                target.rootfs = Rootfs::Directory(directory.into());
                break;
            }
        }
    }
    target.mounts = defaults::mounts(&target.namespaces, defaults::SHM_SIZE);
    target.mounts.extend(volumes);
    let process = Process {
        args: args.collect(),
        env: defaults::environment("example", terminal),
        cwd: "/".into(),
        terminal,
        stdin,
        user: User::default(),
        account: None,
        capabilities: Capabilities::of_root(capabilities),
        no_new_privileges: true,
        rlimits: Vec::new(),
        oom_score_adj: None,
        seccomp: None,
        labels: Vec::new(),
    };
    let target = exec.map_or_else(|| Target::Container(Box::new(target)), Target::Exec);
    Ok((
        LaunchSpec {
            id: id.to_owned(),
            dir: dir.to_owned(),
            process,
            target,
            log: LogLimits::default(),
            trace: None,
            networks: None,
            asking: None,
        },
        limits,
    ))
}

fn bind(text: &str) -> Result<Mount, Box<dyn Error>> {
    let (paths, read_only) = text
        .strip_suffix(":ro")
        .map_or((text, false), |text| (text, true));
    let (source, target) = paths.split_once(':').ok_or("-v wants SOURCE:TARGET")?;
    let source = MountSource::Bind {
        path: source.into(),
        recursive: true,
    };
    let set = if read_only {
        defaults::READ_ONLY_MOUNT
    } else {
        0
    };
    Ok(Mount {
        recursive: true,
        follow: true,
        ..Mount::fixed(target, source, set)
    })
}
