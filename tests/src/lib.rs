//! Whole-program scenarios: the same sources run on this host and in guests.
//!
//! A scenario drives the public command line and states its truth by another witness:
//! procfs, cgroup files, strace, a known count of events. See `scenarios/mod.rs` for the list.
#![forbid(unsafe_code)]

pub mod bench;
pub mod bundle;
pub mod chromium;
pub mod collector;
pub mod context;
pub mod corpus;
pub mod demo;
pub mod image;
pub mod install;
pub mod kernels;
pub mod launchers;
pub mod leaks;
pub mod load;
pub mod metrics;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod registry;
pub mod runner;
pub mod scenarios;
pub mod schemas;
pub mod terminal;
