//! Whole-program scenarios: the same sources run on this host and in guests.
//!
//! A scenario is a function that gets a fresh folder and drives the static binary; its truth
//! comes from elsewhere: procfs, cgroup files, strace. Whatever it leaves behind fails it.
#![forbid(unsafe_code)]

pub mod context;
pub mod demo;
pub mod leaks;
pub mod paddock;
pub mod process;
pub mod runner;
pub mod scenarios;

pub use context::Ctx;
pub use paddock::{Agent, Paddock};
pub use process::{Output, Running};
pub use runner::Scenario;
