//! All scenarios, a file for each part of the house.

mod cgroups;

use crate::Scenario;

/// In the order in which they run: what the others rest on first.
pub fn all() -> Vec<Scenario> {
    [cgroups::SCENARIOS].concat()
}
