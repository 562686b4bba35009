//! The demo behind `cargo xtask demo`: an agent, containers that give it something to tell, and
//! Prometheus and Alertmanager that hear of it, on loopback.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};

use super::stage::Interrupt;
use crate::{
    context::{Context, eventually},
    load,
    prometheus::{Alertmanager, Config, Prometheus},
    scenarios::dashboards,
};

const WAIT: Duration = Duration::from_millis(100);
/// What the load brings about.
const ALERTS: [&str; 2] = ["ContainerOOMKilled", "NamespaceEscapeDetected"];

/// Until Ctrl-C; with `once` until every panel has data and the alerts are out.
///
/// # Errors
/// What did not start, a panel without data, an alert that is not out, what could not be removed.
pub fn play(once: bool) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let context = Context::new()?;
    let played = watched(&context, once, &interrupt);
    let closed = context.close();
    played.and(closed)
}

fn watched(context: &Context, once: bool, interrupt: &Interrupt) -> Result<()> {
    const MISSING: &str = "Prometheus and Alertmanager are not here: cargo xtask setup --for test";
    context.start_agent(&["--detach-on-exit", "--canary-interval", "60"])?;
    let alertmanager = Alertmanager::start(context, None)?.context(MISSING)?;
    let config = Config {
        alertmanager: Some(alertmanager.address.clone()),
        ..Config::default()
    };
    let prometheus = Prometheus::start(context, &config)?.context(MISSING)?;
    load::begin(context)?;
    println!("agent          http://{}/metrics", context.address()?);
    println!("Prometheus     http://{}/graph", prometheus.address);
    println!("Alertmanager   http://{}/#/alerts", alertmanager.address);
    println!("dashboards     dashboards/grafana/*.json, to import into a Grafana of yours");
    println!(
        "the agent's    paddock --state-dir {} ps",
        context.state.display()
    );
    let heard = heard(&prometheus, &alertmanager);
    if heard.is_ok() {
        println!("every panel has data; {} are out", ALERTS.join(" and "));
    }
    while heard.is_ok() && !once && !interrupt.seen() {
        thread::sleep(WAIT);
    }
    heard.and(load::end(context))
}

fn heard(prometheus: &Prometheus, alertmanager: &Alertmanager) -> Result<()> {
    for alert in ALERTS {
        eventually(&format!("{alert} in Alertmanager"), || {
            Ok(alertmanager.names()?.iter().any(|name| name == alert))
        })?;
    }
    dashboards::answered(prometheus)
}
