//! `process.apparmorProfile`: for the container's program, and for no hook before it.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Bundle, config};
use crate::{
    context::Context,
    runner::Scenario,
    scenarios::apparmor::{Profile, is_on},
};

pub const ALL: &[Scenario] = &[Scenario::new("oci::apparmor_profile", apparmor_profile)];

fn apparmor_profile(context: &Context) -> Result<()> {
    let mut wanted = config(&["cat", "/proc/self/attr/apparmor/current"]);
    let bundle = Bundle::new(context, &wanted)?;
    // The kernel would trim it, or cut it, and find another.
    for name in [" unconfined".to_owned(), "x".repeat(5000)] {
        wanted["process"]["apparmorProfile"] = json!(name);
        bundle.write(&wanted)?;
        bundle.refused(&["run", "none"], &["process.apparmorProfile", "no name"])?;
    }
    wanted["process"]["apparmorProfile"] = json!("unconfined");
    bundle.write(&wanted)?;
    if !is_on() {
        wanted["process"]["args"] = json!(["true"]);
        bundle.write(&wanted)?;
        bundle.ok(&["run", "free"])?;
        wanted["process"]["apparmorProfile"] = json!("web");
        bundle.write(&wanted)?;
        let words = [r#"process.apparmorProfile "web": this kernel has no AppArmor enabled"#];
        return bundle.refused(&["run", "none"], &words);
    }
    let own = bundle.ok(&["run", "free"])?;
    ensure!(own == "unconfined\n", "{own}");
    let profile = Profile::load(context)?;
    wanted["process"]["apparmorProfile"] = json!(profile.name);
    let hooks = bundle.path.join("hook");
    let script = format!("cat /proc/self/attr/apparmor/current >{}", hooks.display());
    wanted["hooks"] = json!({"createContainer": [
        {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]},
    ]});
    bundle.write(&wanted)?;
    let own = bundle.ok(&["run", "box"])?;
    ensure!(own == format!("{} (enforce)\n", profile.name), "{own}");
    ensure!(bundle.read("hook")? == "unconfined\n");
    drop(profile);
    bundle.refused(&["run", "none"], &["apparmor profile", "no such file"])
}
