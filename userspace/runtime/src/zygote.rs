//! The zygote's client side: what the agent holds.

use crate::spec::LaunchSpec;

/// A running zygote: `paddock` executed again from a sealed memfd, single-threaded.
#[derive(Debug)]
pub struct Zygote {}

impl Zygote {
    /// Starts one; the caller's `main` must route [`crate::zygote::ARGV0`] to [`serve`].
    pub fn spawn() -> Result<Self, Error> {
        todo!()
    }
    pub fn pid(&self) -> i32 {
        todo!()
    }
    /// Forks a monitor for `spec`, which binds `DIR/monitor.sock` before this returns its pid.
    /// Blocking, some milliseconds; callers on tokio use `spawn_blocking`.
    pub fn launch(&self, spec: &LaunchSpec) -> Result<i32, Error> {
        let _ = spec;
        todo!()
    }
}

/// `argv[0]` of a zygote.
pub const ARGV0: &str = "paddock-zygote";

/// The zygote's whole life: serves requests on fd 3 until its end of file.
pub fn serve() -> ! {
    todo!()
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("zygote: {op}")]
    Io {
        op: &'static str,
        #[source]
        source: std::io::Error,
    },
}
