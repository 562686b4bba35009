//! What a scenario gets: a folder of its own, where the binaries are, what kind of host this is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use paddock_cgroups::{Hierarchies, Layout};

use crate::paddock::Paddock;

/// Handed to each scenario; made anew for it.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// Empty at the start; short, since socket paths end at 107 bytes.
    pub dir: PathBuf,
    /// The paddock instance of this scenario.
    pub state_dir: PathBuf,
    pub layout: Layout,
    /// As `uname -r` says.
    pub release: String,
    /// Unique among runs at the same time; names what a scenario makes outside `dir`.
    pub tag: String,
}

impl Ctx {
    pub(crate) fn new(number: usize) -> Result<Self> {
        let tag = format!("pt-{}-{number}", std::process::id());
        let dir = env::temp_dir().join(&tag);
        let state_dir = dir.join("s");
        fs::create_dir_all(&state_dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self {
            dir,
            state_dir,
            layout: Hierarchies::discover()?.layout(),
            release: fs::read_to_string("/proc/sys/kernel/osrelease")
                .context("read the kernel's release")?
                .trim()
                .to_owned(),
            tag,
        })
    }

    /// The binary under test, on this scenario's instance.
    pub fn paddock(&self) -> Result<Paddock> {
        Ok(Paddock {
            bin: program("PADDOCK_BIN", "paddock")?,
            state_dir: self.state_dir.clone(),
        })
    }

    /// The static program for use in containers.
    pub fn workload(&self) -> Result<PathBuf> {
        program("PADDOCK_WORKLOAD", "paddock-workload")
    }

    /// The kernel's version as numbers, for what differs between kernels.
    pub fn kernel(&self) -> (u32, u32) {
        let mut parts = self
            .release
            .split(|c: char| !c.is_ascii_digit())
            .map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

/// Named by the environment, else beside this program.
fn program(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Ok(path.into());
    }
    let own = env::current_exe().context("find this program")?;
    let path = own.parent().unwrap_or(Path::new("/")).join(name);
    if path.exists() {
        return Ok(path);
    }
    bail!("{} is missing; {variable} can name it", path.display())
}

/// Tries until it is true; an error says what was waited for.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut check: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    while !check()? {
        if Instant::now() > deadline {
            bail!("{what}: not after {} s", timeout.as_secs_f32());
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}
