//! A real Prometheus scrapes a real agent. On the host only: guests carry no Prometheus.

use anyhow::{Result, ensure};

use crate::{
    context::{Context, eventually},
    prometheus::Prometheus,
    runner::Scenario,
};

pub const ALL: &[Scenario] =
    &[Scenario::new("prometheus::sees_an_oom_kill", sees_an_oom_kill).alone()];

fn sees_an_oom_kill(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let Some(prometheus) = Prometheus::of(context)? else {
        return Ok(());
    };
    let args = [
        "run",
        "--name",
        "greedy",
        "--memory",
        "64m",
        "host",
        "tail",
        "/dev/zero",
    ];
    ensure!(context.paddock(&args)?.code == Some(137));
    eventually("the kill in Prometheus", || {
        let kills = prometheus.query(
            "paddock_container_oom_kills_total{container=\"greedy\",constraint=\"memcg\",level=\"own\"}",
        );
        Ok(kills.is_ok_and(|kills| kills.len() == 1 && kills[0]["value"][1] == "1"))
    })
}
