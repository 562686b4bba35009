//! `paddock oci` as a runtime whose containers an agent finds: what it does to set one up and to
//! enter it, forked into the cgroup as it is on v2, is no escape and not counted.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Bundle, config};
use crate::{
    context::{Context, eventually},
    runner::Scenario,
    scenarios::{found::label, kernel::equal},
};

pub const ALL: &[Scenario] = &[Scenario::new(
    "oci::found_without_escapes",
    found_without_escapes,
)];

fn found_without_escapes(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let mut wanted = config(&["sleep", "100"]);
    let id = format!("f00dfeed{:056x}", std::process::id());
    wanted["linux"]["cgroupsPath"] = json!(format!("/libpod-{id}"));
    let bundle = Bundle::new(context, &wanted)?;
    bundle.start("room")?;
    for _ in 0..7 {
        let output = bundle.oci(&["exec", "room", "true"])?;
        ensure!(output.code == Some(0), "{output:?}");
    }
    let mut name = None;
    eventually("it is found", || {
        name = label(&context.metrics()?, "container_id", &id, "container");
        Ok(name.is_some())
    })?;
    let name = name.context("no name")?;
    let metrics = context.metrics()?;
    for what in [
        "paddock_container_namespace_calls_total",
        "paddock_container_escapes_total",
    ] {
        equal(what, metrics.sum(what, &[("container", &name)]), 0)?;
    }
    bundle.ok(&["kill", "room", "KILL"])?;
    eventually("it has ended", || bundle.is("room", "stopped"))?;
    bundle.ok(&["delete", "room"]).map(drop)
}
