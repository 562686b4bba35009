//! Records, keys and enums shared by the kernel half and user space.
//!
//! Everything here is `repr(C)` with explicit padding and plain integers: a value that
//! crosses the kernel boundary has no invalid bit pattern. Sizes are asserted beside each.
//! Kernel floor: none, these are only layouts.
#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod activity;
pub mod admission;
pub mod counters;
pub mod guard;
pub mod key;
pub mod namespace;
pub mod network;
pub mod path;
#[cfg(feature = "user")]
mod pod;
pub mod policy;
pub mod question;
pub mod record;
