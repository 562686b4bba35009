//! The command line's shape: global options and the list of commands.
//!
//! A usage error is one line, `paddock: what; try 'paddock COMMAND --help'`, and docker's exit
//! code: 125 in `run`, `create` and `exec`, 1 elsewhere.

use std::{ffi::OsString, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{
    ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind,
};

use crate::{commands, config, exit};

/// The instance that is meant where none is named.
pub(crate) const STATE_DIR: &str = "/run/paddock";

/// Where images are where no other place is named.
pub(crate) const DATA_DIR: &str = "/var/lib/paddock";

/// Box a program, watch every container.
#[derive(Debug, Parser)]
#[command(
    name = "paddock",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    /// Directory of the instance: its socket, its containers, its lock
    #[arg(
        long,
        global = true,
        env = "PADDOCK_STATE_DIR",
        default_value = STATE_DIR,
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(crate) state_dir: PathBuf,
    /// Directory of images and of what containers write over them
    #[arg(
        long,
        global = true,
        env = "PADDOCK_DATA_DIR",
        default_value = DATA_DIR,
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(crate) data_dir: PathBuf,
    /// Show an error's whole chain
    #[arg(long, global = true)]
    verbose: bool,
    /// --verbose, before the command
    #[arg(short = 'v')]
    v: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Each is built when it is the one: all of them take a third of a millisecond.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    Run(Box<commands::run::Run>),
    Create(Box<commands::create::Create>),
    Start(commands::start::Start),
    Ps(commands::ps::Ps),
    Stats(commands::stats::Stats),
    Top(commands::top::Top),
    Logs(commands::logs::Logs),
    Exec(commands::exec::Exec),
    Attach(commands::attach::Attach),
    Stop(commands::stop::Stop),
    Restart(commands::restart::Restart),
    Kill(commands::kill::Kill),
    Wait(commands::wait::Wait),
    Rm(commands::rm::Rm),
    Pause(commands::pause::Pause),
    Unpause(commands::unpause::Unpause),
    Update(Box<commands::update::Update>),
    Images(commands::images::Images),
    Pull(commands::images::Pull),
    Inspect(commands::inspect::Inspect),
    Events(commands::events::Events),
    Ns(commands::ns::Ns),
    Check(commands::check::Check),
    Policy(commands::policy::Policy),
    Agent(commands::agent::Agent),
    Config(commands::config::Config),
    Unload(commands::unload::Unload),
    Completions(commands::completions::Completions),
}

impl Args {
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose || self.v
    }

    /// What a failure without a code of its own ends with.
    pub(crate) fn failure_code(&self) -> u8 {
        match self.command {
            Command::Run(_) | Command::Create(_) | Command::Exec(_) => exit::OWN_FAILURE,
            _ => exit::FAILURE,
        }
    }
}

/// Parses, or prints why not (or the help that was asked for) and says how to end.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Args, ExitCode> {
    let words: Vec<OsString> = words.collect();
    let mut command = Args::command();
    if command_word(&words).is_none() {
        // The list of all says what each is for.
        command.build();
    }
    let mut matches = command.try_get_matches_from_mut(&words);
    if let Some(agent) = agent(&matches) {
        let more = config::words(agent).map_err(|error| {
            config::tell(&error);
            ExitCode::from(exit::FAILURE)
        })?;
        matches = command.try_get_matches_from_mut(words.iter().chain(&more));
    }
    let args = matches.and_then(|mut matches| {
        let args = Args::from_arg_matches_mut(&mut matches);
        args.map_err(|error| error.format(&mut command))
    });
    args.map_err(|error| {
        if matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
        ) {
            // A closed stdout is the reader's choice.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        let command = command_word(&words);
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            let _ = error.print();
        } else {
            let _ = writeln!(std::io::stderr(), "{}", usage_line(&error, command));
        }
        ExitCode::from(usage_code(command))
    })
}

/// `paddock agent` by the command line that this process was started with, the files being what
/// they are now.
pub(crate) fn parse_again() -> Result<commands::agent::Agent, String> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut command = Args::command();
    let first = command.try_get_matches_from_mut(&words);
    let agent = agent(&first).ok_or("this is no agent's command line")?;
    let more = config::words(agent).map_err(|error| error.to_string())?;
    let args = command
        .try_get_matches_from_mut(words.iter().chain(&more))
        .and_then(|mut matches| Args::from_arg_matches_mut(&mut matches))
        .map_err(|error| usage_line(&error, Some("agent")))?;
    match args.command {
        Command::Agent(agent) => Ok(agent),
        _ => Err("this is no agent's command line".to_owned()),
    }
}

fn agent(matches: &Result<ArgMatches, clap::Error>) -> Option<&ArgMatches> {
    matches.as_ref().ok()?.subcommand_matches("agent")
}

fn usage_code(command: Option<&str>) -> u8 {
    if matches!(command, Some("run" | "create" | "exec")) {
        exit::OWN_FAILURE
    } else {
        exit::FAILURE
    }
}

/// Clap's first paragraph and its tips, in one line.
fn usage_line(error: &clap::Error, command: Option<&str>) -> String {
    let text = error.to_string();
    let mut what: Vec<&str> = text
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim)
        .collect();
    if let Some(first) = what.first_mut() {
        *first = first.strip_prefix("error: ").unwrap_or(first);
    }
    let tips = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tip: "));
    let tips = tips.fold(String::new(), |tips, tip| tips + " (" + tip + ")");
    let known = command.filter(|_| error.kind() != ErrorKind::InvalidSubcommand);
    let help = known.map_or_else(String::new, |command| format!("{command} "));
    let what = crate::human::single_line(&what.join(" "));
    format!("paddock: {what}{tips}; try 'paddock {help}--help'")
}

/// The first word that is no option: needed before parsing worked.
fn command_word(words: &[OsString]) -> Option<&str> {
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if matches!(word, "--state-dir" | "--data-dir") {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> (String, u8) {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let error = Args::try_parse_from(&words).unwrap_err();
        (
            usage_line(&error, command_word(&words)),
            usage_code(command_word(&words)),
        )
    }

    #[test]
    fn the_list_of_commands_says_what_each_is_for() {
        let mut command = Args::command();
        command.build();
        let commands: Vec<_> = command.get_subcommands().collect();
        assert!(commands.len() > 20);
        for command in commands {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn usage_errors_are_one_line_with_dockers_code() {
        let (text, code) = line(&[
            "paddock",
            "--state-dir",
            "/x",
            "run",
            "--memroy",
            "1m",
            "host",
        ]);
        assert_eq!(code, 125);
        assert!(
            text.starts_with("paddock: unexpected argument '--memroy' found ("),
            "{text}"
        );
        assert!(
            text.contains("'--memory'") && text.ends_with("; try 'paddock run --help'"),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");

        let (text, code) = line(&["paddock", "stop"]);
        assert_eq!(code, 1);
        assert!(
            text.contains("required") && text.contains("<NAME>"),
            "{text}"
        );

        let (text, code) = line(&["paddock", "inspct"]);
        assert_eq!(code, 1);
        assert!(
            text.contains("'inspect'") && text.ends_with("try 'paddock --help'"),
            "{text}"
        );
    }

    #[test]
    fn verbose_is_found_on_either_side() {
        for words in [
            ["paddock", "-v", "ps"],
            ["paddock", "--verbose", "ps"],
            ["paddock", "ps", "--verbose"],
        ] {
            assert!(
                Args::try_parse_from(words).unwrap().is_verbose(),
                "{words:?}"
            );
        }
    }
}
