//! The zygote's life: spawned, alive, killed, replaced. Needs no root: every request fails in
//! the monitor, before anything is made.
//!
//! Not under the test harness: the zygote is this executable again, and its `main` must see
//! `argv[0]` before a thread is started.

#![expect(
    clippy::unwrap_used,
    reason = "a test, though without the harness's attribute"
)]

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};
use paddock_runtime::{
    spec::{Capabilities, ExecSpec, LaunchSpec, LogLimits, Process, Target, User},
    zygote::{ARGV0, Error, Zygote, serve},
};

fn main() {
    if std::env::args().next().as_deref() == Some(ARGV0) {
        serve();
    }
    it_runs_from_what_nobody_can_write();
    a_monitor_that_cannot_begin_is_an_error_with_its_cause();
    a_killed_zygote_is_noticed_and_replaced();
}

fn hopeless() -> LaunchSpec {
    let process = Process {
        args: vec!["true".into()],
        env: vec![],
        cwd: "/".into(),
        terminal: false,
        stdin: false,
        user: User::default(),
        account: None,
        capabilities: Capabilities::default(),
        no_new_privileges: true,
        rlimits: vec![],
        oom_score_adj: None,
        seccomp: None,
        labels: vec![],
    };
    let target = Target::Exec(ExecSpec {
        pid: 1,
        start_time: 0,
        cgroup: "none".into(),
        types: vec![],
    });
    LaunchSpec {
        id: "x".into(),
        dir: PathBuf::from("/nonexistent/paddock"),
        process,
        target,
        log: LogLimits::default(),
        trace: None,
        networks: None,
        asking: None,
    }
}

fn it_runs_from_what_nobody_can_write() {
    let zygote = Zygote::spawn().unwrap();
    // exec may not have happened yet, but an answer can't come before it.
    zygote.launch(&hopeless()).unwrap_err();
    let exe = PathBuf::from(format!("/proc/{}/exe", zygote.pid()));
    // The overlay is mounted nowhere, so the path begins in it.
    let link = fs::read_link(&exe).unwrap();
    let link = link.to_str().unwrap();
    let own_path = fs::read_link("/proc/self/exe").unwrap();
    assert_ne!(Some(link), own_path.to_str());
    let own = fs::metadata("/proc/self/exe").unwrap();
    assert_eq!(fs::metadata(&exe).unwrap().len(), own.len());
    assert_ne!(fs::metadata(&exe).unwrap().dev(), own.dev());
    let refused = fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
    // A read-only file system, or a sealed memfd.
    let sealed = link.starts_with("/memfd:");
    assert!(
        sealed || refused.raw_os_error() == Some(Errno::EROFS as i32),
        "{link}: {refused}"
    );
    let fds = fs::read_dir(format!("/proc/{}/fd", zygote.pid()))
        .unwrap()
        .count();
    assert_eq!(fds, 4, "stdio and the socket");
}

fn a_monitor_that_cannot_begin_is_an_error_with_its_cause() {
    let zygote = Zygote::spawn().unwrap();
    for _ in 0..3 {
        match zygote.launch(&hopeless()).unwrap_err() {
            Error::Monitor { message, errno } => {
                assert_eq!(errno, Errno::ENOENT as i32);
                assert!(message.contains("/nonexistent/paddock"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(zygote.is_alive());
    let pid = Pid::from_raw(zygote.pid());
    drop(zygote);
    assert_eq!(
        kill(pid, None),
        Err(Errno::ESRCH),
        "ended with its socket, and reaped"
    );
}

fn a_killed_zygote_is_noticed_and_replaced() {
    let zygote = Zygote::spawn().unwrap();
    assert!(zygote.is_alive());
    kill(Pid::from_raw(zygote.pid()), Signal::SIGKILL).unwrap();
    let error = zygote.launch(&hopeless()).unwrap_err();
    assert!(matches!(error, Error::Died), "{error:?}");
    // Its descriptors close some way before its end shows.
    poll(
        &mut [PollFd::new(zygote.pidfd(), PollFlags::POLLIN)],
        5_000_u16,
    )
    .unwrap();
    assert!(!zygote.is_alive());
    drop(zygote);
    assert_eq!(waitpid(None, None), Err(Errno::ECHILD));
    Zygote::spawn().unwrap().launch(&hopeless()).unwrap_err();
}
