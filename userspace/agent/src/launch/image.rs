//! A container's root from an image: layers below, a directory of its own above, docker's rules
//! for what of the image's config counts.

use std::{path::Path, sync::Arc};

use paddock_images::{RunConfig, Store, Writable};
use paddock_runtime::spec::{IdMaps, Layers, Rootfs};

use super::{Error, files::Config, request::check_args};
use crate::{
    api::{CreateRequest, Root},
    chain::chain,
    container::Container,
    shared::Shared,
    signal,
};

/// Makes what the container needs on disk, and completes the request by the image's config.
pub(super) fn rootfs(
    shared: &Shared,
    id: &str,
    dir: &Path,
    request: &mut CreateRequest,
) -> Result<(Rootfs, Option<Writable>), Error> {
    let image = match &request.rootfs {
        Root::Host | Root::Directory(_) => {
            apply(request, RunConfig::default());
            check_args(&request.args)?;
            let rootfs = match &request.rootfs {
                Root::Directory(path) => Rootfs::Directory(path.clone()),
                Root::Host | Root::Image(_) => Rootfs::Host,
            };
            return Ok((rootfs, None));
        }
        Root::Image(image) => *image,
    };
    let data = &shared.options.data_dir;
    let store = Store::at(data);
    let Some(found) = store.find(&image.to_string())? else {
        return Err(Error::invalid(format!(
            "image {} is not in the agent's data directory {}: give both the same --data-dir",
            image.short(),
            data.display()
        )));
    };
    apply(request, found.config);
    if request.args.is_empty() {
        return Err(Error::invalid(format!(
            "{} has no command of its own: say what to run",
            request.image
        )));
    }
    check_args(&request.args)?;
    let writable = Writable::of(data, shared.instance.name(), id);
    let image = writable.create(&store, image, dir)?;
    let layers = Layers {
        lower: image.lower,
        upper: writable.upper(),
        work: writable.work(),
    };
    Ok((Rootfs::Layers(layers), Some(writable)))
}

/// Gives the container's own directory to its ids before the first run. What it holds later is
/// of these ids, so a run under others, which only a joined user namespace can bring, is refused.
pub(super) fn own(
    shared: &Shared,
    config: &mut Config,
    maps: Option<&IdMaps>,
) -> Result<(), Error> {
    let Root::Image(image) = &config.request.rootfs else {
        return Ok(());
    };
    let maps = maps.cloned().unwrap_or_else(IdMaps::identity);
    match &config.writes_as {
        Some(earlier) if *earlier != maps => {
            return Err(Error::state(format!(
                "{}: what it wrote over its image belongs to the ids of its earlier runs, and the user namespace it joins has others now: make a new container",
                config.name
            )));
        }
        None if !maps.is_identity() => {
            let data = &shared.options.data_dir;
            let writable = Writable::of(data, shared.instance.name(), &config.id);
            let (uid, gid) = (|id| maps.host_uid(id), |id| maps.host_gid(id));
            writable.give(&Store::at(data), *image, uid, gid)?;
        }
        None | Some(_) => {}
    }
    config.writes_as = Some(maps);
    Ok(())
}

/// Removes what it wrote.
pub(super) fn discard(shared: &Shared, container: &Container) {
    let is_image = container
        .request
        .as_ref()
        .is_some_and(|request| matches!(request.rootfs, Root::Image(_)));
    if !is_image {
        return;
    }
    let writable = Writable::of(
        &shared.options.data_dir,
        shared.instance.name(),
        &container.id,
    );
    // As long as the tree is large; the others' requests go on meanwhile.
    if let Err(error) = tokio::task::block_in_place(|| writable.remove()) {
        Shared::warn(container, "cannot remove what it wrote", &error);
    }
}

/// Removes what containers wrote that are gone, for instance since the machine was restarted.
pub(super) fn sweep(shared: &Arc<Shared>) {
    let kept = |id: &str| shared.instance.container_dir(id).exists();
    for error in paddock_images::sweep(&shared.options.data_dir, shared.instance.name(), kept) {
        tracing::warn!("{}", chain(&error));
    }
}

/// An entrypoint of the user's makes the image's command void; arguments replace it; variables
/// of the user's come after the image's, so they count.
fn apply(request: &mut CreateRequest, config: RunConfig) {
    let own_entrypoint = request.entrypoint.take();
    if own_entrypoint.is_none() && request.args.is_empty() {
        request.args = config.cmd.unwrap_or_default();
    }
    let mut command = own_entrypoint.unwrap_or_else(|| config.entrypoint.unwrap_or_default());
    if command == [""] {
        command.clear();
    }
    command.append(&mut request.args);
    request.args = command;
    let mut env = config.env.unwrap_or_default();
    // What is no assignment means nothing to anybody.
    env.retain(|variable| variable.find('=').is_some_and(|at| at > 0) && !variable.contains('\0'));
    env.append(&mut request.env);
    request.env = env;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    if request.cwd.is_none() {
        request.cwd = filled(config.working_dir).map(absolute);
    }
    request.user = request.user.take().or_else(|| filled(config.user));
    let stop_signal = filled(config.stop_signal).and_then(|text| signal::parse(&text).ok());
    request.life.stop_signal = request.life.stop_signal.or(stop_signal);
    for (key, value) in config.labels.unwrap_or_default() {
        if !request.labels.iter().any(|(own, _)| *own == key) {
            request.labels.push((key, value));
        }
    }
}

/// Docker takes a relative one from the root.
fn absolute(path: String) -> String {
    if path.starts_with('/') {
        path
    } else {
        format!("/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    fn command(entrypoint: Option<&[&str]>, args: &[&str]) -> Vec<String> {
        let mut request = super::super::request::tests::request();
        request.args = words(args);
        request.entrypoint = entrypoint.map(words);
        let config = RunConfig {
            entrypoint: Some(words(&["/init", "-x"])),
            cmd: Some(words(&["serve"])),
            ..RunConfig::default()
        };
        apply(&mut request, config);
        request.args
    }

    #[test]
    fn commands_are_put_together_by_dockers_rules() {
        assert_eq!(command(None, &[]), ["/init", "-x", "serve"]);
        assert_eq!(command(None, &["a", "b"]), ["/init", "-x", "a", "b"]);
        assert_eq!(command(Some(&["/sh"]), &[]), ["/sh"]);
        assert_eq!(command(Some(&["/sh"]), &["-c"]), ["/sh", "-c"]);
        assert_eq!(command(Some(&[""]), &["a"]), ["a"]);
        assert!(command(Some(&[""]), &[]).is_empty());
    }

    #[test]
    fn the_users_words_count_before_the_images() {
        let mut request = super::super::request::tests::request();
        request.env = words(&["A=user"]);
        request.labels = vec![("k".into(), "user".into())];
        let config = RunConfig {
            env: Some(words(&["A=image", "B=image", "=x", "nothing", "C=a\0b"])),
            working_dir: Some("srv".into()),
            user: Some("1000:0".into()),
            stop_signal: Some("SIGQUIT".into()),
            labels: Some([("k".into(), "image".into()), ("l".into(), "image".into())].into()),
            ..RunConfig::default()
        };
        apply(&mut request, config);
        assert_eq!(request.env, ["A=image", "B=image", "A=user"]);
        assert_eq!(request.cwd.as_deref(), Some("/srv"));
        assert_eq!(request.user.as_deref(), Some("1000:0"));
        assert_eq!(request.life.stop_signal, Some(3));
        assert_eq!(
            request.labels,
            [("k".into(), "user".into()), ("l".into(), "image".into())]
        );
    }
}
