//! Numbers and times as people read them, and text made safe for a terminal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `64 MiB`, `1.5 GiB`; exact where a unit divides it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let whole = count >> shift;
        if whole == 0 {
            continue;
        }
        let tenth = ((count - (whole << shift)) * 10) >> shift;
        return if tenth == 0 {
            format!("{whole} {unit}")
        } else {
            format!("{whole}.{tenth} {unit}")
        };
    }
    format!("{count} B")
}

/// One unit is enough: `8s`, `3m`, `5h`, `12d`.
pub(crate) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Time since `at_ns` (nanoseconds since the epoch); a clock that went back gives 0.
pub(crate) fn since(now: SystemTime, at_ns: u64) -> Duration {
    now.duration_since(instant(at_ns)).unwrap_or_default()
}

/// `12:34:56.789`, UTC.
pub(crate) fn clock(at_ns: u64) -> String {
    let whole = humantime::format_rfc3339_millis(instant(at_ns)).to_string();
    whole.get(11..23).unwrap_or(&whole).to_owned()
}

fn instant(at_ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(at_ns)
}

/// A container chooses its processes' names and arguments, so they may hold escape sequences.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_reordering(character) {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Characters that change the order in which others are shown.
fn is_reordering(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// [`printable`], and line feeds become spaces: for messages.
pub(crate) fn single_line(text: &str) -> String {
    printable(&text.trim().replace('\n', " "))
}

/// One line as several of at most `width` characters where there are spaces to break it at; what
/// goes on stands two columns deeper than the beginning. `None` breaks nothing.
pub(crate) fn wrap(line: &str, width: Option<usize>) -> String {
    let text = line.trim_start();
    let indent = line.len() - text.len();
    let mut wrapped = " ".repeat(indent);
    let mut column = indent;
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        let breaks = width.is_some_and(|width| column + 1 + length > width);
        if index > 0 && breaks {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent + 2));
            column = indent + 2;
        } else if index > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped.push('\n');
    wrapped
}

/// A command as it could be typed: words with anything special are quoted.
pub(crate) fn command(words: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_alphanumeric() || "-_=+./:,@%^".contains(c))
    };
    let quoted = words.iter().map(|word| {
        if plain(word) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    printable(&quoted.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(bytes(4095), "3.9 KiB");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn spans() {
        let shown =
            [0, 59, 60, 3_599, 3_600, 172_799, 172_800].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(shown, ["0s", "59s", "1m", "59m", "1h", "47h", "2d"]);
    }

    #[test]
    fn clocks() {
        assert_eq!(clock(1_700_000_000_123_456_789), "22:13:20.123");
        assert_eq!(since(UNIX_EPOCH, 5), Duration::ZERO);
    }

    #[test]
    fn escape_sequences_do_not_pass() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(single_line("two\nlines\n"), "two lines");
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        assert_eq!(wrap("  a bc def", Some(6)), "  a bc\n    def\n");
        assert_eq!(wrap("  abcdefgh i", Some(4)), "  abcdefgh\n    i\n");
        assert_eq!(wrap("  a bc def", None), "  a bc def\n");
        assert_eq!(wrap("", Some(4)), "\n");
    }

    #[test]
    fn commands_are_quoted_where_needed() {
        let words = ["sh", "-c", "echo 'hi'"].map(str::to_owned);
        assert_eq!(command(&words), r"sh -c 'echo '\''hi'\'''");
    }
}
