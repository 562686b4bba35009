//! What Prometheus scrapes, made from the registry and the kernel's maps at scrape time.
//!
//! Nothing is cached, so a container that is gone leaves no stale gauge. One label,
//! `container`, names a container; everything else about it is on `paddock_container_info`.
//!
//! Series per container: what wakes somebody by its first increment, 7 of escapes and 5 of OOM
//! kills, is there at zero from birth, since a series that is born above zero never increases by
//! that. What has many labels and seldom moves (namespace calls, activities, policy hits, memory
//! events, attempts) begins with its first one: ADR 21. A container with a memory limit comes to 40
//! (`cargo xtask bench scale`): about 21,000 at the cap of 512.

mod cgroup;
mod container;
#[cfg(test)]
mod docs;
mod family;
mod host;
mod web;

use std::{sync::Arc, time::Instant};

use prometheus::{
    Encoder as _, Registry, TextEncoder,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};

use self::family::Family;
pub(crate) use self::web::router;
use crate::{clock, shared::Shared};

const SCRAPE_DURATION: Family = Family::gauge(
    "paddock_scrape_duration_seconds",
    "Time this scrape took to collect paddock's own families.",
);

/// Every family there is, for the registry's check of names.
fn families() -> impl Iterator<Item = &'static Family> {
    container::FAMILIES
        .iter()
        .chain(cgroup::families())
        .chain(&host::FAMILIES)
        .chain([&SCRAPE_DURATION])
}

/// Reads everything when asked.
struct Live {
    shared: Arc<Shared>,
    descs: Vec<Desc>,
}

impl Live {
    fn new(shared: Arc<Shared>) -> Result<Self, prometheus::Error> {
        let descs = families().map(Family::desc).collect::<Result<_, _>>()?;
        Ok(Self { shared, descs })
    }
}

impl Collector for Live {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    /// Blocking: cgroup files.
    fn collect(&self) -> Vec<MetricFamily> {
        let start = Instant::now();
        let exported = self.shared.registry.exported(clock::now_ns());
        let mut collected = container::collect(&self.shared, &exported);
        collected.extend(host::collect(&self.shared, &exported));
        let took = start.elapsed().as_secs_f64();
        collected.push(SCRAPE_DURATION.with([(vec![], took)]));
        collected
    }
}

/// The registry behind `/metrics`.
fn registry(shared: Arc<Shared>) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(Live::new(shared)?))?;
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

/// The exposition in Prometheus' text format.
fn text(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}
