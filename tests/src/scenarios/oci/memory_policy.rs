//! `linux.memoryPolicy`, as the kernel shows it of each mapping.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Bundle, config};
use crate::{context::Context, runner::Scenario};

pub const ALL: &[Scenario] = &[Scenario::new("oci::memory_policy", memory_policy)];

fn memory_policy(context: &Context) -> Result<()> {
    const SHOW: [&str; 2] = ["cat", "/proc/self/numa_maps"];
    let has_numa = Path::new("/proc/self/numa_maps").exists();
    let mut wanted = config(if has_numa { &SHOW } else { &["true"] });
    let bundle = Bundle::new(context, &wanted)?;
    let mut set = |policy: Value| {
        wanted["linux"]["memoryPolicy"] = policy;
        bundle.write(&wanted)
    };
    set(json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}))?;
    if has_numa {
        let shown = bundle.ok(&["run", "bound"])?;
        // The kernel's own mappings have none.
        let bound = shown.matches(" bind=static:0 ").count();
        ensure!(bound > 3, "{shown}");
        set(json!({"mode": "MPOL_DEFAULT"}))?;
        let shown = bundle.ok(&["run", "default"])?;
        ensure!(
            shown.contains(" default ") && !shown.contains("bind"),
            "{shown}"
        );
        // The kernel's own word on modes that need nodes.
        set(json!({"mode": "MPOL_INTERLEAVE"}))?;
        let words = ["memory policy MPOL_INTERLEAVE", "invalid argument"];
        bundle.refused(&["run", "none"], &words)?;
    } else {
        let words = ["memory policy MPOL_BIND", "function not implemented"];
        bundle.refused(&["run", "none"], &words)?;
    }
    for nodes in ["bad", "0-", "1024"] {
        set(json!({"mode": "MPOL_BIND", "nodes": nodes}))?;
        bundle.refused(&["run", "none"], &["linux.memoryPolicy.nodes", nodes])?;
    }
    Ok(())
}
