//! A TOML table's keys, taken one by one with their places; what nobody knows is a fault.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    fault::{Sink, quote, suggestion},
    values::Value,
};

/// A value and where it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'t> {
    /// Its key.
    pub(crate) key: &'t str,
    /// Of the key.
    pub(crate) at: usize,
    pub(crate) value: &'t Spanned<DeValue<'t>>,
}

impl Field<'_> {
    fn wrong_type(&self, value: &Spanned<DeValue<'_>>, wanted: &str, sink: &mut Sink<'_>) {
        sink.add(
            value.span().start,
            format!(
                "{} is {}; write {wanted}",
                quote(self.key),
                kind(value.get_ref())
            ),
        );
    }
}

/// A value's type, with its article.
pub(crate) fn kind(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}

/// A table's fields in the order of the file.
#[derive(Debug)]
pub(crate) struct Fields<'t> {
    fields: Vec<Field<'t>>,
    /// A key was unknown: what is missed may be what it was to be.
    misspelt: bool,
}

impl<'t> Fields<'t> {
    /// Those of `known`; others are faults of `place`.
    pub(crate) fn of(
        table: &'t DeTable<'t>,
        known: &[&str],
        place: &str,
        sink: &mut Sink<'_>,
    ) -> Self {
        let mut fields = Vec::new();
        let mut misspelt = false;
        for (key, value) in table {
            let (at, key) = (key.span().start, key.get_ref().as_ref());
            if known.contains(&key) {
                fields.push(Field { key, at, value });
            } else if !sink.is_full() {
                misspelt = true;
                let hint = suggestion(key, known.iter().copied(), "docs/policy.md has the list");
                sink.add(at, format!("unknown key {} in {place}; {hint}", quote(key)));
            }
        }
        fields.sort_by_key(|field| field.at);
        Self { fields, misspelt }
    }

    /// Tells what is missing, where no misspelt key could be it.
    pub(crate) fn missing(&self, at: usize, message: impl AsRef<str>, sink: &mut Sink<'_>) {
        if !self.misspelt {
            sink.add(at, message);
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Field<'t>> {
        self.fields.iter().copied().find(|field| field.key == key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'t>> {
        self.fields.iter().copied()
    }

    /// A string that `parse` takes.
    pub(crate) fn string<T>(
        &self,
        key: &str,
        sink: &mut Sink<'_>,
        parse: impl FnOnce(&str) -> Value<T>,
    ) -> Option<T> {
        let field = self.get(key)?;
        let Some(text) = field.value.get_ref().as_str() else {
            field.wrong_type(field.value, "a string", sink);
            return None;
        };
        parse(text)
            .map_err(|message| sink.add(field.value.span().start, message))
            .ok()
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
        sink: &mut Sink<'_>,
    ) -> Option<T> {
        self.string(key, sink, |text| one_of(key, text, words))
    }

    /// A string or an array of strings, at least one, each with its place; `Some(empty)` where
    /// all of them are faults.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        sink: &mut Sink<'_>,
        parse: impl Fn(&str) -> Value<T>,
    ) -> Option<Vec<(usize, T)>> {
        let field = self.get(key)?;
        let mut items = Vec::new();
        let values = match field.value.get_ref() {
            DeValue::Array(array) if array.is_empty() => {
                sink.add(
                    field.value.span().start,
                    format!("{} is empty; leave it out or fill it", quote(key)),
                );
                return Some(items);
            }
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![field.value],
        };
        for value in values {
            if sink.is_full() {
                break;
            }
            let at = value.span().start;
            match value.get_ref() {
                DeValue::String(text) => match parse(text) {
                    Ok(item) => items.push((at, item)),
                    Err(message) => sink.add(at, message),
                },
                // Ports may be written as numbers.
                DeValue::Integer(number) if key == "port" => match parse(&number.to_string()) {
                    Ok(item) => items.push((at, item)),
                    Err(message) => sink.add(at, message),
                },
                _ => field.wrong_type(value, "a string or an array of strings", sink),
            }
        }
        Some(items)
    }

    pub(crate) fn table(&self, key: &str, sink: &mut Sink<'_>) -> Option<&'t DeTable<'t>> {
        let field = self.get(key)?;
        let table = field.value.get_ref().as_table();
        if table.is_none() {
            field.wrong_type(field.value, "a table", sink);
        }
        table
    }

    /// An integer from 1 on.
    pub(crate) fn count(&self, key: &str, most: u32, sink: &mut Sink<'_>) -> Option<u32> {
        let field = self.get(key)?;
        let Some(number) = field.value.get_ref().as_integer() else {
            field.wrong_type(field.value, "a whole number", sink);
            return None;
        };
        let parsed = u32::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| (1..=most).contains(number));
        if parsed.is_none() {
            sink.add(
                field.value.span().start,
                format!("{} is out of range; write 1 to {most}", quote(key)),
            );
        }
        parsed
    }
}

/// `word` among `words`, or what to write for `key`.
pub(crate) fn one_of<T: Copy>(key: &str, word: &str, words: &[(&str, T)]) -> Value<T> {
    let found = words.iter().find(|(name, _)| *name == word);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known = words.iter().map(|(name, _)| *name);
        format!(
            "{} is no {key}; {}",
            quote(word),
            suggestion(word, known, "docs/policy.md has the list")
        )
    })
}
