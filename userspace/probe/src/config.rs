//! How to load.

use std::path::PathBuf;

/// How to load.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the instance's own bpffs (mounted here by `load` when it is not), holding pins.
    pub pin_dir: PathBuf,
    /// Tests force a lower rung: `(capability, rung)`.
    pub force: Vec<(String, String)>,
    /// Load the programs' own debug lines; without it they are verifier-dead code.
    pub program_log: bool,
}
