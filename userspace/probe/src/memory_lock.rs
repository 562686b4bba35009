//! Before Linux 5.11 the kernel charges maps and programs against RLIMIT_MEMLOCK, 64 KiB by default.
//!
//! Raised while the kernel half is loaded, where that is permitted, and put back: what this
//! process starts later must not inherit it.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Puts the limit back when it is dropped.
pub(crate) struct Raised(Option<(u64, u64)>);

/// Best effort: a kernel that charges nothing does not care, one that does says EPERM.
pub(crate) fn raise() -> Raised {
    let before = getrlimit(Resource::RLIMIT_MEMLOCK).ok();
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok();
    Raised(before.filter(|_| raised))
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some((soft, hard)) = self.0 {
            // Going down is always permitted.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard);
        }
    }
}
