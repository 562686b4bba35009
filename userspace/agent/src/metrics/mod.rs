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
mod exposition;
mod family;
mod host;
mod web;

use std::time::Instant;

use prometheus::{core::Collector as _, process_collector::ProcessCollector};

pub(crate) use self::web::router;
use self::{exposition::Exposition, family::Family};
use crate::{clock, shared::Shared};

const SCRAPE_DURATION: Family = Family::gauge(
    "paddock_scrape_duration_seconds",
    "Time this scrape took to collect paddock's own families.",
);

/// Every family there is.
#[cfg(test)]
fn families() -> impl Iterator<Item = &'static Family> {
    container::FAMILIES
        .iter()
        .chain(cgroup::families())
        .chain(&host::FAMILIES)
        .chain([&SCRAPE_DURATION])
}

/// Everything, in Prometheus' text format. Blocking: cgroup files.
fn text(shared: &Shared, process: &ProcessCollector) -> Result<Vec<u8>, prometheus::Error> {
    let start = Instant::now();
    let mut page = Exposition::default();
    let exported = shared.registry.exported(clock::now_ns());
    container::expose(shared, &exported, &mut page);
    for family in host::collect(shared, &exported) {
        page.add(&family);
    }
    let took = start.elapsed().as_secs_f64();
    page.add(&SCRAPE_DURATION.with([(vec![], took)]));
    for family in process.collect() {
        page.add(&family);
    }
    page.text()
}
