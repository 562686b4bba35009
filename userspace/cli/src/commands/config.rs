//! `paddock config`: what an agent's configuration may say, whether it is right, and what an
//! agent would be started with.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, CommandFactory as _};

use super::agent;
use crate::{
    args::Args,
    config::{self, KEYS, Key, Kind},
    exit, output,
    table::{Column, render},
};

/// Show, check or explain the agent's configuration
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock config default > /etc/paddock/config.toml\n  \
    paddock config check && systemctl reload paddock\n  \
    paddock config show\n\n\
    Read are /etc/paddock/config.toml (or --config, PADDOCK_CONFIG) and the *.toml in config.toml.d\n\
    in the order of their names.")]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a file with every setting, what it is for and its default
    Default,
    /// Say what is wrong with a file, as FILE:LINE:COLUMN
    Check {
        /// What an agent would read, unless given
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show what an agent would be started with now, and where each value is from
    Show {
        /// Read this file in place of the usual one
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Default => output::print(&default())?,
            Command::Check { file } => return check(file.as_deref()),
            Command::Show { config } => show(config.as_deref())?,
        }
        Ok(0)
    }
}

fn check(file: Option<&Path>) -> anyhow::Result<u8> {
    let config = match file {
        Some(file) => config::Config::read(file, true),
        None => config::named_by(&usual(None)?),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            config::tell(&error);
            return Ok(exit::FAILURE);
        }
    };
    let files = config.files.iter();
    let lines = files.fold(String::new(), |lines, file| {
        lines + &file.display().to_string() + ": right\n"
    });
    let none = "no file: built-in defaults\n";
    output::print(if lines.is_empty() { none } else { &lines })?;
    Ok(0)
}

fn show(file: Option<&Path>) -> anyhow::Result<()> {
    let matches = usual(file)?;
    let config = config::named_by(&matches)?;
    let command = agent_command();
    let row = |key: &Key| {
        let arg = of(&command, key);
        let (values, from) = if config::is_decided(&matches, key) {
            let env = arg.get_env().unwrap_or_default();
            (raw(&matches, key), env.to_string_lossy().into_owned())
        } else if let Some(entry) = config.says(key) {
            (entry.values.clone(), entry.place.clone())
        } else {
            (raw(&matches, key), "default".to_owned())
        };
        let name = format!("{}.{}", key.table, key.name);
        vec![name, toml_value(key, &values).unwrap_or_default(), from]
    };
    let rows: Vec<_> = KEYS.iter().map(row).collect();
    let columns = [
        Column::fixed("SETTING"),
        Column::shrinking("VALUE"),
        Column::shrinking("FROM"),
    ];
    Ok(output::print(&render(&columns, &rows, output::width()))?)
}

/// What `paddock agent` without a flag means here.
fn usual(config: Option<&Path>) -> anyhow::Result<ArgMatches> {
    let mut words = vec!["paddock".into(), "agent".into()];
    if let Some(config) = config {
        words.extend(["--config".into(), config.as_os_str().to_owned()]);
    }
    let mut matches = Args::command().try_get_matches_from(words)?;
    let (_, agent) = matches.remove_subcommand().unwrap_or_default();
    Ok(agent)
}

fn agent_command() -> clap::Command {
    <agent::Agent as clap::Args>::augment_args(clap::Command::new("agent"))
}

fn of<'a>(command: &'a clap::Command, key: &Key) -> &'a Arg {
    let mut args = command.get_arguments();
    // A test goes through all of them.
    args.find(|arg| arg.get_id() == key.arg)
        .expect("a flag for each key")
}

fn raw(matches: &ArgMatches, key: &Key) -> Vec<String> {
    let values = matches.get_raw(key.arg).into_iter().flatten();
    values
        .map(|value| value.to_string_lossy().into_owned())
        .collect()
}

/// As a file would say it; `None` where there is nothing to say.
fn toml_value(key: &Key, values: &[String]) -> Option<String> {
    let first = values.first().map(String::as_str);
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let list = |items: Vec<&str>| {
        let items: Vec<String> = items.into_iter().map(quoted).collect();
        format!("[{}]", items.join(", "))
    };
    match key.kind {
        Kind::Text => first.map(quoted),
        Kind::Number | Kind::Switch => first.map(str::to_owned),
        Kind::Each => Some(list(values.iter().map(String::as_str).collect())),
        Kind::Path => first.map(|path| list(path.split(':').collect())),
    }
}

/// Every setting, commented out, so that a file says only what its operator has changed.
fn default() -> String {
    let command = agent_command();
    let mut text = String::from(
        "# paddock's agent. What stands here as a comment is what holds without it; a flag of\n\
         # `paddock agent` or its environment variable wins. After a change:\n\
         #   paddock config check && systemctl reload paddock\n\
         # Read as well: the *.toml files in the directory of this file's name with .d at its end.\n",
    );
    let mut table = "";
    for key in KEYS {
        if key.table != table {
            table = key.table;
            text.extend(["\n[", table, "]\n"]);
        }
        let arg = of(&command, key);
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let restart = if key.live {
            ""
        } else {
            " (from the next start on)"
        };
        text += &comment(&format!("{help}{restart}"));
        let defaults: Vec<String> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        let value = toml_value(key, &defaults);
        let example = || toml_value(key, &[key.example?.to_owned()]);
        let value = value.or_else(example).unwrap_or_default();
        text.extend(["#", key.name, " = ", &value, "\n"]);
    }
    text
}

/// Lines of a hundred characters.
fn comment(text: &str) -> String {
    let mut lines = String::from("#");
    let mut length = 1;
    for word in text.split_whitespace() {
        if length + 1 + word.len() > 100 {
            lines += "\n#";
            length = 1;
        }
        lines += " ";
        lines += word;
        length += 1 + word.len();
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_of_the_agent_has_its_key() {
        let command = agent_command();
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let id = arg.get_id().as_str();
            let known = KEYS.iter().any(|key| key.arg == id);
            // For whoever looks for a bug of paddock's.
            assert!(known || ["config", "debug_programs"].contains(&id), "{id}");
        }
    }

    /// The default file says nothing; with each line's comment sign taken away it says what
    /// holds anyway.
    #[test]
    fn the_default_file_is_what_is_built_in() {
        let dir =
            nix::unistd::mkdtemp(&std::env::temp_dir().join("paddock-config-XXXXXX")).unwrap();
        let file = dir.join("config.toml");
        let text = default();
        std::fs::write(&file, &text).unwrap();
        assert!(KEYS.iter().all(|key| {
            config::Config::read(&file, true)
                .unwrap()
                .says(key)
                .is_none()
        }));
        let said: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with([' ', '#']) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(&file, said).unwrap();
        let config = config::Config::read(&file, true).unwrap();
        let command = agent_command();
        for key in KEYS.iter().filter(|key| key.example.is_none()) {
            let said = toml_value(key, &config.says(key).unwrap().values);
            let defaults = of(&command, key).get_default_values();
            let built_in: Vec<_> = defaults
                .iter()
                .map(|value| value.to_string_lossy().into_owned())
                .collect();
            assert_eq!(said, toml_value(key, &built_in), "{}", key.name);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
