//! What comes is what was packed, by every way that an image comes.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{base, layer_dir, layout, refused, tar_layer, with_scratch};
use crate::{
    context::{Context, eventually, finish},
    image::{Entry, Image, Layer, Tar, digest, filter, listing, names},
    process::Running,
    registry::{PASSWORD, Registry, Trouble},
    runner::Scenario,
    terminal::Terminal,
};

pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "images::a_layer_is_what_tar_unpacks",
        a_layer_is_what_tar_unpacks,
    )
    .alone(),
    Scenario::new("images::xattrs_devices_and_times", xattrs_devices_and_times).alone(),
    Scenario::new("images::archives", archives).alone(),
    Scenario::new("images::registry", registry).alone(),
    Scenario::new("images::registry_troubles", registry_troubles).alone(),
    Scenario::new(
        "images::interrupted_leaves_nothing",
        interrupted_leaves_nothing,
    )
    .alone(),
    Scenario::new("images::bars_on_a_terminal", bars_on_a_terminal).alone(),
    Scenario::new("images::import", import).alone(),
];

/// One of everything that tar programs agree on.
fn assorted() -> Tar {
    let big: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let long = format!("deep/{}", "d".repeat(90));
    Tar::new()
        .directory("./", 0o751)
        .directory("deep/", 0o2775)
        .directory(&format!("{long}/"), 0o711)
        .file(&format!("{long}/{}", "f".repeat(90)), 0o640, b"far")
        .file("big", 0o600, &big)
        .file("empty", 0o444, b"")
        .entry(&Entry {
            name: "owned",
            kind: b'0',
            mode: 0o4755,
            uid: 1234,
            gid: 4321,
            content: b"setuid",
            ..Entry::default()
        })
        .symlink("absolute", "/etc/passwd")
        .symlink("dangling", "../../../nowhere")
        .hard_link("again", "big")
        .entry(&Entry {
            name: "pipe",
            kind: b'6',
            mode: 0o622,
            ..Entry::default()
        })
        .file("twice", 0o644, b"first")
        .file("twice", 0o600, b"second")
        .file("/leading/slash", 0o644, b"inside")
}

fn a_layer_is_what_tar_unpacks(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let tar = assorted().finish();
        let theirs = scratch.join("theirs");
        fs::create_dir(&theirs)?;
        fs::write(scratch.join("layer.tar"), &tar)?;
        let mut command = Command::new("tar");
        command
            .arg("-xpf")
            .arg(scratch.join("layer.tar"))
            .arg("-C")
            .arg(&theirs);
        let output = finish(&mut command)?;
        ensure!(output.code == Some(0), "tar: {output:?}");
        let expected = listing(&theirs)?;
        for (name, layer) in [
            ("plain", Layer::plain(tar.clone())?),
            ("gzip", Layer::gzip(&tar)?),
            ("zstd", Layer::zstd(&tar)?),
        ] {
            let image = layout(
                &scratch.join(name),
                std::slice::from_ref(&layer),
                &json!({}),
            )?;
            let id = context.ok(&["pull", &image])?;
            let unpacked = listing(&layer_dir(context, &layer.diff_id))?;
            ensure!(
                unpacked == expected,
                "{name}:\n{unpacked:#?}\ntar:\n{expected:#?}"
            );
            context.ok(&["images", "rm", id.trim()])?;
            ensure!(
                !layer_dir(context, &layer.diff_id).exists(),
                "{name}: its layer stays"
            );
        }
        Ok(())
    })
}

/// What tar programs differ in is compared with what was asked for.
fn xattrs_devices_and_times(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        // VFS_CAP_REVISION_2, effective, cap_net_raw.
        let capability = [
            1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let tar = Tar::new()
            .entry(&Entry {
                name: "capable",
                kind: b'0',
                mode: 0o755,
                uid: 7,
                content: b"x",
                records: &[
                    ("SCHILY.xattr.security.capability", &capability),
                    ("SCHILY.xattr.trusted.note", b"a=b\nc"),
                    ("mtime", b"1600000000.123456789"),
                ],
                ..Entry::default()
            })
            .entry(&Entry {
                name: "disk",
                kind: b'4',
                mode: 0o660,
                device: (8, 1),
                ..Entry::default()
            })
            .directory("old/", 0o700)
            .file("old/new", 0o644, b"");
        let layer = Layer::gzip(&tar.finish())?;
        let image = layout(
            &scratch.join("image"),
            std::slice::from_ref(&layer),
            &json!({}),
        )?;
        context.ok(&["pull", &image])?;
        let root = layer_dir(context, &layer.diff_id);
        let capable = root.join("capable");
        for (key, expected) in [
            ("security.capability", &capability[..]),
            ("trusted.note", b"a=b\nc"),
        ] {
            let mut value = [0; 64];
            let length = rustix::fs::lgetxattr(&capable, key, &mut value)?;
            ensure!(
                &value[..length] == expected,
                "{key}: {:?}",
                &value[..length]
            );
        }
        let found = fs::metadata(&capable)?;
        ensure!(
            (found.mtime(), found.mtime_nsec()) == (1_600_000_000, 123_456_789),
            "{found:?}"
        );
        let disk = fs::symlink_metadata(root.join("disk"))?;
        ensure!(
            disk.mode() == 0o060_660 && disk.rdev() == nix::sys::stat::makedev(8, 1),
            "{disk:?}"
        );
        let old = fs::metadata(root.join("old"))?;
        ensure!(
            old.mtime() == crate::image::MODIFIED,
            "a directory's time: {}",
            old.mtime()
        );
        Ok(())
    })
}

fn archives(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let layers = [
            base()?,
            tar_layer(Tar::new().file("marker", 0o644, b"here\n"))?,
        ];
        let image = Image::new(&layers, &json!({"Cmd": ["cat", "/marker"]}))?;
        let layout = scratch.join("layout");
        image.write(&layout, "one")?;
        // GNU tar and busybox' one write them.
        let pack = |name: &str, dir: &std::path::Path, options: &str| -> Result<()> {
            let mut command = Command::new("tar");
            command
                .arg(options)
                .arg(scratch.join(name))
                .arg("-C")
                .arg(dir)
                .arg(".");
            let output = finish(&mut command)?;
            ensure!(output.code == Some(0), "tar: {output:?}");
            Ok(())
        };
        pack("oci.tar", &layout, "-cf")?;
        pack("oci.tar.gz", &layout, "-czf")?;
        // docker save's old form: a directory a layer.
        let saved = scratch.join("saved");
        let mut paths = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let dir = saved.join(format!("l{index}"));
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("layer.tar"), &layer.blob)?;
            paths.push(format!("l{index}/layer.tar"));
        }
        fs::write(
            saved.join("config.json"),
            image.blob(&image.id).context("no config")?,
        )?;
        let manifest = json!([{"Config": "config.json", "RepoTags": ["app:1"], "Layers": paths}]);
        fs::write(saved.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
        pack("docker.tar", &saved, "-cf")?;
        pack("docker.tar.gz", &saved, "-czf")?;
        for place in [
            "oci-archive:oci.tar:one",
            "oci-archive:oci.tar.gz",
            "docker-archive:docker.tar",
            "docker-archive:docker.tar.gz:app:1",
        ] {
            let (kind, rest) = place.split_once(':').context("no kind")?;
            let place = format!("{kind}:{}/{rest}", scratch.display());
            let id = context.ok(&["pull", &place])?;
            ensure!(id.trim() == image.id, "{place}: {id}");
            ensure!(context.ok(&["run", "--rm", &place])? == "here\n", "{place}");
            // The agent may still be removing the container.
            eventually("it can be removed", || {
                Ok(context.paddock(&["images", "rm", &place])?.code == Some(0))
            })?;
        }
        for (place, word) in [
            ("oci-archive:oci.tar:two", "one"),
            ("docker-archive:docker.tar:b", "app:1"),
        ] {
            let (kind, rest) = place.split_once(':').context("no kind")?;
            let place = format!("{kind}:{}/{rest}", scratch.display());
            refused(&context.paddock(&["pull", &place])?, 1, &[word])?;
        }
        Ok(())
    })
}

fn registry(context: &Context) -> Result<()> {
    let registry = Registry::start(Trouble::default())?;
    let layers = [
        base()?,
        Layer::gzip(&Tar::new().file("m", 0o644, b"1").finish())?,
    ];
    let image = Image::new(&layers, &json!({"Cmd": ["cat", "/m"]}))?;
    let other = Image::new(&layers[..1], &json!({"Cmd": ["false"]}))?;
    registry.push("app:1", &image);
    registry.push("app:other", &other);
    registry.push_index(
        "app:multi",
        &[("s390x", &other), (crate::image::architecture(), &image)],
    )?;
    let at = registry.address();
    ensure!(context.ok(&["run", "--rm", &format!("{at}/app:1")])? == "1");
    let pulls = registry.log().len();
    ensure!(context.ok(&["run", "--rm", "--pull", "never", &format!("{at}/app:1")])? == "1");
    ensure!(
        registry.log().len() == pulls,
        "asked again: {:?}",
        registry.log()
    );
    for name in ["app:multi".to_owned(), format!("app@{}", image.manifest)] {
        let id = context.ok(&["pull", &format!("{at}/{name}")])?;
        ensure!(id.trim() == image.id, "{name}: {id}");
    }
    let blob = format!("/v2/app/blobs/{}", digest(&layers[1].blob)?);
    let fetched = registry.log().iter().filter(|line| **line == blob).count();
    ensure!(
        fetched == 1,
        "the layer came {fetched} times: {:?}",
        registry.log()
    );
    refused(
        &context.paddock(&["pull", &format!("{at}/app:none")])?,
        1,
        &["app:none", "no such image"],
    )?;
    let run = context.paddock(&["run", &format!("{at}/app:none")])?;
    refused(&run, 125, &["app:none", "no such image"])?;
    let never = context.paddock(&["run", "--pull", "never", &format!("{at}/app:other")])?;
    refused(&never, 125, &["app:other", "paddock pull"])?;
    // Nobody listens there.
    refused(
        &context.paddock(&["pull", "127.0.0.1:1/app"])?,
        1,
        &["127.0.0.1:1", "connect"],
    )
}

fn registry_troubles(context: &Context) -> Result<()> {
    let trouble = Trouble {
        password: Some(PASSWORD.0),
        redirect: true,
        breaks: true,
        ..Trouble::default()
    };
    let registry = Registry::start(trouble)?;
    let noise: Vec<u8> = (0..200_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let layer = tar_layer(Tar::new().file("noise", 0o644, &noise))?;
    let image = Image::new(std::slice::from_ref(&layer), &json!({}))?;
    registry.push("app:1", &image);
    let name = format!("{}/app:1", registry.address());
    with_scratch(context, |scratch| {
        let pull = |config: Option<&str>| {
            if let Some(config) = config {
                fs::write(scratch.join("config.json"), config)?;
            }
            finish(
                context
                    .command(&["pull", &name])
                    .env("DOCKER_CONFIG", scratch)
                    .stdin(Stdio::null()),
            )
        };
        refused(&pull(None)?, 1, &["config.json"])?;
        ensure!(!context.data.join("images/names.json").exists());
        let auth = PASSWORD.1.trim_start_matches("Basic ");
        let config = json!({"auths": {registry.address(): {"auth": auth}}}).to_string();
        let output = pull(Some(&config))?;
        ensure!(
            output.code == Some(0) && output.stdout.trim() == image.id,
            "{output:?}"
        );
        let log = registry.log();
        let continued = log
            .iter()
            .any(|line| line.starts_with("storage ") && line.contains(" range "));
        ensure!(continued, "it never went on: {log:?}");
        let leaked: Vec<_> = log
            .iter()
            .filter(|line| line.starts_with("storage ") && line.contains(" auth"))
            .collect();
        ensure!(
            leaked.is_empty(),
            "the token went to the storage: {leaked:?}"
        );
        let unpacked = fs::read(layer_dir(context, &layer.diff_id).join("noise"))?;
        ensure!(unpacked == noise, "its content differs");
        Ok(())
    })?;
    // A blob that is not what its name says: with the right length, a shorter, a longer one.
    let registry = Registry::start(Trouble::default())?;
    let tar = Tar::new().file("a", 0o644, b"right").finish();
    let layer = Layer::plain(tar.clone())?;
    let image = Image::new(std::slice::from_ref(&layer), &json!({}))?;
    registry.push("bad:1", &image);
    let name = format!("{}/bad:1", registry.address());
    let before = names(&context.data);
    let wrong = Tar::new().file("a", 0o644, b"wrong").finish();
    let blob = digest(&layer.blob)?;
    for content in [&wrong[..], &tar[..600], &[&tar[..], &[0; 512]].concat()] {
        registry.corrupt(&blob, content);
        refused(&context.paddock(&["pull", &name])?, 1, &[""])?;
        ensure!(names(&context.data) == before, "left something");
    }
    Ok(())
}

/// By SIGINT nothing stays; after a SIGKILL the next pull removes what did.
/// A bar for each layer, no wider than the terminal; a line for each where there is none.
fn bars_on_a_terminal(context: &Context) -> Result<()> {
    let registry = Registry::start(Trouble {
        slow: Some(Duration::from_millis(20)),
        ..Trouble::default()
    })?;
    let noise: Vec<u8> = (0..60_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 4])
        .collect();
    let layers = [
        tar_layer(Tar::new().file("n", 0o644, &noise))?,
        tar_layer(Tar::new().file("small", 0o644, b"s"))?,
    ];
    registry.push("bars:1", &Image::new(&layers, &json!({}))?);
    let name = format!("{}/bars:1", registry.address());
    for columns in [80, 200] {
        let mut terminal = Terminal::of(context, &["pull", &name], columns)?;
        terminal.shows("fetching ")?;
        ensure!(terminal.ended()? == Some(0), "{:?}", terminal.shown());
        let shown = terminal.shown();
        // Lines are padded to the terminal's width, so that one ends where the next begins.
        for drawn in shown.split(['\r', '\n']).map(plain) {
            let drawn: Vec<char> = drawn.chars().collect();
            for line in drawn.chunks(columns.into()) {
                let line: String = line.iter().collect();
                ensure!(line.matches(": ").count() <= 1, "{columns}: {line:?}");
            }
        }
        let done = shown.matches("done, ").count();
        ensure!(done >= 2 && shown.contains('█'), "{done}: {shown:?}");
        context.ok(&["images", "rm", &name])?;
    }
    let output = context.paddock(&["pull", &name])?;
    ensure!(output.code == Some(0), "{output:?}");
    let lines = output.stderr.lines();
    ensure!(
        !output.stderr.contains('\u{1b}')
            && lines.clone().count() == 2
            && lines.clone().all(|line| line.contains(": done, ")),
        "{output:?}"
    );
    Ok(())
}

/// Without what moves the cursor and colours.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            text.push(char);
        }
    }
    text
}

fn interrupted_leaves_nothing(context: &Context) -> Result<()> {
    let trouble = Trouble {
        slow: Some(Duration::from_millis(20)),
        ..Trouble::default()
    };
    let registry = Registry::start(trouble)?;
    let noise: Vec<u8> = (0..2_000_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 4])
        .collect();
    let image = Image::new(
        &[tar_layer(Tar::new().file("n", 0o644, &noise))?],
        &json!({}),
    )?;
    registry.push("slow:1", &image);
    let name = format!("{}/slow:1", registry.address());
    // An import of something small makes the store.
    let ours = with_store(context)?;
    let before = names(&context.data);
    for signal in [
        nix::sys::signal::Signal::SIGINT,
        nix::sys::signal::Signal::SIGKILL,
    ] {
        let running = Running::start(&mut context.command(&["pull", &name]))?;
        eventually("the blob comes", || {
            let staged = names(&context.data.join("images/tmp"));
            Ok(staged.iter().any(|path| {
                fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 2048)
            }))
        })?;
        running.signal(signal)?;
        let output = running.wait(Duration::from_secs(20))?;
        ensure!(output.code == 128 + signal as i32, "{output:?}");
        let kept = names(&context.data) == before;
        ensure!(
            kept == (signal == nix::sys::signal::Signal::SIGINT),
            "{signal}: {:?}",
            names(&context.data)
        );
    }
    context.ok(&["images", "import", &ours, "small:1"])?;
    fs::remove_file(&ours)?;
    ensure!(names(&context.data) == before, "{:?}", names(&context.data));
    Ok(())
}

fn with_store(context: &Context) -> Result<String> {
    let path = context.state.with_extension("tar");
    fs::write(&path, Tar::new().file("x", 0o644, b"x").finish())?;
    let path = path.display().to_string();
    context.ok(&["images", "import", &path, "small:1"])?;
    Ok(path)
}

fn import(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let tar = assorted().finish();
        let root = scratch.join("root");
        fs::create_dir(&root)?;
        fs::write(scratch.join("root.tar"), &tar)?;
        fs::write(scratch.join("root.tgz"), filter(&["gzip", "-c"], &tar)?)?;
        let mut command = Command::new("tar");
        command
            .arg("-xpf")
            .arg(scratch.join("root.tar"))
            .arg("-C")
            .arg(&root);
        ensure!(finish(&mut command)?.code == Some(0), "tar");
        let expected = listing(&root)?;
        for name in ["root.tar", "root.tgz", "root"] {
            let source = scratch.join(name).display().to_string();
            let id = context.ok(&["images", "import", &source, "made:1"])?;
            let list = context.json(&["images", "ls", "--format", "json"])?;
            let image = list
                .as_array()
                .and_then(|all| all.iter().find(|image| image["id"] == id.trim()))
                .context("not listed")?;
            ensure!(
                image["names"] == json!(["docker.io/library/made:1"]),
                "{image}"
            );
            let layer = image["layers"][0].as_str().context("no layer")?;
            let unpacked = listing(&layer_dir(context, layer))?;
            ensure!(
                unpacked == expected,
                "{name}:\n{unpacked:#?}\nexpected:\n{expected:#?}"
            );
        }
        let table = context.ok(&["images"])?;
        ensure!(
            table.starts_with("IMAGE ") && table.contains("made:1") && table.contains("<none>"),
            "{table}"
        );
        let before = names(&context.data);
        fs::write(scratch.join("cut.tar"), &tar[..tar.len() - 1024])?;
        fs::write(scratch.join("text"), "no tar\n".repeat(200))?;
        for (name, word) in [
            ("cut.tar", "truncated"),
            ("text", "no tar"),
            ("missing", "missing"),
        ] {
            let source = scratch.join(name).display().to_string();
            refused(
                &context.paddock(&["images", "import", &source, "bad:1"])?,
                1,
                &[name, word],
            )?;
        }
        refused(
            &context.paddock(&["images", "import", "/dev/null", "bad:1"])?,
            1,
            &["/dev/null", "regular"],
        )?;
        refused(
            &context.paddock(&["images", "import", "/tmp", "BAD"])?,
            1,
            &["BAD"],
        )?;
        ensure!(names(&context.data) == before, "left something");
        Ok(())
    })
}
