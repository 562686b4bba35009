//! systemd's own tool hands a socket over.

use std::{
    net::{TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    context::{Context, finish},
    metrics::Metrics,
    prometheus::Prometheus,
    runner::Scenario,
};

pub(super) const ALL: &[Scenario] = &[Scenario::new("web::systemd_socket", systemd_socket).alone()];

const TOOL: &str = "systemd-socket-activate";
const ENVIRONMENT: [&str; 6] = [
    "-E",
    "PADDOCK_DATA_DIR",
    "-E",
    "PADDOCK_CONFIG",
    "-E",
    "PADDOCK_CANARY_INTERVAL",
];

fn systemd_socket(context: &Context) -> Result<()> {
    if !Prometheus::is_here()? {
        return Ok(());
    }
    let free =
        || Ok::<_, anyhow::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
    let address = free()?;
    // It starts the agent when somebody comes.
    let started = AtomicBool::new(false);
    let mut program = vec![TOOL, "-l", &address];
    program.extend(ENVIRONMENT);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !started.load(Ordering::Relaxed) {
                let came = TcpStream::connect(&address);
                thread::sleep(Duration::from_millis(50));
                drop(came);
            }
        });
        let agent = context.start_agent_by(&program, &["--detach-on-exit", "--web.systemd-socket"]);
        started.store(true, Ordering::Relaxed);
        agent
    })?;
    ensure!(context.address()? == address, "{}", context.address()?);
    let answer = Metrics::get(&address, "/healthz")?;
    ensure!(answer.ends_with("ok\n"), "{answer}");
    // Nobody else gets it.
    let seen = context.ok(&[
        "run",
        "--rm",
        "host",
        "sh",
        "-c",
        "env; ls -l /proc/self/fd",
    ])?;
    ensure!(
        !seen.contains("LISTEN_") && !seen.contains("socket:"),
        "{seen}"
    );
    ensure!(context.stop_agent()? == Some(0));

    // None, two, and one that is no TCP socket.
    let wrong = |sockets: &[&str]| {
        let mut command = match sockets {
            [] => Command::new("env"),
            _ => Command::new(TOOL),
        };
        for socket in sockets {
            command.args(["-l", socket]);
        }
        let agent = context.command(&["agent", "--web.systemd-socket"]);
        if !sockets.is_empty() {
            command.args(ENVIRONMENT);
        }
        command.arg(agent.get_program()).args(agent.get_args());
        command.env("PADDOCK_DATA_DIR", &context.data);
        command.envs([("PADDOCK_CONFIG", "none"), ("PADDOCK_CANARY_INTERVAL", "0")]);
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while let Some(first) = sockets.first().filter(|_| !ended.load(Ordering::Relaxed)) {
                    drop(TcpStream::connect(first));
                    drop(std::os::unix::net::UnixStream::connect(first));
                    thread::sleep(Duration::from_millis(50));
                }
            });
            let done = finish(&mut command);
            ended.store(true, Ordering::Relaxed);
            done
        })
    };
    let path = context
        .state
        .with_extension("web.sock")
        .display()
        .to_string();
    for (sockets, told) in [
        (vec![], "start paddock-web.socket before the agent"),
        (vec![free()?, free()?], "2 came, and one is served"),
        (vec![path.clone()], "what came is none of TCP"),
    ] {
        let sockets: Vec<&str> = sockets.iter().map(String::as_str).collect();
        let done = wrong(&sockets)?;
        let _ = std::fs::remove_file(&path);
        ensure!(
            done.code == Some(1) && done.stderr.contains(told),
            "{done:?}"
        );
    }
    Ok(())
}
