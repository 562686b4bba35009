//! `--cidfile`: made before the container, so that two never share one; gone again without it.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use anyhow::Context as _;

#[derive(Debug)]
pub(super) struct IdFile<'a> {
    path: &'a Path,
    file: Option<File>,
}

impl<'a> IdFile<'a> {
    pub(super) fn new(path: &'a Path) -> anyhow::Result<Self> {
        let file = File::create_new(path)
            .with_context(|| format!("--cidfile {}: cannot make it", path.display()))?;
        Ok(Self {
            path,
            file: Some(file),
        })
    }

    pub(super) fn write(mut self, id: &str) -> anyhow::Result<()> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        file.write_all(id.as_bytes())
            .with_context(|| format!("--cidfile {}: cannot write", self.path.display()))
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        // There is no container to name.
        if self.file.is_some() {
            let _ = fs::remove_file(self.path);
        }
    }
}
