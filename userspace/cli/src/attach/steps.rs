//! What was done for a container, a line each: `run --trace-steps`.

use paddock_runtime::trace::Traced;

/// Microseconds since it was begun, the step, and its calls. Nothing where nobody asked.
pub(super) fn table(steps: &[Traced]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let width = steps.iter().map(|step| step.what.len()).max().unwrap_or(0);
    let line = |step: &Traced| format!("{:>8}  {:width$}  {}\n", step.at_us, step.what, step.how);
    let heading = format!("{:>8}  {:width$}  {}\n", "US", "STEP", "CALLS");
    std::iter::once(heading)
        .chain(steps.iter().map(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_is_nothing() {
        let step = |at_us, what: &str, how: &str| Traced {
            at_us,
            what: what.into(),
            how: how.into(),
        };
        let steps = [step(7, "clone", "clone3()"), step(1200, "id map", "0 0 1")];
        assert_eq!(
            table(&steps),
            "      US  STEP    CALLS\n       7  clone   clone3()\n    1200  id map  0 0 1\n"
        );
        assert_eq!(table(&[]), "");
    }
}
