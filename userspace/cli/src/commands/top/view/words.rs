//! Numbers and names as `top`'s narrow columns have them.

use std::time::SystemTime;

use paddock_agent::api::{Origin, State};
use ratatui::text::Span;

use super::super::row::{Row, float};
use crate::human;

/// At most five columns: `64M`, `1.5G`, `999K`, `12`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut value = float(bytes);
    let mut unit = ' ';
    for next in UNITS {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 99.95 && value.fract() >= 0.05 && value.fract() < 0.95 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

/// At most four columns: `0.0`, `12.3`, `100`, `6400`.
pub(super) fn percent(value: f64) -> String {
    if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{:.0}", value.min(9999.0))
    }
}

pub(super) fn hundredths(value: Option<u32>) -> String {
    or_none(value, |value| percent(f64::from(value) / 100.0))
}

pub(super) fn rate(value: Option<f64>) -> String {
    or_none(value, |value| size(super::super::model::whole(value)))
}

pub(super) fn or_none<T>(value: Option<T>, say: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), say)
}

/// `up 3m`, `found 2h`, `paused`, `exit 137`, `OOM 137`.
pub(super) fn status(row: &Row, now: SystemTime) -> String {
    let up = row
        .started_at_ns
        .map_or_else(String::new, |at| human::duration(human::since(now, at)));
    match (row.state, row.origin) {
        (State::Running, Origin::Launched) => format!("up {up}"),
        (State::Running, Origin::Found) => format!("found {up}"),
        (State::Paused, _) => "paused".to_owned(),
        (State::Created, _) => "created".to_owned(),
        (State::Restarting, _) => "restarting".to_owned(),
        (State::Exited, _) => {
            let how = if row.oom_killed { "OOM" } else { "exit" };
            let code = row.exit_code;
            format!(
                "{how} {}",
                code.map_or_else(|| "?".to_owned(), |code| code.to_string())
            )
        }
    }
}

/// At most so many cells of the terminal, with `…` for what is missing.
pub(super) fn fit(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut taken = 0;
    for letter in text.chars() {
        let cells = Span::raw(letter.to_string()).width();
        if taken + cells + 1 > width {
            break;
        }
        taken += cells;
        cut.push(letter);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_to_their_columns() {
        for (bytes, want) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1K"),
            (1_048_000, "1023K"),
            (1_048_575, "1M"),
            (64 << 20, "64M"),
            (1_610_612_736, "1.5G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(size(bytes), want, "{bytes}");
        }
        for exponent in 0..64 {
            for bytes in [1_u64 << exponent, (1 << exponent) - 1, 3 << (exponent / 2)] {
                assert!(size(bytes).len() <= 5, "{bytes}: {}", size(bytes));
            }
        }
        assert_eq!(
            [0.0, 12.34, 99.96, 6400.0].map(percent),
            ["0.0", "12.3", "100", "6400"]
        );
    }

    #[test]
    fn text_is_cut_by_cells() {
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("ab", 0), "");
    }
}
