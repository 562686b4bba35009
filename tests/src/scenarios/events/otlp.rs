//! Events as OTLP logs at a collector: what arrives is what `paddock events` tells, and one that is
//! gone, silent or busy costs nobody anything and gets all that it missed, each event once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::kernel::{able, equal, host_way};
use crate::{
    collector::{Collector, Manner, Posted},
    context::{Context, eventually},
    kernels,
    runner::Scenario,
};

pub const ALL: &[Scenario] =
    &[Scenario::new("events::a_collector_gets_each_once", each_once).alone()];

/// As the guide says.
const AT_MOST: usize = 256;
const ESCAPES: usize = 3;
/// For an answer that waits for nobody.
const PROMPT: Duration = Duration::from_secs(2);

fn each_once(context: &Context) -> Result<()> {
    let collector = Collector::start("127.0.0.1:0", Manner::Polite)?;
    let address = collector.address.clone();
    let endpoint = format!("http://{address}");
    let flags = ["--detach-on-exit", "--events-otlp-endpoint", &endpoint];
    context.start_agent(&flags)?;
    escape(context, "first")?;
    let killed = context.paddock(&[
        "run",
        "--name",
        "greedy",
        "--memory",
        "64m",
        "host",
        "tail",
        "/dev/zero",
    ])?;
    ensure!(killed.code == Some(137), "{killed:?}");
    let got = arrives(context, || collector.posted())?;
    for (kind, verdict, container, count) in [
        ("namespace_call", Some("escape"), "first", ESCAPES),
        ("oom_kill", None, "greedy", 1),
    ] {
        let fits = |record: &&Value| {
            text(record, "event.name") == Some(kind)
                && text(record, "container.name") == Some(container)
                && text(record, "paddock.verdict") == verdict
        };
        let saw = got.values().filter(fits).count();
        ensure!(saw == count, "{saw} of {kind}, not {count}");
    }

    // Gone.
    let before = collector.closed();
    escape(context, "second")?;
    eventually("it was missed", || {
        let metrics = context.metrics()?;
        let value = |name| metrics.value(name, &[("to", "otlp")]).unwrap_or(0.0);
        Ok(value("paddock_events_shipping_errors_total") >= 1.0
            && value("paddock_events_shipping_behind") >= 1.0)
    })?;
    is_prompt(context)?;
    // There, and silent; then busy.
    let collector = Collector::start(&address, Manner::Silent)?;
    eventually("it is tried", || Ok(!collector.posted().is_empty()))?;
    escape(context, "third")?;
    is_prompt(context)?;
    collector.becomes(Manner::Busy);
    eventually("it is tried again", || {
        let mut posted = collector.posted().into_iter();
        Ok(posted.any(|one| one.manner == Manner::Busy))
    })?;
    // The next agent goes on there.
    ensure!(context.stop_agent()? == Some(0));
    collector.becomes(Manner::Polite);
    context.start_agent(&flags)?;
    escape(context, "fourth")?;
    let got = arrives(context, || [before.clone(), collector.posted()].concat())?;
    for name in ["first", "second", "third", "fourth"] {
        let of = |record: &&Value| {
            text(record, "container.name") == Some(name)
                && text(record, "paddock.verdict") == Some("escape")
        };
        let saw = got.values().filter(of).count();
        ensure!(saw == ESCAPES, "{name}: {saw}");
    }
    let metrics = context.metrics()?;
    let value = |name| metrics.value(name, &[("to", "otlp")]).unwrap_or(-1.0);
    equal("refused", value("paddock_events_shipping_refused_total"), 0)
}

/// A known count of escapes by a container of that name.
fn escape(context: &Context, name: &str) -> Result<()> {
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let count = ESCAPES.to_string();
    let mut args = able(name, &[&volume, &way]);
    args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", &count]);
    context.ok(&args).map(drop)
}

/// Waits until all that was told since the first one was taken, and none twice; by their ids.
fn arrives(context: &Context, posted: impl Fn() -> Vec<Posted>) -> Result<BTreeMap<u64, Value>> {
    let mut got = BTreeMap::new();
    eventually("all of them arrive", || {
        got.clear();
        for one in posted() {
            for (id, record) in records(&one)? {
                // One that it did not say it has comes again.
                if one.manner == Manner::Polite {
                    let twice = got.insert(id, record);
                    ensure!(twice.is_none(), "{id} came twice: {twice:?}");
                }
            }
        }
        let told = told(context)?;
        let Some((first, _)) = got.first_key_value() else {
            return Ok(false);
        };
        if !told.range(first..).all(|(id, _)| got.contains_key(id)) {
            return Ok(false);
        }
        for (id, record) in &got {
            is_as_told(told.get(id).context("it was never told")?, record)
                .with_context(|| record.to_string())?;
        }
        Ok(true)
    })?;
    Ok(got)
}

/// What `paddock events` says, by id.
fn told(context: &Context) -> Result<BTreeMap<u64, Value>> {
    let lines = context.ok(&["events", "--all", "--format", "json"])?;
    let by_id = |line: &str| {
        let event: Value = serde_json::from_str(line)?;
        Ok((event["id"].as_u64().context("no id")?, event))
    };
    lines.lines().map(by_id).collect()
}

/// The records of one request, which is as OTLP has it.
fn records(posted: &Posted) -> Result<Vec<(u64, Value)>> {
    ensure!(
        posted.path == "/v1/logs" && posted.content_type == "application/json",
        "{posted:?}"
    );
    let resource = &posted.body["resourceLogs"][0];
    let host = nix::unistd::gethostname()?;
    ensure!(
        text(&resource["resource"], "service.name") == Some("paddock")
            && text(&resource["resource"], "host.name") == host.to_str(),
        "{resource}"
    );
    let scope = &resource["scopeLogs"][0];
    ensure!(scope["scope"]["name"] == "paddock", "{scope}");
    let records = scope["logRecords"].as_array().context("no records")?;
    ensure!(
        (1..=AT_MOST).contains(&records.len()),
        "{} records",
        records.len()
    );
    let by_id = |record: &Value| {
        let id = text(record, "paddock.event.id").context("no id")?;
        Ok((id.parse()?, record.clone()))
    };
    records.iter().map(by_id).collect()
}

fn is_as_told(event: &Value, record: &Value) -> Result<()> {
    let whole = text(record, "paddock.event.json").context("no event")?;
    let whole: Value = serde_json::from_str(whole)?;
    ensure!(whole == *event, "another event: {event}");
    for (attribute, field) in [
        ("event.name", "event"),
        ("container.name", "container"),
        ("container.id", "container_id"),
        ("paddock.verdict", "verdict"),
    ] {
        ensure!(
            text(record, attribute) == event[field].as_str(),
            "{attribute}, not {field}"
        );
    }
    let time = event["time_ns"].to_string();
    ensure!(
        record["timeUnixNano"].as_str() == Some(time.as_str()),
        "another time"
    );
    // https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
    let severity = match (event["event"].as_str(), event["verdict"].as_str()) {
        (_, Some("escape")) => Some((17, "ERROR")),
        (_, Some("escape_attempt")) | (Some("oom_kill"), _) => Some((13, "WARN")),
        (Some("exec" | "exit"), _) => Some((9, "INFO")),
        _ => None,
    };
    ensure!(
        severity.is_none_or(|(number, word)| {
            record["severityNumber"] == number && record["severityText"] == word
        }),
        "{severity:?}"
    );
    let body = record["body"]["stringValue"].as_str().context("no body")?;
    let name = event["container"].as_str().unwrap_or("host");
    ensure!(body.starts_with(&format!("{name}: ")), "{name}");
    Ok(())
}

/// An attribute that is text.
fn text<'a>(record: &'a Value, key: &str) -> Option<&'a str> {
    let attributes = record["attributes"].as_array()?;
    let one = attributes.iter().find(|one| one["key"] == key)?;
    one["value"]["stringValue"].as_str()
}

/// The agent answers at once, whoever it waits for.
fn is_prompt(context: &Context) -> Result<()> {
    let limit = if kernels::is_guest() {
        4 * PROMPT
    } else {
        PROMPT
    };
    let start = Instant::now();
    context.metrics()?;
    let scraped = start.elapsed();
    let start = Instant::now();
    context.ok(&["ps"])?;
    let listed = start.elapsed();
    ensure!(
        scraped < limit && listed < limit,
        "a scrape took {scraped:?}, a list {listed:?}"
    );
    Ok(())
}
