//! `paddock ns` where no agent runs: containers by the paths that known runtimes use.

use crate::{api::NamespaceEntry, check::host_namespaces, found::pattern, namespaces::listing};

/// Every namespace with a process. Blocking, as root.
pub fn list() -> Result<Vec<NamespaceEntry>, procfs::ProcError> {
    listing::list(&host_namespaces(), |path| {
        pattern::find(path, &[]).map(|found| found.name)
    })
}
