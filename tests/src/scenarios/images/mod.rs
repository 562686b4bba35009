//! Images: what comes is what was packed, what is hostile or broken leaves nothing.

mod confined;
mod hostile;
mod pull;
pub(super) mod remap;
mod run;
mod store;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{
    context::{Context, Output},
    image::{Image, Layer, Tar, busybox},
    runner::Scenario,
};

pub const ALL: &[&[Scenario]] = &[
    pull::ALL,
    hostile::ALL,
    confined::ALL,
    run::ALL,
    remap::ALL,
    store::ALL,
];

/// A directory for what a scenario makes beside the state; the caller removes it.
fn with_scratch(context: &Context, test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let scratch = context.state.with_extension("scratch");
    std::fs::create_dir(&scratch)?;
    let result = test(&scratch);
    std::fs::remove_dir_all(&scratch)?;
    result
}

/// A layout with one image of these layers, as `oci:DIR:latest`.
fn layout(dir: &Path, layers: &[Layer], config: &serde_json::Value) -> Result<String> {
    Image::new(layers, config)?.write(dir, "latest")?;
    Ok(format!("oci:{}:latest", dir.display()))
}

/// busybox with a shell.
fn base() -> Result<Layer> {
    Layer::plain(busybox()?.finish())
}

fn tar_layer(tar: Tar) -> Result<Layer> {
    Layer::plain(tar.finish())
}

/// Where the store keeps a layer.
fn layer_dir(context: &Context, diff_id: &str) -> PathBuf {
    context
        .data
        .join("images/layer")
        .join(&diff_id[7..])
        .join("fs")
}

/// Refused in one line that has all of `words`, with the code of a failure.
fn refused(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| !line.starts_with("paddock: layer ") || line.contains("refused"))
        .collect();
    ensure!(output.code == Some(code), "{output:?}");
    let line = output.stderr.lines().last().context("it said nothing")?;
    ensure!(
        said.len() <= 1 && words.iter().all(|word| line.contains(word)),
        "expected {words:?}: {output:?}"
    );
    Ok(())
}
