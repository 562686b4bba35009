//! `list`: every container below `--root`.

use std::path::Path;

use serde_json::{Value, json};

use super::line;
use crate::{
    args::{Format, List},
    container,
    error::Error,
};

pub(super) fn verb(root: &Path, wanted: &List) -> Result<(), Error> {
    let mut states = Vec::new();
    for id in container::ids(root)? {
        // One that is deleted meanwhile is not there.
        if let Ok((record, status)) = container::peek(root, &id) {
            states.push(container::state(&record, status));
        }
    }
    if wanted.quiet {
        return states.iter().try_for_each(|state| line(text(state, "id")));
    }
    if wanted.format == Format::Json {
        return line(&json!(states).to_string());
    }
    let longest = states
        .iter()
        .map(|state| text(state, "id").len())
        .max()
        .unwrap_or(0);
    let width = longest.max(2) + 2;
    line(&format!(
        "{:width$}{:<9}{:<10}BUNDLE",
        "ID", "PID", "STATUS"
    ))?;
    for state in &states {
        let (pid, word) = (state["pid"].to_string(), text(state, "status"));
        let id = text(state, "id");
        line(&format!(
            "{id:width$}{pid:<9}{word:<10}{}",
            text(state, "bundle")
        ))?;
    }
    Ok(())
}

fn text<'a>(state: &'a Value, key: &str) -> &'a str {
    state[key].as_str().unwrap_or_default()
}
