//! `start`: connect to the socket that the container's first process waits on.

use std::{
    fs::{self, File},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
};

use nix::errno::Errno;
use paddock_runtime::{
    direct::{self, NotStarted},
    record::Failed,
};

use super::{create::through_descriptor, delete};
use crate::{
    container::{self, Container, Status},
    error::Error,
    hooks::{self, Hooks},
    log::Log,
};

const POSTSTART: &str = "poststart";

pub(super) fn verb(root: &Path, id: &str, log: &Log) -> Result<(), Error> {
    let container = Container::open(root, id)?;
    let started = start(&container, log);
    if matches!(
        started,
        Err(Error::Hook {
            kind: POSTSTART,
            ..
        })
    ) {
        delete::delete(container, log)?;
    }
    started
}

pub(super) fn start(container: &Container, log: &Log) -> Result<(), Error> {
    let id = &container.record.id;
    let status = container.status();
    if status != Status::Created {
        return Err(Error::Status {
            verb: "start",
            id: id.clone(),
            status: status.word(),
        });
    }
    let config = container.config()?;
    let socket = container.start_socket();
    let connection = connect(&socket).map_err(Error::io("connect to", &socket))?;
    fs::remove_file(&socket).map_err(Error::io("remove", &socket))?;
    direct::started(connection).map_err(|why| {
        let program = config
            .process()
            .as_ref()
            .and_then(|process| process.args().as_ref()?.first().cloned())
            .unwrap_or_default();
        explain(why, program)
    })?;
    let hooks = Hooks::new(config.hooks().as_ref())?;
    let state = container::state(&container.record, Status::Running).to_string();
    // Since 1.3 of the specification a failure here is the start's, and ends the container.
    hooks::run(
        POSTSTART,
        &hooks.poststart,
        &container.record.bundle,
        &state,
    )
    .inspect_err(|_| {
        if let Err(error) = container.end() {
            log.warn(&error.line());
        }
    })
}

fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let directory = File::open(path.parent().unwrap_or(path))?;
    let name = path.file_name().unwrap_or_default();
    UnixStream::connect(through_descriptor(directory.as_fd(), name.as_ref()))
}

fn explain(why: NotStarted, program: String) -> Error {
    match why {
        NotStarted::Exec(errno) => Error::Launch {
            failed: Failed {
                step: "exec".to_owned(),
                errno,
                path: Some(program.clone()),
                exit_code: if errno == Errno::ENOENT as i32 {
                    127
                } else {
                    126
                },
            },
            program,
        },
        NotStarted::Hook(errno) => Error::Hook {
            kind: "startContainer",
            path: "in the container".into(),
            why: if errno == Errno::ETIMEDOUT as i32 {
                "no end within its time".to_owned()
            } else {
                "failed".to_owned()
            },
        },
    }
}
