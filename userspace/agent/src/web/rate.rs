//! `rate_limit`: a token an interval, `burst` of them at most, one for each request.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Wrong, settings::RateLimit, wrong};

#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    burst: u32,
    /// How many were there, and when.
    tokens: Mutex<(f64, Instant)>,
}

impl Bucket {
    /// `None`: no limit.
    pub(super) fn new(limit: &RateLimit) -> Result<Option<Self>, Wrong> {
        let interval = limit.interval.as_deref().unwrap_or("0s");
        let interval = match interval {
            "0" => Duration::ZERO,
            text => humantime::parse_duration(text).map_err(|_| {
                let what = format!(
                    "{} is no duration: write such as 100ms",
                    super::quoted(text)
                );
                wrong("interval", what)
            })?,
        };
        if interval.is_zero() {
            return Ok(None);
        }
        let burst = limit.burst.unwrap_or(0);
        if burst == 0 {
            return Err(wrong("burst", "lets nobody in: write 1 or more"));
        }
        Ok(Some(Self {
            interval,
            burst,
            tokens: Mutex::new((f64::from(burst), Instant::now())),
        }))
    }

    pub(super) fn take(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = now.saturating_duration_since(tokens.1);
        let grown = since.as_secs_f64() / self.interval.as_secs_f64();
        let there = (tokens.0 + grown).min(f64::from(self.burst));
        let taken = there >= 1.0;
        *tokens = (if taken { there - 1.0 } else { there }, now);
        taken
    }
}
