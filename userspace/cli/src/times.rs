//! Points in time as docker's `--since` and `--until` take them: `2026-01-02T15:04:05Z` (also
//! with an offset, without a zone, or only the day), seconds since the epoch, or a time ago
//! such as `10m`. Without a zone it is UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let since_epoch = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_nanos()).ok()
    };
    seconds(text)
        .or_else(|| since_epoch(SystemTime::now().checked_sub(ago(text)?)?))
        .or_else(|| since_epoch(date(text)?))
        .ok_or_else(|| {
            "expected a time such as 2026-01-02T15:04:05Z, seconds since 1970, or a time ago such as 10m"
                .to_owned()
        })
}

/// `1136073845` or `1136073845.000000001`.
fn seconds(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 {
        return None;
    }
    let nanos: u64 = format!("{part:0<9}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)
}

/// `10m`, `1h30m`.
fn ago(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

fn date(text: &str) -> Option<SystemTime> {
    if text.len() == "2026-01-02".len() {
        return humantime::parse_rfc3339_weak(&format!("{text}T00:00:00Z")).ok();
    }
    let Some((local, offset)) = split_offset(text) else {
        return humantime::parse_rfc3339_weak(text).ok();
    };
    let local = humantime::parse_rfc3339_weak(local).ok()?;
    let (east, hours, minutes) = offset;
    let span = Duration::from_secs(hours * 3600 + minutes * 60);
    if east {
        local.checked_sub(span)
    } else {
        local.checked_add(span)
    }
}

/// `+02:00` at the end: whether east of Greenwich, hours, minutes.
fn split_offset(text: &str) -> Option<(&str, (bool, u64, u64))> {
    let at = text.len().checked_sub("+02:00".len())?;
    let (local, offset) = (text.get(..at)?, text.get(at..)?);
    let east = offset.starts_with('+');
    let (hours, minutes) = offset.strip_prefix(['+', '-'])?.split_once(':')?;
    let number = |text: &str, most: u64| text.parse().ok().filter(|number| *number <= most);
    Some((local, (east, number(hours, 23)?, number(minutes, 59)?))).filter(|_| local.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dockers() {
        let ns = 1_000_000_000;
        for (text, want) in [
            ("1136073845", 1_136_073_845 * ns),
            ("1136073845.5", 1_136_073_845 * ns + ns / 2),
            ("2006-01-02T15:04:05Z", 1_136_214_245 * ns),
            ("2006-01-02T15:04:05", 1_136_214_245 * ns),
            ("2006-01-02T15:04:05.25Z", 1_136_214_245 * ns + ns / 4),
            ("2006-01-02T17:04:05+02:00", 1_136_214_245 * ns),
            ("2006-01-02T08:34:05-06:30", 1_136_214_245 * ns),
            ("2006-01-02", 1_136_160_000 * ns),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = u64::try_from(now.as_nanos()).unwrap();
        let ago = now - parse("1h30m").unwrap();
        assert!((5_399 * ns..=5_401 * ns).contains(&ago), "{ago}");
        for wrong in ["", "yesterday", "12:30", "2006-13-02", "1.2.3", "-5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
