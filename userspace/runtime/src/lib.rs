//! Launch workloads: zygote, monitor, plan. Knows nothing of eBPF.
#![deny(unsafe_code)]
pub mod client;
pub mod defaults;
pub mod protocol;
pub mod record;
pub mod spec;
pub mod zygote;
