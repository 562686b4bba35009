//! SIGHUP: the options are read anew, what may change while the agent lives does, and what may
//! not is named. A file that is wrong changes nothing.

use std::sync::{Arc, PoisonError};

use tokio::signal::unix::Signal;

use super::service;
use crate::{
    chain::chain,
    guard,
    options::{Live, Options, Reload},
    policies::directory,
    shared::Shared,
};

pub(super) async fn run(shared: Arc<Shared>, reload: Reload, mut hangup: Signal) {
    let reload = Arc::new(reload);
    while hangup.recv().await.is_some() {
        service::reloading();
        let (this, reload) = (Arc::clone(&shared), Arc::clone(&reload));
        // Files are read, maps written.
        let done = tokio::task::spawn_blocking(move || take_over(&this, &reload)).await;
        service::ready(done.unwrap_or("a reload failed, see the log"));
    }
}

/// The sentence for `systemctl status`.
fn take_over(shared: &Arc<Shared>, reload: &Reload) -> &'static str {
    let new = match reload.read() {
        Ok(new) => new,
        Err(error) => {
            tracing::error!("SIGHUP: nothing changes: {error}");
            return "a reload was refused, see the log";
        }
    };
    let fixed = fixed(&shared.options, &new);
    for name in &fixed {
        tracing::error!("SIGHUP: {name} changes at the agent's next start only");
    }
    let old = shared.live();
    let changed = changed(&old, &new.live);
    // Whoever asks from now on is told the new.
    *shared.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new.live.clone());
    if old.record_rate != new.live.record_rate
        && let Err(error) = shared.kernel.limit_records(new.live.record_rate)
    {
        tracing::error!("records are limited as before: {}", chain(&error));
    }
    if old.guard != new.live.guard {
        guard::follow(shared, &shared.policies);
        guard::warn(shared);
    }
    if old.track != new.live.track {
        shared.found.look_anew();
    }
    directory::apply(shared);
    for name in &changed {
        tracing::info!("SIGHUP: {name} is changed");
    }
    if changed.is_empty() && fixed.is_empty() {
        tracing::info!("SIGHUP: the log's filter and the policy files were read again");
    }
    if fixed.is_empty() {
        "reloaded"
    } else {
        "reloaded in part, see the log"
    }
}

/// Settings by their names in the configuration.
fn changed(old: &Live, new: &Live) -> Vec<&'static str> {
    let Live {
        detach_on_exit,
        track,
        record_rate,
        cni,
        guard,
        policy_dir,
    } = old;
    let settings = [
        (
            *detach_on_exit != new.detach_on_exit,
            "agent.detach_on_exit",
        ),
        (*track != new.track, "agent.track"),
        (
            *record_rate != new.record_rate,
            "events.rate or events.burst",
        ),
        (*cni != new.cni, "[cni]"),
        (*guard != new.guard, "agent.guard"),
        (*policy_dir != new.policy_dir, "policy.dir"),
    ];
    named(&settings)
}

fn fixed(old: &Options, new: &Options) -> Vec<&'static str> {
    named(&[
        (
            old.listen != new.listen,
            "web.listen_address or web.systemd_socket",
        ),
        (old.web_config != new.web_config, "web.config_file"),
        (
            old.events != new.events,
            "events.max_size or events.max_age",
        ),
        (old.journald != new.journald, "events.journald"),
        (
            old.otlp_endpoint != new.otlp_endpoint,
            "events.otlp_endpoint",
        ),
        (old.probe != new.probe, "agent.require_probe"),
        (old.canary != new.canary, "agent.canary_interval"),
    ])
}

fn named(settings: &[(bool, &'static str)]) -> Vec<&'static str> {
    let which = settings.iter().filter(|(differs, _)| *differs);
    which.map(|(_, name)| *name).collect()
}
