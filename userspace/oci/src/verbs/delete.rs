//! `delete`: processes, cgroup if there is one, poststop hooks, the directory; in this order.

use std::{fs, path::Path};

use paddock_cgroups::Cgroup;

use crate::{
    args::Delete,
    container::{self, Container, Status},
    error::Error,
    hooks::{self, Hooks},
    log::Log,
};

pub(super) fn verb(root: &Path, wanted: &Delete, log: &Log) -> Result<(), Error> {
    let container = match Container::open(root, &wanted.id) {
        Ok(container) => container,
        Err(error) => return absent(root, wanted, error),
    };
    let status = container.status();
    let over = matches!(status, Status::Stopped | Status::Created);
    if !over && !wanted.force {
        return Err(Error::Status {
            verb: "delete",
            id: wanted.id.clone(),
            status: status.word(),
        });
    }
    delete(container, log)
}

/// A runtime that was killed before it had written a record leaves a directory and no more.
fn absent(root: &Path, wanted: &Delete, error: Error) -> Result<(), Error> {
    match container::broken(root, &wanted.id)? {
        Some(directory) if wanted.force => {
            fs::remove_dir_all(&directory).map_err(Error::io("remove", directory))
        }
        None if wanted.force && matches!(error, Error::NotFound { .. }) => Ok(()),
        _ => Err(error),
    }
}

pub(super) fn delete(container: Container, log: &Log) -> Result<(), Error> {
    match container.record.open_cgroup() {
        Ok(Some(cgroup)) => remove_cgroup(&cgroup, container.record.own_parents)?,
        Ok(None) => container.end()?,
        Err(Error::Cgroup(paddock_cgroups::Error::NotFound { .. })) => {}
        Err(error) => return Err(error),
    }
    let state = container::state(&container.record, Status::Stopped).to_string();
    let hooks = container
        .config()
        .and_then(|config| Hooks::new(config.hooks().as_ref()))
        .and_then(|hooks| {
            hooks::run(
                "poststop",
                &hooks.poststop,
                &container.record.bundle,
                &state,
            )
        });
    if let Err(error) = hooks {
        // The specification: log it, and go on.
        log.warn(&error.line());
    }
    container.forget()
}

pub(super) fn remove_cgroup(cgroup: &Cgroup, own_parents: bool) -> Result<(), Error> {
    cgroup.kill()?;
    if own_parents {
        cgroup.remove()?;
    } else {
        cgroup.remove_alone()?;
    }
    Ok(())
}
