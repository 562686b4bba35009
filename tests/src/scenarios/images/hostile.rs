//! Layers that nobody honest makes: each is refused, or harmless, and leaves nothing.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{layer_dir, layout, refused, tar_layer, with_scratch};
use crate::{
    context::Context,
    image::{Entry, Image, Layer, Tar, filter, names},
    runner::Scenario,
};

pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "images::hostile_layers_leave_nothing",
        hostile_layers_leave_nothing,
    )
    .alone(),
    Scenario::new(
        "images::hostile_links_stay_inside",
        hostile_links_stay_inside,
    )
    .alone(),
    Scenario::new(
        "images::broken_images_leave_nothing",
        broken_images_leave_nothing,
    )
    .alone(),
    Scenario::new("images::bombs_are_defused", bombs_are_defused).alone(),
];

/// Pulls; what was there before is there after, to the last name.
fn attack(context: &Context, dir: &Path, layers: &[Layer], words: &[&str]) -> Result<()> {
    let before = names(&context.data);
    let image = layout(dir, layers, &json!({}))?;
    let output = context.paddock(&["pull", &image])?;
    refused(&output, 1, words)?;
    let after = names(&context.data);
    ensure!(after == before, "{words:?} left {after:?}");
    Ok(())
}

/// A store with something in it that an attack could spoil.
fn filled(context: &Context, scratch: &Path) -> Result<()> {
    let good = tar_layer(Tar::new().file("good", 0o644, b"good"))?;
    let image = layout(&scratch.join("good"), &[good], &json!({}))?;
    context.ok(&["pull", &image]).map(drop)
}

fn entry<'a>(name: &'a str, kind: u8, link: &'a str) -> Entry<'a> {
    Entry {
        name,
        kind,
        mode: 0o777,
        link,
        ..Entry::default()
    }
}

#[expect(clippy::too_many_lines, reason = "a table of attacks")]
fn hostile_layers_leave_nothing(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        filled(context, scratch)?;
        let outside = scratch.join("outside");
        fs::create_dir(&outside)?;
        fs::write(outside.join("kept"), "kept")?;
        let kept = outside.join("kept").display().to_string();
        let start = || Tar::new().file("innocent", 0o644, b"x");
        let deep = "d/".repeat(10_000);
        let big_owner: &[(&str, &[u8])] = &[("uid", b"4294967295")];
        let redirect: &[(&str, &[u8])] = &[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")];
        let cases: Vec<(&str, Tar, &[&str])> = vec![
            (
                "dotdot",
                start().file("../escaped", 0o644, b"x"),
                &["'../escaped'", "'..'"],
            ),
            (
                "dotdot-inside",
                start().file("a/../../escaped", 0o644, b"x"),
                &["'..'"],
            ),
            (
                "root-link",
                start().entry(&entry(".", b'2', "/etc")),
                &["root"],
            ),
            ("root-file", start().entry(&entry("/", b'0', "")), &["root"]),
            (
                "root-hard",
                start().entry(&entry("./", b'1', "innocent")),
                &["root"],
            ),
            (
                "hard-outside",
                start().hard_link("shadow", &kept),
                &["shadow", "hard link"],
            ),
            (
                "hard-dotdot",
                start().hard_link("shadow", "../../../../etc/shadow"),
                &["'..'"],
            ),
            (
                "hard-through-link",
                start()
                    .symlink("out", &outside.display().to_string())
                    .hard_link("stolen", "out/kept"),
                &["stolen", "hard link"],
            ),
            ("deep", start().directory(&deep, 0o755), &["4095"]),
            (
                "long-part",
                start().file(&"n".repeat(300), 0o644, b"x"),
                &["255"],
            ),
            (
                "whiteout-parent",
                start().file(".wh...", 0o644, b""),
                &["whiteout"],
            ),
            (
                "whiteout-self",
                start().file("d/.wh..", 0o644, b""),
                &["whiteout"],
            ),
            (
                "whiteout-nothing",
                start().file(".wh.", 0o644, b""),
                &["whiteout"],
            ),
            (
                "whiteout-inside",
                start().file(".wh.d/x", 0o644, b""),
                &["whiteout"],
            ),
            (
                "through-file",
                start().file("innocent/x", 0o644, b""),
                &["innocent/x", "directory"],
            ),
            (
                "through-nowhere",
                start()
                    .symlink("gone", "/not/there")
                    .file("gone/x", 0o644, b""),
                &["gone/x"],
            ),
            (
                "owner",
                start().entry(&Entry {
                    records: big_owner,
                    ..entry("o", b'0', "")
                }),
                &["4294967295"],
            ),
            (
                "redirect",
                start().entry(&Entry {
                    records: redirect,
                    ..entry("o", b'5', "")
                }),
                &["overlay"],
            ),
            ("sparse", start().entry(&entry("s", b'S', "")), &["sparse"]),
            ("type", start().entry(&entry("s", b'Q', "")), &["'Q'"]),
            (
                "self-link",
                start().hard_link("me", "me"),
                &["me", "hard link"],
            ),
            (
                "loop",
                start()
                    .symlink("a", "b")
                    .symlink("b", "a")
                    .file("a/x", 0o644, b""),
                &["a/x"],
            ),
            (
                "magic-link",
                start()
                    .symlink("cwd", "/proc/self/cwd")
                    .file("cwd/x", 0o644, b""),
                &["cwd/x"],
            ),
        ];
        for (name, tar, words) in cases {
            attack(context, &scratch.join(name), &[tar_layer(tar)?], words)?;
        }
        ensure!(
            names(&outside) == [outside.join("kept")] && fs::read(outside.join("kept"))? == b"kept"
        );
        Ok(())
    })
}

/// What tar allows and resolves inside the root, harmlessly.
fn hostile_links_stay_inside(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let outside = scratch.join("outside");
        fs::create_dir(&outside)?;
        let out = outside.display().to_string();
        let tar = Tar::new()
            .directory(out.trim_start_matches('/'), 0o755)
            .symlink("escape", &out)
            .file("escape/written", 0o644, b"inside")
            .symlink("up", "../../../../../../../../../..")
            .file("up/top", 0o644, b"inside")
            // A link that is replaced by a directory, and a directory by a link.
            .symlink("swap", &out)
            .directory("swap", 0o755)
            .file("swap/file", 0o644, b"inside")
            .directory("turned/deep/deeper", 0o755)
            .file("turned/deep/deeper/x", 0o644, b"x")
            .symlink("turned", &out)
            .file("turned/through", 0o644, b"inside");
        let layer = tar_layer(tar)?;
        let image = layout(
            &scratch.join("image"),
            std::slice::from_ref(&layer),
            &json!({}),
        )?;
        context.ok(&["pull", &image])?;
        ensure!(
            names(&outside).is_empty(),
            "written outside: {:?}",
            names(&outside)
        );
        let root = layer_dir(context, &layer.diff_id);
        for name in ["written", "through"] {
            let path = root.join(out.trim_start_matches('/')).join(name);
            ensure!(fs::read(&path)? == b"inside", "{}", path.display());
        }
        ensure!(
            fs::read(root.join("top"))? == b"inside"
                && fs::read(root.join("swap/file"))? == b"inside"
        );
        ensure!(fs::symlink_metadata(root.join("swap"))?.is_dir());
        ensure!(fs::read_link(root.join("turned"))? == outside);
        Ok(())
    })
}

/// Of a manifest.
type Change = fn(&mut Value);

fn broken_images_leave_nothing(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        filled(context, scratch)?;
        let tar = Tar::new().file("a", 0o644, &vec![7; 100_000]).finish();
        let good = Layer::plain(tar.clone())?;
        let other = tar_layer(Tar::new().file("b", 0o644, b""))?;
        let gzip = Layer::gzip(&tar)?;
        let zstd = Layer::zstd(&tar)?;
        let cut = |layer: &Layer| Layer {
            blob: layer.blob[..layer.blob.len() - 20].to_vec(),
            ..layer.clone()
        };
        let claimed = |diff_id: &str| Layer {
            diff_id: diff_id.to_owned(),
            ..good.clone()
        };
        let half = Layer::plain(tar[..1000].to_vec())?;
        let garbage = Layer::plain(vec![b'x'; 4096])?;
        let cases: Vec<(&str, Vec<Layer>, &[&str])> = vec![
            ("cut-gzip", vec![cut(&gzip)], &["layer"]),
            ("cut-zstd", vec![cut(&zstd)], &["layer"]),
            ("cut-tar", vec![half], &["truncated"]),
            ("garbage", vec![garbage], &["no tar"]),
            (
                "diff-id",
                vec![claimed(&other.diff_id)],
                &["not what the image's config says"],
            ),
            // The first layer is whole: it must go with the second.
            ("second", vec![other.clone(), cut(&gzip)], &["layer"]),
        ];
        for (name, layers, words) in cases {
            attack(context, &scratch.join(name), &layers, words)?;
        }
        let before = names(&context.data);
        let spoilt =
            |name: &str, words: &[&str], spoil: &dyn Fn(&mut Image) -> Result<()>| -> Result<()> {
                let mut image = Image::new(std::slice::from_ref(&good), &json!({}))?;
                spoil(&mut image)?;
                let dir = scratch.join(name);
                image.write(&dir, "latest")?;
                let output = context.paddock(&["pull", &format!("oci:{}", dir.display())])?;
                refused(&output, 1, words).and_then(|()| {
                    ensure!(names(&context.data) == before, "{name} left something");
                    Ok(())
                })
            };
        spoilt("blob", &["not what was asked for"], &|image| {
            // In the padding, so that nothing but the digest tells.
            let last = image.blobs[0].1.len() - 1;
            image.blobs[0].1[last] ^= 1;
            Ok(())
        })?;
        spoilt("config", &["not what its name says"], &|image| {
            image.blobs[1].1.push(b' ');
            Ok(())
        })?;
        spoilt("missing", &["has no blobs"], &|image| {
            image.blobs.remove(0);
            Ok(())
        })?;
        let manifests: [(&str, &str, Change); 4] = [
            ("size", "bytes came instead of", |manifest| {
                manifest["layers"][0]["size"] = json!(1);
            }),
            ("count", "2 layers", |manifest| {
                let layer = manifest["layers"][0].clone();
                manifest["layers"] = json!([layer, layer]);
            }),
            ("traversal", "JSON", |manifest| {
                manifest["layers"][0]["digest"] = json!("sha256:../../../../../../etc/passwd");
            }),
            ("no-config", "JSON", |manifest| {
                manifest["config"] = Value::Null;
            }),
        ];
        for (name, word, change) in manifests {
            spoilt(name, &[word], &|image| {
                let mut manifest: Value = serde_json::from_slice(&image.blobs[2].1)?;
                change(&mut manifest);
                let bytes = serde_json::to_vec(&manifest)?;
                image.manifest = crate::image::digest(&bytes)?;
                image.size = bytes.len();
                image.blobs[2] = (image.manifest.clone(), bytes);
                Ok(())
            })?;
        }
        Ok(())
    })
}

fn bombs_are_defused(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        filled(context, scratch)?;
        let before = names(&context.data);
        // 48 MiB of zeros in 48 KiB; a name of 8 MiB; an archive that grows.
        let zeros = vec![0; 48 << 20];
        let mut header = Tar::new().file("zeros", 0o644, b"").finish();
        header.truncate(512);
        header[124..135].copy_from_slice(format!("{:011o}", zeros.len()).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let blob = filter(&["gzip", "-1c"], &[&header[..], &zeros].concat())?;
        let bomb = Layer {
            blob: blob.clone(),
            diff_id: crate::image::digest(b"")?,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
        };
        let long = Tar::new().entry(&Entry {
            content: &zeros[..8 << 20],
            ..entry("././@LongLink", b'L', "")
        });
        let many = (0..50).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), 0o644, b""));
        let archive = scratch.join("bomb.tar.gz");
        fs::write(&archive, &blob)?;
        let place = |name: &str, layer: Layer| layout(&scratch.join(name), &[layer], &json!({}));
        let cases = [
            (place("bomb", bomb)?, "--max-size", "16m", "--max-size"),
            (
                place("many", tar_layer(many)?)?,
                "--max-entries",
                "49",
                "--max-entries",
            ),
            (
                place("long", Layer::gzip(&long.finish())?)?,
                "--max-size",
                "1g",
                "too long",
            ),
            (
                format!("oci-archive:{}", archive.display()),
                "--max-size",
                "16m",
                "--max-size",
            ),
        ];
        for (image, flag, value, word) in cases {
            let output = context.paddock(&["pull", flag, value, &image])?;
            refused(&output, 1, &[word])?;
            ensure!(names(&context.data) == before, "{image} left something");
        }
        Ok(())
    })
}
