//! Container networks by CNI 0.3 to 1.1: network lists, plugins, the chain of one attachment.
//!
//! [`Network::find`] reads a conflist, [`Attachment::add`] runs its plugins in order and
//! [`Attachment::delete`] in reverse. An attachment is what has to lie on disk between the two:
//! written down before the first plugin runs, it lets another process undo what was done, with
//! the configuration of then. Everything here blocks. Plugins are the operator's programs, but
//! what they print is not trusted: its size, its time and its form are bounded.
#![forbid(unsafe_code)]

mod attachment;
mod error;
#[cfg(test)]
mod fixture;
mod network;
mod plugin;
mod port;

pub use attachment::Attachment;
pub use error::Error;
pub use network::{Network, is_name};
pub use plugin::Plugins;
pub use port::{PortMapping, Protocol, parse as parse_port};
