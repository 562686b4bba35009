//! A container from an image: the merged root, the image's wishes, what it writes.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{base, layer_dir, layout, refused, tar_layer, with_scratch};
use crate::{
    context::{Context, eventually},
    image::{Entry, Tar, busybox, names},
    runner::Scenario,
    scenarios::remap::can_be_mapped,
};

pub(super) const ALL: &[Scenario] = &[
    Scenario::new("images::layers_are_merged", layers_are_merged).alone(),
    Scenario::new("images::many_layers", many_layers).alone(),
    Scenario::new("images::config_is_honoured", config_is_honoured).alone(),
    Scenario::new("images::devices_and_setuid", devices_and_setuid).alone(),
    Scenario::new(
        "images::what_is_written_is_the_containers_own",
        what_is_written_is_the_containers_own,
    )
    .alone(),
    Scenario::new("images::a_deep_tree_goes", a_deep_tree_goes).alone(),
    Scenario::new("images::agents_come_and_go", agents_come_and_go).alone(),
];

/// Whiteouts, opaque directories, types that change, directories that a layer only implies.
fn layers_are_merged(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let lower = busybox()?
            .directory("./", 0o750)
            .directory("tmp/", 0o1777)
            .directory("etc/", 0o755)
            .file("etc/gone", 0o644, b"gone")
            .file("etc/kept", 0o644, b"kept")
            .directory("hidden/", 0o755)
            .file("hidden/below", 0o644, b"below")
            .file("file-to-dir", 0o644, b"file")
            .directory("dir-to-file/x", 0o755)
            .directory("again/", 0o755)
            .file("again/below", 0o644, b"below");
        let upper = tar_layer(
            Tar::new()
                .file("etc/.wh.gone", 0o644, b"")
                .file("hidden/above", 0o644, b"above")
                .file("hidden/.wh..wh..opq", 0o644, b"")
                .file("file-to-dir/in", 0o644, b"in")
                .file("dir-to-file", 0o644, b"file")
                // Removed and made anew in one layer.
                .file(".wh.again", 0o644, b"")
                .directory("again/", 0o755)
                .file("again/above", 0o644, b"above")
                .file("tmp/sticky", 0o644, b"")
                .file(".wh..wh.plnk", 0o644, b""),
        )?;
        let image = layout(
            &scratch.join("image"),
            &[tar_layer(lower)?, upper.clone()],
            &json!({}),
        )?;
        let script = "ls /etc/gone 2>&1 | grep -c 'No such'; cat /etc/kept /hidden/* /file-to-dir/in /dir-to-file /again/*; \
            echo; ls /hidden /again | tr '\\n' ' '; stat -c '%a %n' / /tmp; ls -a / | grep -c wh";
        let text = context.paddock(&["run", "--rm", &image, "sh", "-c", script])?;
        ensure!(
            text.stdout
                == "1\nkeptaboveinfileabove\n/again: above  /hidden: above 750 /\n1777 /tmp\n0\n"
                || text.stdout
                    == "1\nkeptaboveinfileabove\n/hidden: above  /again: above 750 /\n1777 /tmp\n0\n",
            "{text:?}"
        );
        // The same by overlayfs' own marks.
        let root = layer_dir(context, &upper.diff_id);
        let gone = fs::symlink_metadata(root.join("etc/gone"))?;
        ensure!(
            gone.mode() & 0o170_000 == 0o020_000 && gone.rdev() == 0,
            "{gone:?}"
        );
        for name in ["hidden", "again"] {
            let mut value = [0; 4];
            let length =
                rustix::fs::lgetxattr(root.join(name), "trusted.overlay.opaque", &mut value)?;
            ensure!(&value[..length] == b"y", "{name}");
        }
        Ok(())
    })
}

/// As many as docker allows; the mount's options fit on no page of paths.
fn many_layers(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let mut layers = vec![base()?];
        for n in 1..127 {
            layers.push(tar_layer(
                Tar::new().file(&format!("l{n}"), 0o644, b"").file(
                    "top",
                    0o644,
                    n.to_string().as_bytes(),
                ),
            )?);
        }
        let image = layout(&scratch.join("image"), &layers, &json!({}))?;
        let script = [&image, "sh", "-c", "cat /top; ls / | grep -c '^l[0-9]'"];
        let text = context.ok(&[&["run", "--rm"], &script[..]].concat())?;
        ensure!(text == "126126\n", "{text}");
        if can_be_mapped(&context.data)? {
            let run = ["run", "--rm", "--userns-remap", "auto"];
            let text = context.ok(&[&run[..], &script].concat())?;
            ensure!(text == "126126\n", "{text}");
        }
        layers.push(tar_layer(Tar::new().file("more", 0o644, b""))?);
        let image = layout(&scratch.join("more"), &layers, &json!({}))?;
        refused(
            &context.paddock(&["run", &image, "true"])?,
            125,
            &["128 layers", "127"],
        )
    })
}

fn config_is_honoured(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let config = json!({
            "Entrypoint": ["/bin/busybox", "echo", "entry"], "Cmd": ["one", "two"],
            "Env": ["FROM=image", "OVER=image", "PATH=/opt:/bin"], "WorkingDir": "/srv/app",
            "Labels": {"maker": "image"}, "User": "0:0", "StopSignal": "SIGQUIT",
        });
        let image = layout(&scratch.join("image"), &[base()?], &config)?;
        let run = |args: &[&str]| context.ok(&[&["run", "--rm"], args].concat());
        ensure!(run(&[&image])? == "entry one two\n");
        ensure!(run(&[&image, "three"])? == "entry three\n");
        ensure!(run(&["--entrypoint", "/bin/busybox", &image, "echo", "x"])? == "x\n");
        let script = "echo $FROM $OVER $PATH; pwd";
        let text = run(&[
            "--entrypoint",
            "",
            "-e",
            "OVER=user",
            &image,
            "sh",
            "-c",
            script,
        ])?;
        ensure!(text == "image user /opt:/bin\n/srv/app\n", "{text}");
        let none = context.paddock(&["run", "--rm", "--entrypoint", "", &image])?;
        refused(&none, 125, &["no command"])?;
        let missing = context.paddock(&["run", "--rm", "--entrypoint", "/nothing", &image])?;
        refused(&missing, 127, &["/nothing"])?;
        context.start_agent(&["--detach-on-exit"])?;
        context.ok(&[
            "run",
            "-d",
            "--name",
            "c",
            "-l",
            "mine=1",
            "--entrypoint",
            "/bin/busybox",
            &image,
            "sleep",
            "60",
        ])?;
        let request = &context.inspect("c")?["request"];
        ensure!(
            request["labels"] == json!([["mine", "1"], ["maker", "image"]]),
            "{request}"
        );
        ensure!(
            request["life"]["stop_signal"] == 3 && request["user"] == "0:0",
            "{request}"
        );
        ensure!(context.ok(&["exec", "c", "pwd"])? == "/srv/app\n");
        let bare = layout(&scratch.join("bare"), &[base()?], &json!({}))?;
        refused(&context.paddock(&["run", &bare])?, 125, &["no command"])
    })
}

/// A node of a disk is there, as docker keeps it, and opens nothing.
fn devices_and_setuid(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let node = |name, kind, device| Entry {
            name,
            kind,
            mode: 0o666,
            device,
            ..Entry::default()
        };
        let tar = busybox()?
            // Memory, the null device, and major 1 as a block device: a RAM disk.
            .entry(&node("mem", b'3', (1, 1)))
            .entry(&node("null", b'3', (1, 3)))
            .entry(&node("ram", b'4', (1, 0)))
            .file("setuid", 0o4755, b"");
        let image = layout(&scratch.join("image"), &[tar_layer(tar)?], &json!({}))?;
        let script = "stat -c '%F %a %n' /null /setuid; for d in /mem /null /ram; do cat $d 2>&1; done; \
            grep NoNewPrivs /proc/self/status";
        let text = context.ok(&["run", "--rm", &image, "sh", "-c", script])?;
        let expected = "character special file 666 /null\nregular empty file 4755 /setuid\n\
            cat: can't open '/mem': Permission denied\ncat: can't open '/null': Permission denied\n\
            cat: can't open '/ram': Permission denied\nNoNewPrivs:\t1\n";
        ensure!(text == expected, "{text}");
        Ok(())
    })
}

/// The upper directories of all containers.
pub(super) fn uppers(context: &Context) -> Vec<PathBuf> {
    let containers = names(&context.data.join("containers"));
    containers
        .into_iter()
        .filter(|path| path.ends_with("upper"))
        .collect()
}

fn what_is_written_is_the_containers_own(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        context.start_agent(&["--detach-on-exit"])?;
        let image = layout(
            &scratch.join("image"),
            &[
                base()?,
                tar_layer(Tar::new().file("shared", 0o644, b"image"))?,
            ],
            &json!({}),
        )?;
        let script = |word: &str| {
            format!(
                "echo -n {word} > /shared; mkdir -p /a/b; echo {word} > /a/b/own; exec sleep 60"
            )
        };
        for name in ["one", "two"] {
            context.ok(&[
                "run",
                "-d",
                "--name",
                name,
                &image,
                "sh",
                "-c",
                &script(name),
            ])?;
        }
        let before = names(&context.data.join("images"));
        for name in ["one", "two"] {
            eventually("it has written", || {
                Ok(context
                    .paddock(&["exec", name, "cat", "/a/b/own"])?
                    .stdout
                    .trim()
                    == name)
            })?;
            ensure!(context.ok(&["exec", name, "cat", "/shared"])? == name);
            let pid = context.inspect(name)?["pid"].as_i64().context("no pid")?;
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
            let root = mounts
                .lines()
                .find(|line| line.split(' ').nth(4) == Some("/"))
                .context("no root")?;
            ensure!(
                root.contains(" - overlay ") && root.contains("nodev"),
                "{root}"
            );
        }
        ensure!(uppers(context).len() == 2, "{:?}", names(&context.data));
        ensure!(
            names(&context.data.join("images")) == before,
            "the store changed"
        );
        let inside: Vec<_> = uppers(context)
            .iter()
            .map(|upper| fs::read_to_string(upper.join("shared")))
            .collect::<Result<_, _>>()?;
        ensure!(
            inside.iter().any(|text| text == "one") && inside.iter().any(|text| text == "two"),
            "{inside:?}"
        );
        // The host's table of mounts knows nothing of them.
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(
            !table.contains(&context.data.display().to_string()),
            "{table}"
        );
        refused(
            &context.paddock(&["images", "rm", &image])?,
            1,
            &["used by container"],
        )?;
        context.ok(&["rm", "-f", "one"])?;
        ensure!(uppers(context).len() == 1, "{:?}", uppers(context));
        refused(
            &context.paddock(&["images", "rm", &image])?,
            1,
            &["used by container"],
        )?;
        context.ok(&["rm", "-f", "two"])?;
        ensure!(
            !context.data.join("containers").exists(),
            "{:?}",
            names(&context.data)
        );
        context.ok(&["images", "rm", &image])?;
        ensure!(context.ok(&["images", "ls", "-q"])?.is_empty());
        ensure!(
            fs::read_dir(context.data.join("images/layer"))?
                .next()
                .is_none(),
            "layers stay"
        );
        Ok(())
    })
}

/// A tree too deep for recursion and for descriptors goes with its container.
fn a_deep_tree_goes(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let image = layout(&scratch.join("image"), &[base()?], &json!({}))?;
        // No shell's working directory is longer than PATH_MAX: moved below each other.
        let script = "p=$(printf 'd/%.0s' $(seq 200)); mkdir -p /0/$p; \
            for i in 1 2 3 4 5 6 7 8 9; do mkdir -p /$i/$p && mv /$((i-1)) /$i/$p || exit; done; ls / | grep '^[0-9]'";
        let text = context.ok(&["run", "--rm", &image, "sh", "-c", script])?;
        ensure!(text == "9\n", "{text}");
        eventually("what it wrote is gone", || {
            Ok(!context.data.join("containers").exists())
        })
    })
}

/// A container outlives its agent; its files go with it, also when nobody could remove them.
fn agents_come_and_go(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let image = layout(&scratch.join("image"), &[base()?], &json!({}))?;
        context.start_agent(&[])?;
        context.ok(&["run", "-d", "--name", "c", &image, "sleep", "100"])?;
        context.ok(&["exec", "c", "sh", "-c", "echo before > /file"])?;
        let upper = uppers(context).pop().context("no upper directory")?;
        context.kill_agent()?;
        // As one would find it whose machine was restarted: nobody's.
        let orphan = upper
            .parent()
            .and_then(Path::parent)
            .context("no parent")?
            .join("f".repeat(64));
        fs::create_dir_all(orphan.join("upper/x"))?;
        context.start_agent(&["--detach-on-exit"])?;
        ensure!(!orphan.exists(), "an orphan stays");
        ensure!(context.ok(&["exec", "c", "cat", "/file"])? == "before\n");
        ensure!(fs::read_to_string(upper.join("file"))? == "before\n");
        context.ok(&["rm", "-f", "c"])?;
        ensure!(
            !context.data.join("containers").exists(),
            "{:?}",
            names(&context.data)
        );
        Ok(())
    })
}
