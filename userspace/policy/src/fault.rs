//! What is wrong in a file, with its place, as one line each.
//!
//! The words of a file may be anybody's, so that what would move a terminal's cursor or turn
//! its text around is escaped, and a long word is cut.

use std::fmt;

/// So many are told; who mends those is told the next.
const MOST: usize = 100;
/// So many characters of a word are quoted.
const QUOTED: usize = 60;

/// One line's worth of what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// Why a file is no policy: at least one fault, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// `FILE:LINE:COLUMN: what`, a line each.
    #[must_use]
    pub fn lines(&self, file: &str) -> String {
        let file = printable(file);
        let line = |fault: &Fault| format!("{file}:{fault}\n");
        self.0.iter().map(line).collect()
    }
}

/// Line and column of a byte, from 1, in characters.
#[must_use]
pub fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[start..].chars().count() + 1)
}

/// Collects faults by their place in the text.
#[derive(Debug)]
pub(crate) struct Sink<'t> {
    text: &'t str,
    faults: Vec<(usize, String)>,
}

impl<'t> Sink<'t> {
    pub(crate) const fn new(text: &'t str) -> Self {
        Self {
            text,
            faults: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, at: usize, message: impl AsRef<str>) {
        if !self.is_full() {
            self.faults.push((at, printable(message.as_ref())));
        }
    }

    /// No further one would be told.
    pub(crate) const fn is_full(&self) -> bool {
        self.faults.len() > MOST
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Line and column of a byte.
    pub(crate) fn place(&self, at: usize) -> (usize, usize) {
        place(self.text, at)
    }

    pub(crate) fn into_faults(mut self) -> Faults {
        self.faults.sort_by_key(|(at, _)| *at);
        // A net of both families, or a list's items, may be wrong in the same way.
        self.faults.dedup();
        self.faults.truncate(MOST);
        let fault = |(at, message): &(usize, String)| {
            let (line, column) = self.place(*at);
            Fault {
                line,
                column,
                message: message.clone(),
            }
        };
        Faults(self.faults.iter().map(fault).collect())
    }
}

/// A word of the file in quotes.
#[must_use]
pub fn quote(word: &str) -> String {
    let mut characters = word.chars();
    let short: String = characters.by_ref().take(QUOTED).collect();
    let more = if characters.next().is_some() {
        "…"
    } else {
        ""
    };
    format!("'{short}{more}'")
}

/// ` did you mean 'this'?`, or all there are where they are few, or what `otherwise` says.
#[must_use]
pub fn suggestion<'a>(
    word: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    otherwise: &str,
) -> String {
    // Longer words are nobody's slip, and take long to compare.
    let short = word.chars().count() <= QUOTED;
    let lower = word.to_ascii_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase());
    let near = known
        .clone()
        .filter(|_| short)
        .map(|name| (distance(name), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4);
    if let Some((_, name)) = near {
        return format!("did you mean '{name}'?");
    }
    if known.clone().count() <= 12 {
        format!("use one of {}", known.collect::<Vec<_>>().join(", "))
    } else {
        otherwise.to_owned()
    }
}

/// Without what a terminal would obey.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        let reorders = matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        if character.is_control() || reorders || matches!(character, '\u{2028}' | '\u{2029}') {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}
