//! A metric family: its name, help and kind stated once, its series made at scrape time.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    /// Beside `container`, which every family of containers has.
    pub(super) labels: &'static [&'static str],
}

/// Labels of one series; any order, the exposition has them sorted.
pub(super) type Labels = Vec<(&'static str, String)>;

impl Family {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: Kind::Counter,
            labels: &[],
        }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: Kind::Gauge,
            labels: &[],
        }
    }

    pub(super) const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    /// The family with these series.
    pub(super) fn with(&self, series: impl IntoIterator<Item = (Labels, f64)>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
        });
        family.set_metric(
            series
                .into_iter()
                .map(|(labels, value)| self.metric(labels, value))
                .collect(),
        );
        family
    }

    fn metric(&self, mut labels: Labels, value: f64) -> Metric {
        labels.sort_unstable_by_key(|(name, _)| *name);
        let pairs = labels.into_iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value);
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        match self.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        metric
    }
}

/// Prometheus has only floats; counts stay exact to 2^53.
#[expect(clippy::cast_precision_loss, reason = "the format has no integers")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

pub(super) fn seconds(microseconds: u64) -> f64 {
    float(microseconds) / 1e6
}
