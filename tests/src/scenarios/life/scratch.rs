//! A directory that containers of a scenario write to, as a volume at /out.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::context::Context;

/// Gone with its value.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(context: &Context) -> Result<Self> {
        let path = context.state.with_extension("out");
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// `-v` argument.
    pub(super) fn volume(&self) -> String {
        format!("{}:/out", self.0.display())
    }

    pub(super) fn write(&self, name: &str) -> Result<()> {
        Ok(fs::write(self.0.join(name), "")?)
    }

    /// Seconds since boot, one a line, as `cut -d' ' -f1 /proc/uptime` wrote them; none when
    /// nothing was written.
    pub(super) fn times(&self, name: &str) -> Result<Vec<f64>> {
        let text = fs::read_to_string(self.0.join(name)).unwrap_or_default();
        Ok(text.lines().map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
