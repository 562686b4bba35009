//! What this host offers, and what serves each capability: `paddock check`.
//!
//! An agent reports what it has loaded; without one, everything is tried and taken down again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use nix::{sys::utsname::uname, unistd::mkdtemp};
use paddock_cgroups::{Delegation, Hierarchies};
use paddock_probe::{CapabilityStatus, Config, MapMemory, NsInums, Probe, Refusal};

use crate::{
    api::{AgentInfo, CheckReport},
    chain::chain,
    kernel::Kernel,
    namespaces,
    shared::Shared,
};

const SCHEMA_VERSION: u32 = 1;
const BTF: &str = "/sys/kernel/btf/vmlinux";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cgroups(#[from] paddock_cgroups::Error),
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Finds out by trying, as root; takes down what it loaded. Blocking, outside of tokio.
pub fn report() -> Result<CheckReport, Error> {
    let hierarchies = Hierarchies::discover()?;
    let template = std::env::temp_dir().join("paddock-check-XXXXXX");
    let pin_dir = mkdtemp(&template).map_err(|errno| Error::Io {
        op: "make",
        path: template,
        source: errno.into(),
    })?;
    let config = Config {
        pin_dir: pin_dir.clone(),
        force: Vec::new(),
        program_log: false,
    };
    let (kernel, host) = match Probe::load(&config) {
        Ok(probe) => {
            let found = (
                (probe.capabilities(), probe.memory()),
                probe.host_namespaces(),
            );
            if let Err(error) = probe.unload() {
                tracing::warn!("{}", chain(&error));
            }
            found
        }
        Err(error) => {
            // A load that failed half-way may have mounted already.
            if let Err(error) = Probe::unload_pins(&pin_dir) {
                tracing::warn!("{}", chain(&error));
            }
            ((refused(&chain(&error)), Vec::new()), host_namespaces())
        }
    };
    // Not empty only when unloading failed, which was told.
    let _ = fs::remove_dir(&pin_dir);
    let delegation = hierarchies.delegation();
    let parent = Path::new(delegation.base().unwrap_or_default()).join("paddock");
    let place = (parent, &delegation);
    Ok(facts(&hierarchies, place, &host, kernel, None))
}

/// What a running agent has.
pub(crate) fn of_agent(shared: &Shared) -> CheckReport {
    let kernel = &shared.kernel;
    let capabilities = kernel
        .unavailable()
        .map_or_else(|| kernel.capabilities().to_vec(), refused);
    let agent = AgentInfo {
        pid: std::process::id().cast_signed(),
        state_dir: shared.instance.dir().to_owned(),
        metrics_address: shared.metrics_address.map(|address| address.to_string()),
    };
    facts(
        &shared.hierarchies,
        (shared.instance.cgroup_parent(), &shared.delegation),
        kernel.host(),
        (capabilities, kernel.memory()),
        Some(agent),
    )
}

/// The host's namespaces where no kernel half can say: those of the first process, or our own
/// where even root may not look at that one.
pub(crate) fn host_namespaces() -> NsInums {
    let own = std::process::id().cast_signed();
    namespaces::of(1)
        .or_else(|_| namespaces::of(own))
        .unwrap_or_default()
}

/// All off, for one reason.
fn refused(reason: &str) -> Vec<CapabilityStatus> {
    let mut all = Kernel::absent(String::new(), NsInums::default())
        .capabilities()
        .to_vec();
    for status in &mut all {
        status.refused = vec![Refusal {
            rung: "any".to_owned(),
            errno: None,
            reason: reason.to_owned(),
        }];
    }
    all
}

fn facts(
    hierarchies: &Hierarchies,
    (parent, delegation): (PathBuf, &Delegation),
    host: &NsInums,
    (capabilities, memory): (Vec<CapabilityStatus>, Vec<MapMemory>),
    agent: Option<AgentInfo>,
) -> CheckReport {
    let controllers: BTreeMap<String, String> = hierarchies
        .controllers()
        .into_iter()
        .map(|(name, _, mount)| (name, mount.display().to_string()))
        .collect();
    // Missing where no security modules are built in.
    let lsm = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    CheckReport {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: uname().map_or_else(
            |_| "unknown".to_owned(),
            |name| name.release().to_string_lossy().into_owned(),
        ),
        cgroup_layout: hierarchies.layout(),
        controllers,
        cgroup_parent: format!("/{}", parent.display()),
        cgroup_parent_reason: delegation.reason(),
        namespaces: namespaces::by_name(host),
        lsm: lsm
            .trim()
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        btf: fs::metadata(BTF).is_ok(),
        capabilities,
        memory: memory.into(),
        agent,
    }
}
