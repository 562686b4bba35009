//! Launch workloads: zygote, monitor, plan. Knows nothing of eBPF.
//!
//! The agent holds a [`zygote::Zygote`]; `launch` forks a monitor, which waits on its socket
//! for `Start` ([`client`], [`protocol`]), computes the plan, clones, and stays the workload's
//! parent until its end ([`record`]). Kernels from 5.10. Whatever fails leaves no mount, no
//! cgroup and no process, and is told with step, errno, path and exit code. [`direct`] is the
//! same launch without zygote and monitor, for an OCI runtime.
#![deny(unsafe_code)]
pub mod apparmor;
pub mod client;
pub mod defaults;
pub mod direct;
pub mod disk;
mod listener;
mod monitor;
pub mod net_devices;
pub mod network;
mod plan;
pub mod protocol;
pub mod record;
pub mod sealed;
pub mod spec;
mod sys;
pub mod trace;
pub mod uninterrupted;
pub mod zygote;

pub use sys::heap::give_back;
