//! `paddock policy`: what containers may not do, checked, and put in force by the agent.
//!
//! What reads a file only needs neither agent nor root.

mod check;
mod explain;
mod force;
mod learn;
mod show;
mod test;

use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, ensure};
use nix::fcntl::OFlag;
use paddock_policy::{MAX_BYTES, PACKS, Pack, Policy as Checked};

use crate::{exit, output::print_json};

/// Say what containers may not do, try it, and put it in force
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock policy check web.toml\n  \
    paddock policy apply pack:escape\n  \
    paddock policy list escape\n  \
    paddock policy show escape\n  \
    paddock policy mode escape enforce\n  \
    paddock policy explain 42\n  \
    paddock policy learn web > web.toml\n  \
    paddock events --format json | paddock policy test pack:escape --events -\n  \
    paddock policy schema > policy.schema.json\n\n\
    FILE is a path, or pack:NAME for one that paddock brings along: pack:escape, pack:hardened.\n\
    What files may say is in docs/policy.md.")]
pub(crate) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what policies forbid, or what is wrong with them as FILE:LINE:COLUMN
    Check(check::Check),
    /// Put policies in force, each in the place of one of its name
    Apply(force::Apply),
    /// Show the policies in force, or the rules of one
    #[command(visible_alias = "ls")]
    List(force::List),
    /// Put a policy in force to audit or to enforce
    Mode(force::SetMode),
    /// Take policies out of force
    #[command(visible_alias = "rm")]
    Remove {
        #[arg(required = true, value_name = "POLICY")]
        names: Vec<String>,
    },
    /// Print a policy in force and what it holds for, or a pack
    Show(show::Show),
    /// Say which rule decides an act on record, why, and how to allow it
    Explain(explain::Explain),
    /// Propose a policy that denies what a container was never seen to do
    Learn(learn::Learn),
    /// Say what of recorded events policies would have denied
    Test(test::Test),
    /// Print the JSON schema of policy files, for editors
    Schema,
}

/// Begins the name of a policy in the binary.
const PACK: &str = "pack:";

impl Policy {
    /// Whether it is the agent's to answer.
    pub(crate) fn wants_agent(&self) -> bool {
        match &self.command {
            Command::Apply(_)
            | Command::List(_)
            | Command::Mode(_)
            | Command::Remove { .. }
            | Command::Explain(_)
            | Command::Learn(_) => true,
            Command::Show(show) => show.wants_agent(),
            Command::Check(_) | Command::Test(_) | Command::Schema => false,
        }
    }

    pub(crate) fn run(&self, state_dir: &Path) -> anyhow::Result<u8> {
        match &self.command {
            Command::Apply(apply) => apply.run(state_dir),
            Command::List(list) => list.run(state_dir),
            Command::Mode(mode) => mode.run(state_dir),
            Command::Remove { names } => force::remove(state_dir, names),
            Command::Check(check) => check.run(state_dir),
            Command::Show(show) => show.run(state_dir),
            Command::Explain(explain) => explain.run(state_dir),
            Command::Learn(learn) => learn.run(state_dir),
            Command::Test(test) => test.run(),
            Command::Schema => {
                print_json(&paddock_policy::schema())?;
                Ok(0)
            }
        }
    }
}

/// A file that is right.
#[derive(Debug)]
struct Loaded<'f> {
    file: &'f str,
    text: Vec<u8>,
    policy: Checked,
}

/// Those that are good. What is wrong with the others is told, and makes the whole fail.
fn load(files: &[String]) -> (Vec<Loaded<'_>>, u8) {
    let mut policies = Vec::new();
    let mut code = 0;
    let mut names: HashMap<String, &str> = HashMap::new();
    for file in files {
        let result = read(file).and_then(|text| match paddock_policy::parse(&text) {
            Err(faults) => Ok(Err(faults)),
            Ok(policy) => match names.insert(policy.name.clone(), file) {
                None => Ok(Ok(Loaded { file, text, policy })),
                Some(first) => Err(anyhow::anyhow!(
                    "{file}: the policy '{}' is in {first} already; rename one of them",
                    policy.name
                )),
            },
        });
        match result {
            Ok(Ok(policy)) => policies.push(policy),
            Ok(Err(faults)) => {
                // Nothing to be done about a closed stderr.
                let _ = std::io::stderr().write_all(faults.lines(file).as_bytes());
                code = exit::FAILURE;
            }
            Err(error) => {
                let _ = exit::report(&error, false, exit::FAILURE);
                code = exit::FAILURE;
            }
        }
    }
    (policies, code)
}

/// A pack's text or a file's, one byte more at most than a policy may have.
fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    if let Some(name) = file.strip_prefix(PACK) {
        let pack = Pack::find(name).with_context(|| {
            let known = PACKS.map(|pack| format!("pack:{}", pack.name)).join(", ");
            format!("{file}: no such pack; there are {known}")
        })?;
        return Ok(pack.text.as_bytes().to_vec());
    }
    // Nobody is waited for at the other end of a pipe.
    let opened = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(Path::new(file))
        .with_context(|| format!("{file}: cannot open"))?;
    let metadata = opened
        .metadata()
        .with_context(|| format!("{file}: cannot read"))?;
    ensure!(metadata.is_file(), "{file}: not a regular file");
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_BYTES)? + 1;
    opened
        .take(most)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{file}: cannot read"))?;
    Ok(bytes)
}
