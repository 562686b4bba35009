//! Each case of `tests/corpus` is a scenario of its own, so that a verdict that is missing or
//! false has a name.

use crate::{corpus, runner::Scenario};

pub fn all() -> Vec<Scenario> {
    let cases = corpus::all().iter();
    cases
        .map(|(name, case)| Scenario::of_case(name, case))
        .collect()
}
