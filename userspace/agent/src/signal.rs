//! Signals by name and number, as docker reads them: `9`, `KILL`, `SIGKILL`, `RTMIN+3`.

use nix::sys::signal::Signal;

/// The first and last real-time signal that the C library leaves to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal's number.
pub fn parse(text: &str) -> Result<i32, String> {
    let known = |number: &i32| (1..=RTMAX).contains(number);
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(known).ok_or_else(|| unknown(text));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time(name) {
        return Ok(number);
    }
    let named = format!("SIG{name}").parse::<Signal>();
    named.map(|signal| signal as i32).map_err(|_| unknown(text))
}

/// `RTMIN`, `RTMIN+n`, `RTMAX`, `RTMAX-n`.
fn real_time(name: &str) -> Option<i32> {
    let (base, rest, sign) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (RTMIN, rest, '+')
    } else {
        (RTMAX, name.strip_prefix("RTMAX")?, '-')
    };
    if rest.is_empty() {
        return Some(base);
    }
    let digits = rest.strip_prefix(sign)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let step: i32 = digits.parse().ok()?;
    let number = if sign == '+' {
        base + step
    } else {
        base - step
    };
    Some(number).filter(|number| (RTMIN..=RTMAX).contains(number))
}

fn unknown(text: &str) -> String {
    format!("no signal is called '{text}' (such as TERM, SIGKILL, RTMIN+1 or 9)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for text in ["9", "KILL", "SIGKILL", "kill", "sigkill"] {
            assert_eq!(parse(text), Ok(9), "{text}");
        }
        let real_time = ["RTMIN", "sigrtmin+3", "SIGRTMAX-1", "RTMAX", "64"];
        assert_eq!(real_time.map(parse), [34, 37, 63, 64, 64].map(Ok));
        for text in [
            "",
            "0",
            "-1",
            "65",
            "NOPE",
            "SIG",
            "RTMIN+",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN++1",
            "SIGSIGKILL",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
