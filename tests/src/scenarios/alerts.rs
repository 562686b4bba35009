//! An OOM kill and an escape reach whoever is on call: through a real Prometheus with the rules
//! of dashboards/prometheus and a real Alertmanager to a webhook. On the host only: guests carry
//! neither.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::kernel::{able, host_way};
use crate::{
    collector::{Collector, Manner},
    context::{Context, eventually},
    prometheus::{Alertmanager, Config, Prometheus},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[Scenario::new("alerts::reach_a_webhook", reach_a_webhook)];

/// Two scrapes, and one look at the rules.
const SOON: Duration = Duration::from_secs(3);

const IDLE: Duration = Duration::from_secs(4);

/// What was posted to it of that name.
fn alert(webhook: &Collector, name: &str, container: &str) -> Option<Value> {
    let posted = webhook.posted().into_iter();
    let mut alerts =
        posted.flat_map(|one| one.body["alerts"].as_array().cloned().unwrap_or_default());
    alerts.find(|alert| {
        alert["labels"]["alertname"] == name && alert["labels"]["container"] == container
    })
}

fn reach_a_webhook(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let webhook = Collector::start("127.0.0.1:0", Manner::Polite)?;
    let Some(alertmanager) = Alertmanager::start(context, Some(&webhook.address))? else {
        return Ok(());
    };
    let config = Config {
        alertmanager: Some(alertmanager.address.clone()),
        ..Config::default()
    };
    let prometheus = Prometheus::start(context, &config)?.context("no Prometheus")?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    // By this clock: both wait so long before they do it.
    let before = SystemTime::now() + IDLE;
    context.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "hungry",
        "--memory",
        "64m",
        "host",
        "sh",
        "-c",
        "sleep 4; tail /dev/zero",
    ])?;
    let mut args = able("digger", &[&volume, &way]);
    args.insert(1, "-d");
    args.extend([
        "sh",
        "-c",
        "sleep 4; /run/workload setns-loop /run/ns uts 1; sleep 600",
    ]);
    context.ok(&args)?;
    // Seen at zero before it happens.
    for name in ["hungry", "digger"] {
        eventually("it is scraped", || {
            let query = format!("sum(paddock_container_escapes_total{{container=\"{name}\"}})");
            Ok(!prometheus.query(&query)?.is_empty())
        })?;
    }
    for (alert, container) in [
        ("ContainerOOMKilled", "hungry"),
        ("NamespaceEscapeDetected", "digger"),
    ] {
        eventually(alert, || {
            Ok(self::alert(&webhook, alert, container).is_some())
        })?;
        let told = self::alert(&webhook, alert, container).context("no alert")?;
        ensure!(
            told["status"] == "firing"
                && told["annotations"]["runbook"] == format!("docs/runbooks/{alert}.md"),
            "{told}"
        );
        let began = told["startsAt"].as_str().context("no startsAt")?;
        let began = time_of(began)?;
        let late = began.duration_since(before).unwrap_or_default();
        ensure!(late <= SOON, "{alert} {late:?} after it happened: {told}");
    }
    context.ok(&["rm", "-f", "hungry", "digger"]).map(drop)
}

/// RFC 3339 in UTC, as Alertmanager writes it.
fn time_of(text: &str) -> Result<SystemTime> {
    let date = std::process::Command::new("date")
        .args(["-u", "+%s.%N", "-d", text])
        .output()?;
    let seconds: f64 = String::from_utf8(date.stdout)?.trim().parse()?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
}
