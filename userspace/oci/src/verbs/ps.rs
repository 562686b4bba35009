//! `ps`: what is in the container's cgroup.

use std::{path::Path, process::Command};

use super::line;
use crate::{
    args::{Format, Ps},
    container::Container,
    error::Error,
};

pub(super) fn verb(root: &Path, wanted: &Ps) -> Result<(), Error> {
    let pids = Container::open(root, &wanted.id)?
        .record
        .needed_cgroup("list processes of")?
        .pids()?;
    if wanted.format == Format::Json {
        return line(&serde_json::json!(pids).to_string());
    }
    let mut command = Command::new("ps");
    if wanted.options.is_empty() {
        command.arg("-ef");
    } else {
        command.args(&wanted.options);
    }
    let output = command.output().map_err(Error::io("execute", "ps"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::usage("ps: its output has no column PID"))?;
    line(head)?;
    for row in lines {
        let pid = row
            .split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            line(row)?;
        }
    }
    Ok(())
}
