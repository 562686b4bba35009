//! A store filled beforehand, by the writer's own code: for `cargo xtask bench events` alone.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    file,
    unsaved::BATCH,
    write::{Batch, Table},
};
use crate::{chain::chain, event::Event, instance};

/// Stores these, whose ids grow, for the agent of a state directory. Fails with a line.
#[doc(hidden)]
pub fn fill(
    data_dir: &Path,
    state_dir: &Path,
    events: impl Iterator<Item = Event>,
) -> Result<(), String> {
    let name = instance::name(state_dir).map_err(|error| chain(&error))?;
    let path = file::path(data_dir, &name);
    let mut opened = file::open(&path, 0).map_err(|error| chain(&error))?;
    let mut table = Table::default();
    let mut batch = Vec::new();
    let mut events = events.peekable();
    while let Some(event) = events.next() {
        let next = event.id + 1;
        batch.push(Arc::new(event));
        if batch.len() == BATCH || events.peek().is_none() {
            table
                .write(
                    &mut opened.connection,
                    &Batch {
                        events: &batch,
                        holes: &[],
                        cursors: &BTreeMap::new(),
                        next,
                    },
                )
                .map_err(|error| chain(&error))?;
            batch.clear();
        }
    }
    Ok(())
}
