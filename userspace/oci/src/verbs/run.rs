//! `run`: create and start, then either leave or wait and delete.

use std::path::Path;

use super::{create, delete, foreground, start};
use crate::{
    args::{CgroupManager, Run},
    container::Container,
    error::Error,
    log::Log,
};

pub(super) fn verb(
    root: &Path,
    wanted: &Run,
    manager: CgroupManager,
    log: &Log,
) -> Result<u8, Error> {
    let mut signals = if wanted.detach {
        None
    } else {
        Some(foreground::Signals::hold()?)
    };
    let (container, launched) = create::create(root, &wanted.create, manager, log, !wanted.detach)?;
    if let Err(error) = start::start(&container, log) {
        launched.kill();
        if let Err(error) = delete::delete(container, log) {
            log.warn(&error.line());
        }
        return Err(error);
    }
    // Others may look at it, and delete it, while it runs.
    drop(container);
    let Some(signals) = &mut signals else {
        return Ok(0);
    };
    let code = foreground::wait(&launched, signals)?;
    if !wanted.keep {
        match Container::open(root, &wanted.create.id) {
            Ok(container) => delete::delete(container, log)?,
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}
