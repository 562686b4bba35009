//! `paddock completions`: the script by which a shell asks this binary for words.

use std::path::Path;

use crate::{complete::Shell, output};

/// Print a shell's completion of paddock's commands, options and names
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock completions bash > /etc/bash_completion.d/paddock\n  \
    paddock completions zsh > /usr/share/zsh/vendor-completions/_paddock\n  \
    paddock completions fish > /etc/fish/completions/paddock.fish\n  \
    source <(paddock completions bash)    # this shell only\n\n\
    Names of containers and policies are the agent's to say, so root's shell has them.")]
pub(crate) struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        let script = self.shell.script(&binary())?;
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}

/// By its path where it was called by one: then it need not be in PATH.
fn binary() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let path = Path::new(&called);
    let absolute = std::path::absolute(path)
        .ok()
        .filter(|_| path.components().count() > 1);
    absolute.map_or_else(|| "paddock".to_owned(), |path| path.display().to_string())
}
