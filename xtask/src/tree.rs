//! Where things lie: the checkout, its target folder, the cache in it, what gets built.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::cmd;

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// rustc's name of this machine; everything is built for it by name, so that the flags
    /// for static binaries reach no build script.
    pub(crate) triple: String,
}

impl Tree {
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the checkout's folder")?
            .to_owned();
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir));
        let text = cmd::output(Command::new("rustc").arg("-vV"))?;
        let triple = text
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("rustc -vV names no host")?
            .to_owned();
        Ok(Self {
            root,
            target,
            triple,
        })
    }

    /// Downloads; survives everything but the target folder's removal.
    pub(crate) fn cache(&self) -> Result<PathBuf> {
        let dir = self.target.join("cache");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// rustc's flags that keep this machine's paths out of what is built: the same bytes in any
    /// directory.
    pub(crate) fn remapped(&self) -> Vec<String> {
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
        let mut flags = vec![format!(
            "--remap-path-prefix={}=/paddock",
            self.root.display()
        )];
        if let Some(home) = home {
            flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
        }
        flags
    }

    /// Where cargo puts a release binary.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join(&self.triple).join("release").join(name)
    }

    /// The kernel half as it is linked, with what a debugger would read of it.
    pub(crate) fn linked_ebpf_object(&self) -> PathBuf {
        self.target
            .join("ebpf/bpfel-unknown-none/release/paddock-ebpf")
    }

    /// The kernel half, as `PADDOCK_EBPF_OBJECT` hands it to the build of `probe`.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.target.join("ebpf/paddock-ebpf.o")
    }

    pub(crate) fn bpf_linker(&self) -> PathBuf {
        self.target.join("tools/bin/bpf-linker")
    }
}
