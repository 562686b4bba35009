//! `[select]`: which containers a policy holds for.

use toml::de::DeTable;

use crate::{
    fault::{Sink, quote},
    fields::{Fields, kind, one_of},
    model::{Origin, RUNTIMES, Select},
    values,
};

pub(crate) const KEYS: [&str; 5] = ["name", "image", "label", "runtime", "origin"];
pub(crate) const ORIGINS: [(&str, Origin); 2] =
    [("launched", Origin::Launched), ("found", Origin::Found)];

/// What is known of a container when its policies are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    pub name: &'a str,
    pub image: &'a str,
    pub labels: &'a [(String, String)],
    /// Of [`RUNTIMES`], where it is known.
    pub runtime: Option<&'a str>,
    pub origin: Origin,
}

impl Select {
    /// Whether it may hold for a container of which only the name is known.
    #[must_use]
    pub fn holds_for_name(&self, name: &str) -> bool {
        self.name.is_empty() || self.name.iter().any(|glob| fits(glob, name))
    }

    /// Whether it holds for `container`. An empty one holds for all.
    #[must_use]
    pub fn holds(&self, container: &Container<'_>) -> bool {
        let any = |globs: &[String], text: &str| {
            globs.is_empty() || globs.iter().any(|glob| fits(glob, text))
        };
        let label = |(key, glob): &(String, String)| {
            let mut labels = container.labels.iter();
            labels.any(|(name, value)| name == key && fits(glob, value))
        };
        let runtime = self.runtime.is_empty()
            || container
                .runtime
                .is_some_and(|runtime| self.runtime.iter().any(|name| name == runtime));
        any(&self.name, container.name)
            && any(&self.image, container.image)
            && self.label.iter().all(label)
            && runtime
            && self.origin.is_none_or(|origin| origin == container.origin)
    }
}

/// `*` is any text, `?` any one character; all else is itself. Takes at most the product of both
/// lengths, whatever the pattern.
fn fits(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Where to go on when the last star has to take one more.
    let mut star = None;
    while seen < text.len() {
        match glob.get(at) {
            Some('*') => {
                at += 1;
                star = Some((at, seen));
            }
            Some(&c) if c == '?' || c == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((after, taken)) = star else {
                    return false;
                };
                star = Some((after, taken + 1));
                (at, seen) = (after, taken + 1);
            }
        }
    }
    glob[at..].iter().all(|c| *c == '*')
}

pub(crate) fn read(table: &DeTable<'_>, at: usize, sink: &mut Sink<'_>) -> Select {
    let fields = Fields::of(table, &KEYS, "[select]", sink);
    if table.is_empty() {
        sink.add(
            at,
            "[select] is empty; leave it out to select every container",
        );
    }
    let globs = |key, sink: &mut Sink<'_>| -> Vec<String> {
        let items = fields.list(key, sink, values::glob).unwrap_or_default();
        items.into_iter().map(|(_, glob)| glob).collect()
    };
    let (name, image) = (globs("name", sink), globs("image", sink));
    let words = RUNTIMES.map(|runtime| (runtime, runtime));
    let runtime = fields.list("runtime", sink, |text| one_of("runtime", text, &words));
    Select {
        name,
        image,
        label: labels(&fields, sink),
        runtime: runtime
            .unwrap_or_default()
            .into_iter()
            .map(|(_, name)| name.to_owned())
            .collect(),
        origin: fields.word("origin", &ORIGINS, sink),
    }
}

/// `label = { key = "glob" }`.
fn labels(fields: &Fields<'_>, sink: &mut Sink<'_>) -> Vec<(String, String)> {
    let Some(field) = fields.get("label") else {
        return Vec::new();
    };
    let Some(table) = fields.table("label", sink) else {
        return Vec::new();
    };
    if table.is_empty() {
        sink.add(
            field.value.span().start,
            "'label' is empty; leave it out or write label = { key = \"value\" }",
        );
    }
    let mut labels = Vec::new();
    for (key, value) in table {
        match value.get_ref().as_str() {
            Some(glob) => labels.push((key.get_ref().to_string(), glob.to_owned())),
            None => sink.add(
                value.span().start,
                format!(
                    "the label {} is {}; write a string",
                    quote(key.get_ref()),
                    kind(value.get_ref())
                ),
            ),
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, text) in [
            ("*", ""),
            ("web-*", "web-1"),
            ("*/nginx:*", "docker.io/library/nginx:1.27"),
            ("a?c", "abc"),
            ("*a*b", "xaxbxb"),
            ("ä*", "äb"),
        ] {
            assert!(fits(glob, text), "{glob} {text}");
        }
        for (glob, text) in [
            ("web-*", "web"),
            ("a?c", "ac"),
            ("", "a"),
            ("*a*b", "xaxbx"),
        ] {
            assert!(!fits(glob, text), "{glob} {text}");
        }
        // Stars do not multiply.
        assert!(!fits(
            &"*a".repeat(100),
            &"a".repeat(10_000).replace('a', "b")
        ));
    }

    #[test]
    fn all_that_is_given_must_fit() {
        let labels = [("tier".to_owned(), "web".to_owned())];
        let container = Container {
            name: "web-1",
            image: "nginx",
            labels: &labels,
            runtime: None,
            origin: Origin::Found,
        };
        let mut select = Select::default();
        assert!(select.holds(&container));
        select.name = vec!["db-*".into(), "web-*".into()];
        select.label = vec![("tier".into(), "w*".into())];
        select.origin = Some(Origin::Found);
        assert!(select.holds(&container));
        // What is not known does not fit.
        select.runtime = vec!["docker".into()];
        assert!(!select.holds(&container));
    }
}
