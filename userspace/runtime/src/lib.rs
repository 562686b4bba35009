//! Launch workloads: zygote, monitor, plan. Knows nothing of eBPF.
pub mod protocol;
pub mod record;
pub mod spec;
pub mod zygote;
