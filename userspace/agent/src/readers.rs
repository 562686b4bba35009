//! Many containers read at once: some thirty files of each, which the kernel makes up when asked.

use std::{num::NonZero, panic, sync::Arc, thread};

use crate::container::Container;

/// Threads at most: a reading is not all that a host has to do.
const MOST: usize = 4;
/// Containers for a thread, at least; a thread costs what half of one does.
const LEAST_EACH: usize = 16;

/// What `read` makes of each, in their order; on several processors where there is enough for
/// each to be worth its thread. Blocking.
pub(crate) fn of_each<T: Send>(
    containers: &[Arc<Container>],
    read: impl Fn(&Arc<Container>) -> T + Sync,
) -> Vec<T> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let each = containers.len().div_ceil(processors.min(MOST));
    let mut parts = containers.chunks(each.max(LEAST_EACH));
    let own = parts.next().unwrap_or_default();
    let read = &read;
    thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().map(read).collect::<Vec<_>>()))
            .collect();
        let mut all: Vec<T> = own.iter().map(read).collect();
        for other in others {
            match other.join() {
                Ok(more) => all.extend(more),
                Err(payload) => panic::resume_unwind(payload),
            }
        }
        all
    })
}
