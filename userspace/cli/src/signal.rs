//! Signals by name and number, as `kill -s` and the workload's exit record mean them.

use nix::sys::signal::Signal;

/// `9`, `KILL`, `SIGKILL`, `kill`.
pub(crate) fn parse(text: &str) -> Result<Signal, String> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| unknown(text));
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    name.parse().map_err(|_| unknown(text))
}

fn unknown(text: &str) -> String {
    format!("no signal is called '{text}' (such as TERM, SIGKILL or 9)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["9", "KILL", "SIGKILL", "kill", "sigkill"] {
            assert_eq!(parse(text), Ok(Signal::SIGKILL), "{text}");
        }
        assert!(parse("0").is_err() && parse("NOPE").is_err() && parse("").is_err());
    }
}
