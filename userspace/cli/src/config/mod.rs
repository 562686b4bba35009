//! The agent's configuration: `/etc/paddock/config.toml`, then `config.toml.d/*.toml` in the order
//! of their names, a later file's value in the place of an earlier one's. Flags win over the
//! environment, the environment over files, files over what is built in.
//!
//! Which instance an agent is (`--state-dir`, `--data-dir`) is not said here: its clients have to
//! know that, too.

mod file;
mod keys;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{ArgMatches, parser::ValueSource};
use paddock_policy::printable;

pub(crate) use self::{
    file::{Entry, Error},
    keys::{KEYS, Key, Kind},
};

/// Read when nobody names another; it may be missing.
pub(crate) const DEFAULT: &str = "/etc/paddock/config.toml";
/// The word for no file at all.
pub(crate) const NONE: &str = "none";
/// clap's name of the flag that names it.
const FLAG: &str = "config";

/// What files say, the last to say something being the one that counts.
#[derive(Debug, Default)]
pub(crate) struct Config {
    entries: Vec<Entry>,
    /// Those that were read.
    pub(crate) files: Vec<PathBuf>,
}

impl Config {
    /// `named` is one that somebody asked for, which must be there.
    pub(crate) fn read(path: &Path, named: bool) -> Result<Self, Error> {
        let mut config = Self::default();
        if path.as_os_str() == NONE {
            return Ok(config);
        }
        let broken = |source: io::Error, path: &Path| Error::Read {
            path: printable(&path.display().to_string()),
            source: source.into(),
        };
        match file::read(path)? {
            Some(entries) => config.add(path, entries),
            None if named => {
                return Err(broken(nix::errno::Errno::ENOENT.into(), path));
            }
            None => {}
        }
        let mut dir = path.as_os_str().to_owned();
        dir.push(".d");
        let dir = PathBuf::from(dir);
        let listed = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(config),
            listed => listed.and_then(Iterator::collect::<io::Result<Vec<_>>>),
        };
        let entries = listed.map_err(|source| broken(source, &dir))?;
        let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        paths.sort_unstable();
        for path in paths {
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden
                && path.extension().is_some_and(|ending| ending == "toml")
                && let Some(entries) = file::read(&path)?
            {
                config.add(&path, entries);
            }
        }
        Ok(config)
    }

    fn add(&mut self, path: &Path, entries: Vec<Entry>) {
        for entry in entries {
            self.entries.retain(|old| !std::ptr::eq(old.key, entry.key));
            self.entries.push(entry);
        }
        self.files.push(path.to_owned());
    }

    pub(crate) fn says(&self, key: &Key) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| std::ptr::eq(entry.key, key))
    }
}

/// On stderr; a file's faults stand for themselves, one a line, as a compiler's.
pub(crate) fn tell(error: &Error) {
    let prefix = match error {
        Error::Wrong(_) => "",
        _ => "paddock: ",
    };
    // Nothing to be done about a closed stderr.
    let _ = writeln!(io::stderr(), "{prefix}{error}");
}

/// What files add to a command line of `paddock agent`: flags for what neither the line nor the
/// environment decides.
pub(crate) fn words(agent: &ArgMatches) -> Result<Vec<OsString>, Error> {
    let config = named_by(agent)?;
    let undecided = |entry: &&Entry| !is_decided(agent, entry.key);
    let entries = config.entries.iter().filter(undecided);
    let flags = entries.flat_map(|entry| {
        let flags = entry.values.iter();
        flags.map(|value| file::flag(entry.key, value).into())
    });
    Ok(flags.collect())
}

/// The configuration that a command line means.
pub(crate) fn named_by(matches: &ArgMatches) -> Result<Config, Error> {
    let path = matches.get_one::<PathBuf>(FLAG);
    let path = path.map_or_else(|| Path::new(DEFAULT), PathBuf::as_path);
    Config::read(path, is_given(matches, FLAG))
}

/// By the command line or the environment.
pub(crate) fn is_decided(matches: &ArgMatches, key: &Key) -> bool {
    is_given(matches, key.arg)
}

fn is_given(matches: &ArgMatches, arg: &str) -> bool {
    let source = matches.value_source(arg);
    source.is_some_and(|source| source != ValueSource::DefaultValue)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let template = std::env::temp_dir().join("paddock-config-XXXXXX");
            Self(nix::unistd::mkdtemp(&template).unwrap())
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            path
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn said(config: &Config, name: &str) -> String {
        let key = KEYS.iter().find(|key| key.name == name).unwrap();
        config.says(key).unwrap().values.join(" ")
    }

    #[test]
    fn later_files_win() {
        let dir = Dir::new();
        let main = dir.write("c.toml", "[events]\nrate = 1\nburst = 1\n");
        dir.write("c.toml.d/20.toml", "[events]\nrate = 3\n");
        dir.write(
            "c.toml.d/10.toml",
            "[events]\nrate = 2\n[agent]\nguard = \"off\"\n",
        );
        dir.write("c.toml.d/.30.toml.swp", "not read");
        dir.write("c.toml.d/.40.toml", "not read");
        let config = Config::read(&main, true).unwrap();
        assert_eq!(said(&config, "rate"), "3");
        assert_eq!(said(&config, "burst"), "1");
        assert_eq!(said(&config, "guard"), "off");
        assert_eq!(config.files.len(), 3);
    }

    #[test]
    fn drop_ins_do_without_a_main_file_unless_it_was_named() {
        let dir = Dir::new();
        dir.write("c.toml.d/10.toml", "[events]\nrate = 2\n");
        let main = dir.0.join("c.toml");
        assert_eq!(said(&Config::read(&main, false).unwrap(), "rate"), "2");
        let told = Config::read(&main, true).unwrap_err().to_string();
        assert!(
            told.ends_with("c.toml: No such file or directory"),
            "{told}"
        );
        assert!(
            Config::read(Path::new(NONE), true)
                .unwrap()
                .files
                .is_empty()
        );
    }

    #[test]
    fn what_others_can_write_is_refused() {
        let dir = Dir::new();
        let main = dir.write("c.toml", "");
        fs::set_permissions(&main, fs::Permissions::from_mode(0o666)).unwrap();
        let told = Config::read(&main, true).unwrap_err().to_string();
        assert!(told.contains("chmod go-w"), "{told}");
        let told = Config::read(&dir.0, true).unwrap_err().to_string();
        assert!(told.ends_with("is no regular file"), "{told}");
    }
}
