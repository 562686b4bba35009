//! A stretch in which no ordinary task takes the processor from the calling thread.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use crate::sys::task;

/// The lowest there is: above every ordinary task, below all that is real time on the host.
const PRIORITY: i32 = 1;

/// Ends when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Uninterrupted {
    /// The policy to go back to; none where there was nothing to change.
    before: Option<i32>,
    /// It is this thread's.
    thread: PhantomData<*const ()>,
}

impl Uninterrupted {
    /// Where the kernel refuses (a v1 `cpu` cgroup without real-time share), the stretch is one
    /// like any other.
    pub fn begin() -> Self {
        let before = task::policy()
            .ok()
            .filter(|policy| matches!(*policy, libc::SCHED_OTHER | libc::SCHED_BATCH))
            .filter(|_| {
                let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
                task::set_policy(policy, PRIORITY).is_ok()
            });
        Self {
            before,
            thread: PhantomData,
        }
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        if let Some(policy) = self.before {
            // To a policy that needs no privilege.
            let _ = task::set_policy(policy, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Uninterrupted;
    use crate::sys::task;

    /// Where the kernel lets this thread; else it stays as it was.
    #[test]
    fn of_real_time_and_back() {
        const FIFO: i32 = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        let before = task::policy();
        let allowed = task::set_policy(FIFO, super::PRIORITY).is_ok();
        if allowed {
            task::set_policy(before.unwrap(), 0).unwrap();
        }
        let stretch = Uninterrupted::begin();
        let within = task::policy();
        assert_eq!(within, if allowed { Ok(FIFO) } else { before });
        drop(Uninterrupted::begin());
        assert_eq!(task::policy(), within, "one within another ends nothing");
        drop(stretch);
        assert_eq!(task::policy(), before);
    }
}
