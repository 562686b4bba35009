//! Each case of `tests/corpus` is a scenario of its own, so that a verdict that is missing or
//! false has a name; and another one under a policy that forbids escapes.

use crate::{
    corpus::{self, Mode},
    runner::Scenario,
};

pub fn all() -> Vec<Scenario> {
    let scenarios = |one: &'static corpus::Named| {
        [
            Scenario::of_case(&one.name, &one.case, Mode::Audit),
            Scenario::of_case(&one.enforced, &one.case, Mode::Enforce),
        ]
    };
    corpus::all().iter().flat_map(scenarios).collect()
}
