//! The agent: registry, supervisor, event bus, API, metrics.
#![forbid(unsafe_code)]

pub mod api;
pub mod event;
