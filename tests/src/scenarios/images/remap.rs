//! Images under ids of a container's own: owners by the host's view of layers and of what is written.
//!
//! Where neither the temporary directory's file system nor ext4 has idmapped mounts, the exact
//! refusal is what is seen, and that nothing of it is left.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::{base, layer_dir, layout, refused, run::uppers, tar_layer, with_scratch};
use crate::{
    context::{Context, eventually, finish},
    image::{Entry, Layer, Tar, busybox, listing},
    kernels::release,
    runner::Scenario,
    scenarios::remap::{can_be_mapped, kind_of, map_of, mapping_is_refused, pid},
};

pub(super) const ALL: &[Scenario] = &[
    Scenario::new("images::remap_shares_layers", shares_layers).alone(),
    Scenario::new("images::remap_keeps_what_is_written", keeps_what_is_written).alone(),
    Scenario::new("images::remap_of_a_joined_namespace", of_a_joined_namespace).alone(),
    Scenario::new("images::remap_refused", refused_by_the_file_system).alone(),
];

/// VFS_CAP_REVISION_2, effective, cap_net_bind_service.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Files of several owners; the upper layer only implies the directory that is the user's.
fn layers(context: &Context) -> Result<[Layer; 2]> {
    let program = fs::read(&context.workload)?;
    let of = |name, kind, mode, (uid, gid)| Entry {
        name,
        kind,
        mode,
        uid,
        gid,
        ..Entry::default()
    };
    let passwd = "root:x:0:0::/:/bin/sh\napp:x:1000:50::/home/app:/bin/sh\n";
    let lower = busybox()?
        .directory("./", 0o755)
        .file("etc/passwd", 0o644, passwd.as_bytes())
        .directory("home/", 0o755)
        .entry(&of("home/app/", b'5', 0o750, (1000, 50)))
        .entry(&of("home/app/file", b'0', 0o640, (1000, 50)))
        .file("shared", 0o644, b"image")
        .hard_link("linked", "shared")
        .file("gone", 0o644, b"")
        .directory("hidden/", 0o755)
        .file("hidden/below", 0o644, b"")
        .entry(&of("foreign", b'0', 0o666, (70_000, 70_000)))
        .entry(&Entry {
            content: &program,
            records: &[("SCHILY.xattr.security.capability", &CAPABILITY)],
            ..of("capable", b'0', 0o4755, (7, 8))
        });
    let upper = Tar::new()
        .file(".wh.gone", 0o644, b"")
        .file("hidden/.wh..wh..opq", 0o644, b"")
        .file("home/app/more", 0o644, b"");
    Ok([tar_layer(lower)?, tar_layer(upper)?])
}

/// Runs `test` with a store that can be mapped, or sees that `image` is refused.
fn if_mapped(
    context: &Context,
    scratch: &Path,
    image: &str,
    test: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if can_be_mapped(&context.data)? {
        return test();
    }
    if !fs::read_to_string("/proc/filesystems")?.contains("\text4\n") {
        return not_mapped(context, &["--userns-remap", "auto"], image);
    }
    // Memory can't be mapped before 6.3, a disk can.
    let disk = scratch.join("disk").display().to_string();
    File::create(&disk)?.set_len(64 << 20)?;
    let run = |args: &[&str]| {
        let output = finish(Command::new("busybox").args(args))?;
        ensure!(output.code == Some(0), "{args:?}: {output:?}");
        Ok(output.stdout)
    };
    let device = run(&["losetup", "-f"])?.trim().to_owned();
    run(&["losetup", &device, &disk])?;
    run(&["mke2fs", &device])?;
    let result = with_store(context, &device, "ext4", || {
        // Then it goes with the mount.
        run(&["losetup", "-d", &device])?;
        if can_be_mapped(&context.data)? {
            test()
        } else {
            not_mapped(context, &["--userns-remap", "auto"], image)
        }
    });
    // The kernel lets go of it after the last unmount has returned.
    let gone = eventually("its loop device goes", || {
        Ok(!run(&["losetup", "-a"])?.contains(&disk))
    });
    result.and(gone)
}

/// With a file system of its own as data directory.
fn with_store(
    context: &Context,
    device: &str,
    kind: &str,
    test: impl FnOnce() -> Result<()>,
) -> Result<()> {
    fs::create_dir(&context.data)?;
    let none = None::<&str>;
    mount(
        Some(device),
        &context.data,
        Some(kind),
        MsFlags::empty(),
        none,
    )?;
    let tested = fs::set_permissions(&context.data, fs::Permissions::from_mode(0o700))
        .map_err(Into::into)
        .and_then(|()| test())
        .and_then(|()| nothing_is_written(context));
    // Its events are stored there, too: the file system goes with the last who has it.
    if context.agent_pid().is_ok() {
        context.stop_agent()?;
    }
    umount2(&context.data, MntFlags::MNT_DETACH)?;
    tested
}

/// What a container wrote goes in the background when its run ended.
fn nothing_is_written(context: &Context) -> Result<()> {
    eventually("what containers wrote is gone", || {
        Ok(!context.data.join("containers").exists())
    })
}

/// One line with the layer that is not shown, and nothing of the container left.
pub(in crate::scenarios) fn not_mapped(
    context: &Context,
    flags: &[&str],
    image: &str,
) -> Result<()> {
    let run = ["run", "--rm", "--name", "refused"];
    let output = context.paddock(&[&run[..], flags, &[image, "true"]].concat())?;
    let why = format!(
        "/fs ({}, Linux {}): cannot show an image's owners as the container's ids ({}); keep images on a file system that has them, such as ext4, by --data-dir, or leave --userns-remap out (exit 125)",
        kind_of(&context.data)?,
        release()?,
        mapping_is_refused()?
    );
    let layer = format!("paddock: refused: {}/images/layer/", context.data.display());
    refused(&output, 125, &[&layer, &why])?;
    eventually("the container is gone", || {
        Ok(context.json(&["ps", "-a", "--format", "json"])? == json!([]))
    })?;
    nothing_is_written(context)
}

/// The directory that what `name` writes over its image is in.
fn upper_of(context: &Context, name: &str) -> Result<PathBuf> {
    let inspect = context.inspect(name)?;
    let id = inspect["id"].as_str().context("no id")?;
    let all = uppers(context);
    let found = all
        .into_iter()
        .find(|upper| upper.parent().is_some_and(|dir| dir.ends_with(id)));
    found.context("it has no upper directory")
}

/// `UID:GID MODE` on disk.
fn owner(path: &Path) -> Result<String> {
    let found = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    let mode = found.mode() & 0o7777;
    Ok(format!("{}:{} {mode:o}", found.uid(), found.gid()))
}

fn start(context: &Context, name: &str, flags: &[&str], image: &str) -> Result<()> {
    let run = ["run", "-d", "--name", name];
    let program = [image, "sleep", "100"];
    context.ok(&[&run[..], flags, &program].concat()).map(drop)
}

fn inside(context: &Context, name: &str, script: &str) -> Result<String> {
    context.ok(&["exec", name, "sh", "-c", script])
}

/// Two containers with other ids each, at once, on the same layers.
fn shares_layers(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let layers = layers(context)?;
        let image = layout(&scratch.join("image"), &layers, &json!({}))?;
        if_mapped(context, scratch, &image, || {
            context.ok(&["pull", &image])?;
            let on_disk = || -> Result<Vec<_>> {
                let dirs = layers
                    .iter()
                    .map(|layer| layer_dir(context, &layer.diff_id));
                dirs.map(|dir| listing(&dir)).collect()
            };
            let before = on_disk()?;
            context.start_agent(&["--detach-on-exit"])?;
            for (name, flags, first) in [
                ("one", &["--userns-remap", "auto"][..], 165_536),
                ("two", &["--userns-remap", "500000:65536"], 500_000),
                ("plain", &[], 0),
            ] {
                start(context, name, flags, &image)?;
                as_its_own(context, name, first)?;
            }
            // Too few ids for the user, whose directory the upper layer only implies.
            start(context, "few", &["--userns-remap", "700000:10"], &image)?;
            let script = "stat -c %u:%g / /home/app; echo x >/home/app/made";
            let few = context.paddock(&["exec", "few", "sh", "-c", script])?;
            ensure!(
                few.stdout == "0:0\n65534:65534\n" && few.stderr.contains("Permission denied"),
                "{few:?}"
            );
            let upper = upper_of(context, "few")?;
            let (root, home) = (owner(&upper)?, owner(&upper.join("home/app"))?);
            ensure!(
                root == "700000:700000 755" && home == "0:0 750",
                "{root}, {home}"
            );
            // All still run.
            for (name, first) in [("one", "165536"), ("two", "500000"), ("plain", "0")] {
                let map = map_of(pid(context, name)?)?;
                ensure!(map.starts_with(&format!("0 {first} ")), "{name}: {map}");
                ensure!(inside(context, name, "cat /shared")? == format!("own {name}\n"));
            }
            ensure!(before == on_disk()?, "{before:?}: {:?}", on_disk()?);
            context
                .ok(&["rm", "-f", "one", "two", "plain", "few"])
                .map(drop)
        })
    })
}

/// What root of a container sees, changes and makes, and whose that is outside.
fn as_its_own(context: &Context, name: &str, first: u32) -> Result<()> {
    let foreign = if first == 0 { 70_000 } else { 65_534 };
    let seen = inside(
        context,
        name,
        "stat -c '%u:%g %a %n' / /home/app /home/app/file /shared /capable /foreign; ls -d /gone /hidden/* 2>/dev/null || true",
    )?;
    let expected = format!(
        "0:0 755 /\n1000:50 750 /home/app\n1000:50 640 /home/app/file\n0:0 644 /shared\n\
         7:8 4755 /capable\n{foreign}:{foreign} 666 /foreign\n"
    );
    ensure!(seen == expected, "{name}: {seen}");
    let script = format!(
        "echo own {name} >/shared; busybox chown 7:8 /home/app/file; mkdir /made; echo x >/made/file; \
         busybox rm /linked; busybox ln /made/file /made/link; echo x >/foreign"
    );
    let done = context.paddock(&["exec", name, "sh", "-c", &script])?;
    // Nobody inside has an id that a copy could be kept under.
    let refused = done.stderr.contains("/foreign: Permission denied");
    ensure!(refused == (first != 0), "{name}: {done:?}");
    let upper = upper_of(context, name)?;
    for (path, uid, gid, mode) in [
        ("", 0, 0, "755"),
        ("home", 0, 0, "755"),
        ("home/app", 1000, 50, "750"),
        ("home/app/file", 7, 8, "640"),
        ("shared", 0, 0, "644"),
        ("made", 0, 0, "755"),
        ("made/link", 0, 0, "644"),
    ] {
        let found = owner(&upper.join(path))?;
        let expected = format!("{}:{} {mode}", first + uid, first + gid);
        ensure!(found == expected, "{name}: {path}: {found}");
    }
    let gone = fs::symlink_metadata(upper.join("linked"))?;
    ensure!(
        gone.mode() & 0o170_000 == 0o020_000 && gone.rdev() == 0,
        "{gone:?}"
    );
    ensure!(upper.join("foreign").exists() == (first == 0));
    Ok(())
}

/// A user by name, setuid and capable programs, a second run, and none of it with `--read-only`.
fn keeps_what_is_written(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let image = layout(&scratch.join("image"), &layers(context)?, &json!({}))?;
        if_mapped(context, scratch, &image, || {
            context.start_agent(&["--detach-on-exit"])?;
            let flags = [
                "--userns-remap",
                "auto",
                "--user",
                "app",
                "--security-opt",
                "no-new-privileges=false",
            ];
            start(context, "app", &flags, &image)?;
            let script = "echo own >/home/app/own; /capable ids; /capable cat /proc/self/status";
            let said = inside(context, "app", script)?;
            let bits = "CapEff:\t0000000000000400\n";
            ensure!(said.starts_with("7 50\n") && said.contains(bits), "{said}");
            let outside = fs::metadata(format!("/proc/{}", pid(context, "app")?))?;
            ensure!(
                (outside.uid(), outside.gid()) == (165_536 + 1000, 165_536 + 50),
                "{outside:?}"
            );
            let own = upper_of(context, "app")?.join("home/app/own");
            ensure!(owner(&own)? == "166536:165586 644", "{}", owner(&own)?);
            context.ok(&["stop", "-t", "0", "app"])?;
            // Whoever comes in between gets other ids.
            let run = ["run", "--rm", "--userns-remap", "auto", "--read-only"];
            let script = "cat /proc/self/uid_map; echo x >/made";
            let args = [&run[..], &[&image, "sh", "-c", script]].concat();
            let other = context.paddock(&args)?;
            ensure!(
                other.stdout.split_whitespace().nth(1) == Some("231072")
                    && other.stderr.contains("Read-only file system"),
                "{other:?}"
            );
            context.ok(&["start", "app"])?;
            let map = map_of(pid(context, "app")?)?;
            ensure!(map == "0 165536 65536", "{map}");
            let again = inside(
                context,
                "app",
                "cat /home/app/own; stat -c %u:%g /home/app/own",
            )?;
            ensure!(again == "own\n1000:50\n", "{again}");
            context.ok(&["rm", "-f", "app"]).map(drop)
        })
    })
}

/// Another's user namespace brings its ids; with others at the next run nothing would be its own.
fn of_a_joined_namespace(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let image = layout(&scratch.join("image"), &[base()?], &json!({}))?;
        if_mapped(context, scratch, &image, || {
            context.start_agent(&["--detach-on-exit"])?;
            start(
                context,
                "first",
                &["--userns-remap", "500000:65536"],
                &image,
            )?;
            start(context, "second", &["--pid", "container:first"], &image)?;
            let seen = inside(context, "second", "echo x >/made; stat -c %u:%g / /made")?;
            ensure!(seen == "0:0\n0:0\n", "{seen}");
            let made = owner(&upper_of(context, "second")?.join("made"))?;
            ensure!(made == "500000:500000 644", "{made}");
            context.ok(&["rm", "-f", "first"])?;
            context.ok(&["wait", "second"])?;
            start(
                context,
                "first",
                &["--userns-remap", "700000:65536"],
                &image,
            )?;
            let again = context.paddock(&["start", "second"])?;
            refused(
                &again,
                1,
                &["second", "ids of its earlier runs", "make a new container"],
            )?;
            context.ok(&["rm", "-f", "first"])?;
            start(
                context,
                "first",
                &["--userns-remap", "500000:65536"],
                &image,
            )?;
            context.ok(&["start", "second"])?;
            ensure!(inside(context, "second", "cat /made")? == "x\n");
            context.ok(&["rm", "-f", "first", "second"]).map(drop)
        })
    })
}

/// A store in plain memory, which no kernel maps.
fn refused_by_the_file_system(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let image = layout(&scratch.join("image"), &[base()?], &json!({}))?;
        with_store(context, "ramfs", "ramfs", || {
            not_mapped(context, &["--userns-remap", "auto"], &image)?;
            not_mapped(context, &["--profile", "hardened"], &image)?;
            // Without it there is nothing to be mapped.
            let said = context.ok(&["run", "--rm", &image, "echo", "here"])?;
            ensure!(said == "here\n", "{said}");
            Ok(())
        })
    })
}
