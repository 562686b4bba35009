//! The agent: registry, supervisor, event bus, API, metrics.
#![forbid(unsafe_code)]

pub mod api;
pub mod event;
pub mod life;
pub mod mount;
pub mod signal;

mod agent;
mod bus;
pub mod canary;
mod chain;
pub mod check;
mod clock;
mod container;
mod counters;
mod disk;
mod every;
mod fills;
#[cfg(test)]
mod fixture;
mod found;
mod guard;
mod instance;
mod kernel;
mod launch;
mod metrics;
mod namespaces;
mod naming;
pub mod ns;
mod oom;
mod options;
mod page;
mod policies;
mod rates;
mod readers;
mod readiness;
mod registry;
mod runtime_files;
mod server;
mod shared;
mod shipping;
mod store;
mod telling;
pub mod trusted;
mod web;
mod withheld;

pub use agent::{Error, run};
pub use instance::{AgentFile, cgroup_parent, delegated_base};
pub use options::{
    Cni, DEFAULT_LISTEN_ADDRESS, Guarding, Listen, Live, Options, ProbeMode, Reload,
};
pub use paddock_probe::RecordRate;
pub use shipping::Endpoint;
pub use store::{Bounds, fill};
