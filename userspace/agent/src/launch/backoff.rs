//! Whether a run is followed by another, and when: moby's rules.
//!
//! 100 ms at first, doubled each time up to a minute; a run of 10 s or more begins anew
//! (<https://github.com/moby/moby/blob/v28.0.0/restartmanager/restartmanager.go>).

use std::time::Duration;

use crate::life::RestartPolicy;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_mins(1);
/// A run that lasted so long was none that failed to start.
const LASTED: Duration = Duration::from_secs(10);

/// Restarts of a container since somebody started it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) restarts: u32,
    /// The last pause; zero before the first.
    pub(crate) pause: Duration,
    /// A user stopped or killed it.
    pub(crate) stopped: bool,
}

impl Backoff {
    /// The pause before the next run; `None`: there is none.
    pub(super) fn after(
        &mut self,
        policy: RestartPolicy,
        exit_code: i32,
        lasted: Duration,
    ) -> Option<Duration> {
        let again = !self.stopped
            && match policy {
                RestartPolicy::No => false,
                RestartPolicy::OnFailure { max } => {
                    exit_code != 0 && (max == 0 || self.restarts < max)
                }
                RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            };
        if !again {
            return None;
        }
        self.pause = if self.pause.is_zero() || lasted >= LASTED {
            FIRST
        } else {
            (self.pause * 2).min(LONGEST)
        };
        self.restarts += 1;
        Some(self.pause)
    }

    /// Whether an agent that starts runs it again, and at once.
    pub(super) fn with_the_agent(self, policy: RestartPolicy) -> bool {
        match policy {
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !self.stopped,
            RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(9);

    fn pauses(policy: RestartPolicy, exit_code: i32, lasted: Duration) -> Vec<u128> {
        let mut backoff = Backoff::default();
        let pauses = (0..12).map_while(|_| backoff.after(policy, exit_code, lasted));
        pauses.map(|pause| pause.as_millis()).collect()
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses = pauses(RestartPolicy::Always, 0, SHORT);
        assert_eq!(
            pauses,
            [
                100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
    }

    #[test]
    fn a_long_run_begins_anew() {
        assert_eq!(pauses(RestartPolicy::UnlessStopped, 1, LASTED), [100; 12]);
        let mut backoff = Backoff::default();
        for lasted in [SHORT, SHORT, LASTED, SHORT] {
            backoff.after(RestartPolicy::Always, 1, lasted);
        }
        assert_eq!((backoff.pause.as_millis(), backoff.restarts), (200, 4));
    }

    #[test]
    fn policies_differ_by_exit_code_and_count() {
        assert!(pauses(RestartPolicy::No, 1, SHORT).is_empty());
        assert!(pauses(RestartPolicy::OnFailure { max: 0 }, 0, SHORT).is_empty());
        assert_eq!(
            pauses(RestartPolicy::OnFailure { max: 3 }, 1, SHORT).len(),
            3
        );
        assert_eq!(
            pauses(RestartPolicy::OnFailure { max: 0 }, 137, SHORT).len(),
            12
        );
    }

    #[test]
    fn what_a_user_stopped_stays_so_until_an_agent_starts() {
        let mut backoff = Backoff {
            stopped: true,
            ..Backoff::default()
        };
        let all = [
            RestartPolicy::Always,
            RestartPolicy::UnlessStopped,
            RestartPolicy::OnFailure { max: 0 },
        ];
        let after = all.map(|policy| backoff.after(policy, 1, SHORT));
        assert_eq!(after, [None; 3]);
        let later = all.map(|policy| backoff.with_the_agent(policy));
        assert_eq!(later, [true, false, false]);
        backoff.stopped = false;
        assert!(backoff.with_the_agent(RestartPolicy::UnlessStopped));
    }
}
