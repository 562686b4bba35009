//! The programs' own debug lines (aya-log), for developers: never the event path, lossy under load.

use std::fmt;

use aya_log::EbpfLogger;

/// Hands the lines to the `log` facade.
pub struct ProgramLog {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl ProgramLog {
    pub(crate) fn new(logger: EbpfLogger<&'static dyn log::Log>) -> Self {
        Self { logger }
    }

    /// Writes what has come since the last call; call it a few times a second.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}

impl fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramLog").finish_non_exhaustive()
    }
}
