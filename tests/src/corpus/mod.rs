//! The corpus: attacks on a container's walls, and twins that look like them and are none.
//!
//! Each case of `tests/corpus` is a small program or script, what it must say of itself (what
//! the kernel answered), and what paddock must say of it: neither less nor more. Nothing in it
//! reaches for what the test did not make: doors of the kernel's are opened and shut again.

mod case;
mod judge;
pub(crate) mod program;
mod run;
mod stage;
mod under_policy;

pub use case::{Case, Named, all};
pub use run::{Mode, run};
pub use under_policy::lift;
