//! What a pull shows on stderr: a bar for each layer on a terminal, else a line.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use paddock_images::{Digest, Progress};

use crate::{exit, human};

#[derive(Debug)]
pub(super) struct Bars {
    bars: MultiProgress,
    layers: Mutex<BTreeMap<usize, Layer>>,
}

#[derive(Debug)]
struct Layer {
    digest: Digest,
    total: Option<u64>,
    bar: ProgressBar,
}

impl Bars {
    /// Draws nothing where stderr is no terminal.
    pub(super) fn new() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            layers: Mutex::default(),
        }
    }

    fn with(&self, layer: usize, action: impl FnOnce(&Layer)) {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = layers.get(&layer) {
            action(layer);
        }
    }
}

/// Both are in indicatif's own language; one that it refused would only look plain.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Bars {
    fn waiting(&self) {
        exit::note("another pull works in this data directory: waiting for it");
    }

    fn begin(&self, layer: usize, digest: Digest, total: Option<u64>) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if layers.contains_key(&layer) {
            return;
        }
        let bar = self.bars.add(ProgressBar::new(total.unwrap_or(0)));
        bar.set_style(style("{prefix}: {msg:9} [{bar:30}] {bytes}/{total_bytes}"));
        bar.set_prefix(digest.short());
        bar.set_message("fetching");
        layers.insert(layer, Layer { digest, total, bar });
    }

    fn advance(&self, layer: usize, bytes: u64) {
        self.with(layer, |layer| layer.bar.inc(bytes));
    }

    fn unpacking(&self, layer: usize) {
        self.with(layer, |layer| {
            layer.bar.set_position(0);
            layer.bar.set_message("unpacking");
        });
    }

    fn done(&self, layer: usize, present: bool) {
        self.with(layer, |layer| {
            let size = layer.total.map(human::bytes).unwrap_or_default();
            let what = if present {
                "is here already".to_owned()
            } else {
                format!("done, {size}")
            };
            layer.bar.set_style(style("{prefix}: {msg}"));
            layer.bar.finish_with_message(what.clone());
            if self.bars.is_hidden() {
                exit::note(&format!("layer {}: {what}", layer.digest.short()));
            }
        });
    }
}
