//! What a half-made thing needs to be unmade: steps run in reverse unless all went well.

type Step<'a> = Box<dyn FnOnce() + Send + 'a>;

#[derive(Default)]
pub(super) struct Undo<'a>(Vec<Step<'a>>);

impl<'a> Undo<'a> {
    pub(super) fn push(&mut self, step: impl FnOnce() + Send + 'a) {
        self.0.push(Box::new(step));
    }

    /// All went well.
    pub(super) fn forget(mut self) {
        self.0.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.0.pop() {
            step();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn steps_run_last_first_or_not_at_all() {
        let done = Mutex::new(Vec::new());
        let fill = || {
            let mut undo = Undo::default();
            for number in [1, 2, 3] {
                let done = &done;
                undo.push(move || done.lock().unwrap().push(number));
            }
            undo
        };
        fill().forget();
        assert!(done.lock().unwrap().is_empty());
        drop(fill());
        assert_eq!(*done.lock().unwrap(), [3, 2, 1]);
    }
}
