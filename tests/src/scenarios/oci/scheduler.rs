//! `process.scheduler`, as procfs shows it of the process, its child and an exec. On v1 a
//! real-time policy takes a real-time budget too, lent by paddock's own parents.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Bundle, config};
use crate::{
    context::{Context, cgroup_mounts},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[Scenario::new("oci::scheduler", scheduler)];

/// By linux/sched.h.
const OTHER: &str = "0 0";
const FIFO_5: &str = "5 1";
const RR_7: &str = "7 2";
const BATCH: &str = "0 3";

/// Priority and policy, fields 40 and 41 of proc(5)'s stat, a line a process.
fn shown(stats: &str) -> Result<Vec<String>> {
    let line = |stat: &str| {
        let fields: Vec<_> = stat
            .rsplit_once(") ")
            .context("stat")?
            .1
            .split(' ')
            .collect();
        let field = |number: usize| fields.get(number - 3).context("a short stat");
        Ok(format!("{} {}", field(40)?, field(41)?))
    };
    stats.lines().map(line).collect()
}

fn scheduler(context: &Context) -> Result<()> {
    // The shell itself, then a child.
    let look = "read -r own </proc/self/stat; echo \"$own\"; cat /proc/self/stat; true";
    let mut wanted = config(&["sh", "-c", look]);
    let bundle = Bundle::new(context, &wanted)?;
    let budget = Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists();
    let fifo = json!({"policy": "SCHED_FIFO", "priority": 5});
    if budget {
        wanted["process"]["scheduler"] = fifo.clone();
        bundle.write(&wanted)?;
        let lent = shown(&bundle.ok(&["run", "lent"])?)?;
        ensure!(lent == [FIFO_5, FIFO_5], "lent: {lent:?}");
        // Nothing is lent out of a cgroup that is somebody else's.
        let mut foreign = wanted.clone();
        let parent = format!("paddock-oci-test-{}", std::process::id());
        foreign["linux"]["cgroupsPath"] = json!(format!("/{parent}/poor"));
        bundle.write(&foreign)?;
        let words = ["process.scheduler", "cpu.rt_runtime_us", "realtimeRuntime"];
        bundle.refused(&["run", "poor"], &words)?;
        for (_, mount) in cgroup_mounts()? {
            drop(fs::remove_dir(mount.join(&parent)));
        }
        let rich = json!({"realtimeRuntime": 2000, "realtimePeriod": 1_000_000});
        wanted["linux"]["resources"] = json!({ "cpu": rich });
    }
    let mut set = |scheduler: Value| {
        wanted["process"]["scheduler"] = scheduler;
        bundle.write(&wanted)
    };
    for (scheduler, own, child) in [
        (fifo, FIFO_5, FIFO_5),
        (json!({"policy": "SCHED_RR", "priority": 7}), RR_7, RR_7),
        (
            json!({"policy": "SCHED_FIFO", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            FIFO_5,
            OTHER,
        ),
        (json!({"policy": "SCHED_BATCH"}), BATCH, BATCH),
        (json!({"policy": "SCHED_OTHER"}), OTHER, OTHER),
    ] {
        set(scheduler.clone())?;
        let said = shown(&bundle.ok(&["run", "planned"])?)?;
        ensure!(said == [own, child], "{scheduler}: {said:?}");
    }
    // The kernel's own word on a priority that no policy has.
    set(json!({"policy": "SCHED_FIFO", "priority": 100}))?;
    bundle.refused(&["run", "high"], &["scheduler", "invalid argument"])?;
    set(json!({"policy": "SCHED_RR", "priority": 7}))?;
    wanted["process"]["args"] = json!(["sleep", "100"]);
    bundle.write(&wanted)?;
    bundle.start("kept")?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", bundle.pid("kept")?))?;
    ensure!(shown(stat.trim_end())? == [RR_7], "{stat}");
    if budget {
        let own = "/sys/fs/cgroup/cpu/paddock-oci/kept/cpu.rt_runtime_us";
        let lent = "/sys/fs/cgroup/cpu/paddock-oci/cpu.rt_runtime_us";
        for path in [own, lent] {
            let saw = fs::read_to_string(path).context(path)?;
            ensure!(saw.trim() == "2000", "{path}: {saw}");
        }
    }
    let file = bundle.path.join("process.json");
    let mut process = wanted["process"].clone();
    process["args"] = json!(["cat", "/proc/self/stat"]);
    process["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 5});
    fs::write(&file, process.to_string())?;
    let said = shown(&bundle.ok(&["exec", "--process", &file.display().to_string(), "kept"])?)?;
    ensure!(said == [FIFO_5], "exec: {said:?}");
    bundle.ok(&["delete", "--force", "kept"])?;
    Ok(())
}
