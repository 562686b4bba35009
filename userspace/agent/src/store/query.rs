//! What a reader wants, and how it is found: by the index that leaves the least to look at.
//!
//! Each way is one or more streams of ids in order, merged; what an index does not decide is a
//! condition on the columns that it covers.

use std::fmt::Write as _;

use super::schema::{signed, verdict_number, word_number};
use crate::event::{Event, Verdict, verdict_of};

/// Keys of containers that are looked up one by one; an id's beginning may fit more.
pub(super) const STREAMS: usize = 32;

/// Which events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) whose: Whose,
    /// Of [`crate::event::KINDS`]; empty: any.
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) since_ns: u64,
    pub(crate) until_ns: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Whose {
    #[default]
    All,
    Id(String),
    /// A name, an id, or an id's beginning, as the events themselves have it.
    Reference(String),
}

impl Wanted {
    pub(crate) fn wants(&self, event: &Event) -> bool {
        let whose = match &self.whose {
            Whose::All => true,
            Whose::Id(id) => event.container_id.as_ref() == Some(id),
            Whose::Reference(reference) => {
                let begins = |id: &String| id.starts_with(reference);
                event.container.as_ref() == Some(reference)
                    || event.container_id.as_ref().is_some_and(begins)
            }
        };
        let kind = self.kinds.is_empty() || self.kinds.contains(&event.kind.name());
        let judged = |verdict| self.verdicts.contains(&verdict);
        let verdict = self.verdicts.is_empty() || verdict_of(&event.kind).is_some_and(judged);
        let late = self.until_ns.is_some_and(|until| event.time_ns > until);
        whose && kind && verdict && event.time_ns >= self.since_ns && !late
    }

    /// Anything is left out but what is too old or too new.
    pub(crate) fn is_picky(&self) -> bool {
        !matches!(self.whose, Whose::All) || !self.kinds.is_empty() || !self.verdicts.is_empty()
    }

    /// Selects of ids, each in order, with `?1` before the first and `?2` the last; `keys`: of the
    /// containers that are meant, `None` for any.
    pub(super) fn selects(
        &self,
        keys: Option<&[i64]>,
        descending: bool,
        limit: usize,
    ) -> Vec<String> {
        let order = if descending { "DESC" } else { "ASC" };
        let mut common = String::new();
        if self.since_ns > 0 {
            let _ = write!(common, " AND time >= {}", signed(self.since_ns));
        }
        if let Some(until) = self.until_ns {
            let _ = write!(common, " AND time <= {}", signed(until));
        }
        let select = |index: &str, conditions: &str| {
            format!(
                "SELECT id FROM event{index} WHERE id > ?1 AND id <= ?2{conditions}{common} \
                 ORDER BY id {order} LIMIT {limit}"
            )
        };
        let kinds = list("kind", self.kinds.iter().map(|kind| word_number(kind)));
        let verdicts = list(
            "verdict",
            self.verdicts.iter().map(|one| verdict_number(*one)),
        );
        if let Some(keys) = keys {
            if keys.len() > STREAMS {
                let containers = list("container", keys.iter().copied());
                let conditions = format!("{containers}{kinds}{verdicts}");
                return vec![select(" NOT INDEXED", &conditions)];
            }
            return keys
                .iter()
                .map(|key| {
                    let conditions = format!(" AND container = {key}{kinds}{verdicts}");
                    select(" INDEXED BY by_container", &conditions)
                })
                .collect();
        }
        let judged = ["namespace_call", "activity"];
        if !self.verdicts.is_empty()
            && self
                .verdicts
                .iter()
                .all(|one| *one >= Verdict::EscapeAttempt)
        {
            // All of those are critical.
            let conditions = format!(" AND critical = 1{kinds}{verdicts}");
            return vec![select(" INDEXED BY by_critical", &conditions)];
        }
        let of: Vec<i64> = if !self.kinds.is_empty() {
            self.kinds.iter().map(|kind| word_number(kind)).collect()
        } else if !self.verdicts.is_empty() {
            judged.map(word_number).to_vec()
        } else {
            return vec![select(" NOT INDEXED", "")];
        };
        of.into_iter()
            .map(|kind| {
                let conditions = format!(" AND kind = {kind}{verdicts}");
                select(" INDEXED BY by_kind", &conditions)
            })
            .collect()
    }
}

/// ` AND column IN (1,2)`; nothing for none.
fn list(column: &str, numbers: impl Iterator<Item = i64>) -> String {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    if numbers.is_empty() {
        return String::new();
    }
    format!(" AND {column} IN ({})", numbers.join(","))
}
