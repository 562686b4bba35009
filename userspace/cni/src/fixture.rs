//! A directory of one test, with plugins that are shell scripts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("paddock-cni-{name}-{}", process::id()));
        fs::create_dir(&path).expect("create the test's directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("write a file");
    }

    /// Made by another process: a descriptor of ours that another test's child inherits would
    /// have the kernel refuse to run it.
    pub(crate) fn script(&self, name: &str, text: &str) {
        let source = format!("{name}.source");
        self.write(&source, &format!("#!/bin/sh\n{text}\n"));
        let mut install = Command::new("install");
        install.args(["-m", "755", &source, name]);
        let status = install.current_dir(&self.0).status().expect("install");
        assert!(status.success());
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect("read a file")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
