//! What keeps a program attached.
//!
//! A link can be pinned, so that the program outlives the loader. Before Linux 5.15 a plain
//! tracepoint has none: the program hangs there by an open perf event, and so only as long as
//! the loader lives. A successor hangs the pinned program up again.

use aya::programs::{
    ProgramError, TracePoint,
    links::{FdLink, PinnedLink},
    trace_point::TracePointLink,
};
use serde::{Deserialize, Serialize};

use crate::{Error, pins, tracefs};

/// What `paddock check` says of a rung that uses one.
pub(crate) const CAVEAT: &str =
    "not while no agent runs: before Linux 5.15 the link of a plain tracepoint cannot be pinned";

/// What keeps a program that was just loaded.
pub(crate) enum Attachment {
    Link(FdLink),
    Held(TracePointLink, Place),
    /// To nothing: it is run by its pin.
    Called,
    /// Nothing: it is attached when it is wanted.
    Waits,
    /// Nothing, and it is not loaded: so is it when it is wanted.
    Late,
}

/// Where a program hangs that nothing but its holder keeps there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) category: String,
    pub(crate) name: String,
}

/// The same as the probe keeps it.
#[derive(Debug)]
#[expect(dead_code, reason = "they detach when they are dropped")]
pub(crate) enum Kept {
    Pinned(PinnedLink),
    Held(TracePointLink),
}

/// By a link where the kernel has one for tracepoints.
pub(crate) fn to_tracepoint(
    program: &mut TracePoint,
    category: &str,
    name: &str,
) -> Result<Attachment, ProgramError> {
    let link = hang(program, category, name)?;
    if let Ok(link) = FdLink::try_from(link) {
        return Ok(Attachment::Link(link));
    }
    // Asking took it down.
    let place = Place {
        category: category.to_owned(),
        name: name.to_owned(),
    };
    hang(program, category, name).map(|link| Attachment::Held(link, place))
}

/// What a dead predecessor held, by its pinned program.
pub(crate) fn again(
    pin_dir: &std::path::Path,
    program: &str,
    place: &Place,
) -> Result<Kept, Error> {
    let path = pins::program_path(pin_dir, program);
    let hung = TracePoint::from_pin(&path)
        .and_then(|mut program| hang(&mut program, &place.category, &place.name));
    hung.map(Kept::Held).map_err(|source| Error::Program {
        path,
        source: Box::new(source),
    })
}

fn hang(
    program: &mut TracePoint,
    category: &str,
    name: &str,
) -> Result<TracePointLink, ProgramError> {
    let id = tracefs::with_tracefs(|| program.attach(category, name))
        .map_err(ProgramError::IOError)??;
    program.take_link(id)
}
