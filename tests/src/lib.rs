//! Whole-program scenarios: the same sources run on this host and in guests.
#![forbid(unsafe_code)]

pub mod demo;
