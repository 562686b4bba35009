//! The store: shared layers, names, ids, concurrent pulls, who may look into it.

use std::{fs, os::unix::fs::MetadataExt as _, os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{base, layer_dir, layout, refused, tar_layer, with_scratch};
use crate::{
    context::{Context, eventually},
    image::{Image, Tar, digest},
    process::Running,
    runner::Scenario,
};

pub(super) const ALL: &[Scenario] = &[
    Scenario::new("images::layers_are_shared", layers_are_shared).alone(),
    Scenario::new("images::names_and_ids", names_and_ids).alone(),
    Scenario::new("images::pulls_at_once", pulls_at_once).alone(),
    Scenario::new("images::store_is_roots_alone", store_is_roots_alone).alone(),
];

fn layers_are_shared(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let shared = base()?;
        let own = [
            tar_layer(Tar::new().file("a", 0o644, b"a"))?,
            tar_layer(Tar::new().file("b", 0o644, b"b"))?,
        ];
        let first = layout(
            &scratch.join("a"),
            &[shared.clone(), own[0].clone()],
            &json!({}),
        )?;
        let second = layout(
            &scratch.join("b"),
            &[shared.clone(), own[1].clone()],
            &json!({}),
        )?;
        context.ok(&["pull", &first])?;
        let dir = layer_dir(context, &shared.diff_id);
        let inode = fs::metadata(&dir)?.ino();
        let output = context.paddock(&["pull", &second])?;
        ensure!(
            output.code == Some(0) && output.stderr.contains("here already"),
            "{output:?}"
        );
        ensure!(fs::metadata(&dir)?.ino() == inode, "unpacked again");
        context.ok(&["images", "rm", &first])?;
        ensure!(dir.exists() && !layer_dir(context, &own[0].diff_id).exists());
        ensure!(context.ok(&["run", "--rm", &second, "cat", "/b"])? == "b");
        eventually("it can be removed", || {
            Ok(context.paddock(&["images", "rm", &second])?.code == Some(0))
        })?;
        ensure!(!dir.exists(), "nobody's layer stays");
        // The config's bytes are the image's id, by coreutils too.
        context.ok(&["pull", &first])?;
        let id = context.ok(&["images", "-q", "--no-trunc"])?;
        let config = context
            .data
            .join("images/image")
            .join(&id.trim()[7..])
            .join("config.json");
        ensure!(digest(&fs::read(config)?)? == id.trim(), "{id}");
        Ok(())
    })
}

fn names_and_ids(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let tar = scratch.join("root.tar");
        fs::write(&tar, crate::image::busybox()?.finish())?;
        let source = tar.display().to_string();
        let id = context.ok(&["images", "import", &source, "base:1"])?;
        context.ok(&["images", "import", &source, "base:2"])?;
        let hex = &id.trim()[7..];
        for name in ["base:1", "docker.io/library/base:2", &hex[..12], id.trim()] {
            ensure!(
                context.ok(&["run", "--rm", name, "/bin/busybox", "echo", "hi"])? == "hi\n",
                "{name}"
            );
        }
        let table = context.ok(&["images", "ls"])?;
        ensure!(
            table.lines().count() == 3 && table.contains(&hex[..12]),
            "{table}"
        );
        context.ok(&["images", "rm", "base:1"])?;
        ensure!(context.ok(&["images", "ls", "-q"])?.trim() == &hex[..12]);
        refused(
            &context.paddock(&["images", "rm", "base:1"])?,
            1,
            &["base:1"],
        )?;
        eventually("it can be removed", || {
            Ok(context.paddock(&["images", "rm", &hex[..12]])?.code == Some(0))
        })?;
        ensure!(context.ok(&["images", "ls", "-q"])?.is_empty());
        for name in ["", "../../etc", "sha256:zz", &"x".repeat(5000)] {
            refused(
                &context.paddock(&["images", "rm", name])?,
                1,
                &["paddock: "],
            )?;
        }
        Ok(())
    })
}

fn pulls_at_once(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let images: Vec<String> = (0..4)
            .map(|n| {
                let own = tar_layer(Tar::new().file(
                    &format!("f{}", n % 2),
                    0o644,
                    &vec![n % 2; 500_000],
                ))?;
                layout(
                    &scratch.join(format!("i{n}")),
                    &[base()?, own],
                    &json!({"Cmd": [n.to_string()]}),
                )
            })
            .collect::<Result<_>>()?;
        let running: Vec<Running> = images
            .iter()
            .map(|image| Running::start(&mut context.command(&["pull", image])))
            .collect::<Result<_>>()?;
        for one in running {
            one.wait(Duration::from_secs(50))?.ok()?;
        }
        let list = context.json(&["images", "ls", "--format", "json"])?;
        ensure!(list.as_array().context("no list")?.len() == 4, "{list}");
        let layers = fs::read_dir(context.data.join("images/layer"))?.count();
        ensure!(layers == 3, "{layers} layers");
        ensure!(
            fs::read_dir(context.data.join("images/tmp"))?
                .next()
                .is_none()
        );
        Ok(())
    })
}

fn store_is_roots_alone(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let image = Image::new(&[base()?], &json!({}))?;
        image.write(&scratch.join("image"), "latest")?;
        let name = format!("oci:{}", scratch.join("image").display());
        context.ok(&["pull", &name])?;
        let found = fs::metadata(&context.data)?;
        ensure!(
            (found.mode() & 0o777, found.uid()) == (0o700, 0),
            "{found:?}"
        );
        fs::set_permissions(&context.data, fs::Permissions::from_mode(0o755))?;
        refused(&context.paddock(&["pull", &name])?, 1, &["chmod 700"])?;
        fs::set_permissions(&context.data, fs::Permissions::from_mode(0o700))?;
        // Both sides must mean the same place.
        context.start_agent(&["--detach-on-exit"])?;
        let other = layout(
            &scratch.join("other"),
            &[base()?],
            &json!({"Cmd": ["true"]}),
        )?;
        let elsewhere = scratch.join("elsewhere").display().to_string();
        let output = context.paddock(&["run", "--data-dir", &elsewhere, &other])?;
        refused(&output, 125, &["--data-dir"])
    })
}
