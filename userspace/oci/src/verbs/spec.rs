//! `spec`: a config.json to begin with, in a bundle that has none.

use std::{fs::File, io::Write as _};

use nix::unistd::{getgid, getuid};
use oci_spec::runtime::Spec as Config;

use crate::{args::Spec, error::Error};

pub(super) fn verb(wanted: &Spec) -> Result<(), Error> {
    let path = wanted.bundle.join("config.json");
    let mut config = if wanted.rootless {
        Config::rootless(getuid().as_raw(), getgid().as_raw())
    } else {
        Config::default()
    };
    config.set_version("1.2.0".to_owned());
    config.set_hostname(Some("paddock".to_owned()));
    if let Some(process) = config.process_mut() {
        process.set_terminal(Some(true));
    }
    let text = serde_json::to_string_pretty(&config)
        .map_err(|error| Error::io("write", &path)(error.into()))?;
    File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{text}"))
        .map_err(Error::io("create", &path))
}
