//! The Debian package in a guest with systemd: what an operator does with it, in that order, each
//! step on what the last one left. Witnesses are dpkg, systemd, procfs, cgroupfs, the kernel's log.
//!
//! Run by `cargo xtask test`, in a guest that is thrown away; it changes the machine it runs on.

mod host;
mod steps;

use crate::runner::Step;

pub const STEPS: &[Step] = &[
    ("install::quick_start_in_two_minutes", steps::quick_start),
    ("install::the_unit_is_as_it_says", steps::unit),
    ("install::a_reload_changes_what_it_may", steps::reload),
    (
        "install::enforcement_outlives_kills_and_restarts",
        steps::kills,
    ),
    ("install::an_upgrade_ends_nothing", steps::upgrade),
    ("install::removal_leaves_the_operators_files", steps::remove),
    ("install::purge_leaves_nothing", steps::purge),
];
