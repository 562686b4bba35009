//! The text that Prometheus reads, family by family: what is in memory at once is one family's
//! series and the text, not the series of all.

use std::collections::BTreeMap;

use prometheus::{Encoder as _, TextEncoder, proto::MetricFamily};

/// Families by name, as text.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    families: BTreeMap<String, Vec<u8>>,
    failed: Option<prometheus::Error>,
}

impl Exposition {
    /// One without series is left out.
    pub(super) fn add(&mut self, family: &MetricFamily) {
        if family.get_metric().is_empty() {
            return;
        }
        let text = self.families.entry(family.name().to_owned()).or_default();
        let encoded = TextEncoder::new().encode(std::slice::from_ref(family), text);
        if let Err(error) = encoded {
            self.failed.get_or_insert(error);
        }
    }

    /// Sorted by their names.
    pub(super) fn text(self) -> Result<Vec<u8>, prometheus::Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut text = Vec::with_capacity(self.families.values().map(Vec::len).sum());
        for family in self.families.into_values() {
            text.extend(family);
        }
        Ok(text)
    }
}
