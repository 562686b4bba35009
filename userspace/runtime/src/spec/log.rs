//! How much output is kept.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// Bounds of `log.jsonl` and its older files `log.jsonl.1`, `.2`…
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes at which a file is rotated.
    pub max_size: u64,
    /// Files kept, the newest included; at least 1.
    pub max_files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            max_size: 10 << 20,
            max_files: 2,
        }
    }
}
