//! Containers that paddock launches: made, started, watched, ended, removed.
//!
//! Each has a monitor process that outlives the agent; the agent is one of its clients. So
//! everything here can be picked up again by another agent from the container's directory.

mod again;
mod backoff;
mod change;
mod control;
mod create;
mod devices;
mod end;
mod etc;
mod exec;
mod files;
mod image;
mod keeper;
mod link;
mod logs;
mod network;
mod ready;
mod reconcile;
mod remap;
mod request;
mod restore;
mod seccomp;
mod sharing;
mod sysctl;
mod undo;
mod watch;

use std::{io, path::PathBuf};

use paddock_runtime::{apparmor, client, record::Failed, zygote};

pub(crate) use self::{
    backoff::Backoff,
    change::{end_found, hold, pause, unpause, update},
    control::{Stop, kill, prepare, remove, restart, settled, start, stop, wait},
    create::create,
    end::release_slot,
    exec::exec,
    keeper::{Keeper, keep},
    link::Link,
    logs::stream as logs,
    network::networks,
    reconcile::{clean_exited, reconcile},
    restore::{Restorer, keep_limits},
    seccomp::Filters,
};
use crate::{kernel::EnrolError, registry};

/// Why a request about a container was not carried out. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The caller's input.
    #[error("{message}")]
    Invalid { message: String },
    #[error(transparent)]
    AppArmor(#[from] apparmor::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// Not in this state.
    #[error("{message}")]
    State { message: String },
    #[error(transparent)]
    Cgroup(#[from] paddock_cgroups::Error),
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error(transparent)]
    Policy(#[from] crate::policies::Error),
    #[error(transparent)]
    Image(#[from] paddock_images::Error),
    #[error(transparent)]
    Zygote(#[from] zygote::Error),
    #[error(transparent)]
    Network(#[from] paddock_runtime::network::Error),
    #[error(transparent)]
    Monitor(#[from] client::Error),
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", failed.explain(name, program))]
    Failed {
        name: String,
        program: String,
        failed: Failed,
    },
    #[error("{name}: out of memory during set-up: its --memory limit is too low to start in")]
    TooLittleMemory { name: String },
    #[error("{name}: its limits are as they were")]
    NotUpdated {
        name: String,
        #[source]
        source: paddock_cgroups::Error,
    },
    #[error("the agent is ending")]
    Ending,
    #[error("{what} did not happen within {seconds} s")]
    Timeout { what: String, seconds: u64 },
}

impl Error {
    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
        }
    }

    fn state(message: impl Into<String>) -> Self {
        Self::State {
            message: message.into(),
        }
    }

    fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { op, path, source }
    }
}
