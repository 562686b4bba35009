//! What Prometheus scrapes, made from the registry and the kernel's maps at scrape time.
//!
//! Nothing is cached, so a container that is gone leaves no stale gauge. One label,
//! `container`, names a container; everything else about it is on `paddock_container_info`.
//!
//! Series per container: namespace calls have 8 types for each of setns and unshare with
//! outcome `allowed` and `failed`, and for clone, whose failures no hook sees, with `allowed`:
//! 40. With 4 of escapes, 2 of OOM kills, 5 of records, 1 of limits and at most 16 of the cgroup that is about 65, all
//! there from birth at zero, since an alert cannot see the first increment of a series that is
//! born above zero. At the cap of 512 labelled containers that is about 34,000 series.

mod cgroup;
mod container;
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

use self::family::{Family, Kind};
pub(crate) use self::web::router;
use crate::{clock, shared::Shared};

const SCRAPE_DURATION: Family = Family {
    name: "paddock_scrape_duration_seconds",
    help: "Time this scrape took to collect paddock's own families.",
    kind: Kind::Gauge,
};

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
