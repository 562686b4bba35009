//! Words at a shell's cursor: the definition of the command line says which are possible, the
//! agent and the image store say which names there are.
//!
//! The script of `paddock completions SHELL` calls this binary with [`VAR`] set. No agent, one that
//! is slow, and no right to ask are all the same: no names, no word, at once. What a container is
//! called may be its image's choice, and a shell pastes it as it is: names that a shell would take
//! for more than a word are left out.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::{
    CompleteEnv,
    engine::{
        ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter,
        ValueCompleter as _,
    },
    env::{Bash, EnvCompleter, Fish, Shells, Zsh},
};
use paddock_agent::api::{ContainerSummary, PolicySummary};

use crate::{
    args::{Args, DATA_DIR, STATE_DIR},
    client::Client,
};

/// Names the shell that asks. Not clap's own `COMPLETE`: others may have set that one.
pub(crate) const VAR: &str = "PADDOCK_COMPLETE";
/// A key was pressed; nobody waits for longer.
const PATIENCE: Duration = Duration::from_millis(300);
/// More names help nobody.
const MOST: usize = 1000;
const SIGNALS: [&str; 11] = [
    "TERM", "KILL", "HUP", "INT", "QUIT", "USR1", "USR2", "STOP", "CONT", "WINCH", "ABRT",
];

/// A shell that scripts are made for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// A file in zsh's `fpath` is the body of a function that a first Tab calls, not a script.
const AT_THE_FIRST_TAB: &[u8] = b"\nif [[ $funcstack[1] == _paddock ]]; then\n    \
    _clap_dynamic_completer_paddock \"$@\"\nfi\n";

impl Shell {
    fn adapter(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Zsh => &Zsh,
            Self::Fish => &Fish,
        }
    }

    /// What the shell has to read; `binary` is what it calls.
    pub(crate) fn script(self, binary: &str) -> std::io::Result<Vec<u8>> {
        let mut script = Vec::new();
        let adapter = self.adapter();
        adapter.write_registration(VAR, "paddock", "paddock", binary, &mut script)?;
        if matches!(self, Self::Zsh) {
            script.extend_from_slice(AT_THE_FIRST_TAB);
        }
        Ok(script)
    }
}

/// Answers where a shell asks; `None` where this is a command like any other.
pub(crate) fn answer() -> Option<ExitCode> {
    std::env::var_os(VAR)?;
    let shells = [Shell::Bash, Shell::Zsh, Shell::Fish].map(Shell::adapter);
    let here = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(definition)
        .var(VAR)
        .bin("paddock")
        .shells(Shells(&shells))
        .try_complete(std::env::args_os(), here.as_deref());
    match asked {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        // A shell that nobody made a script for, or one that left: its prompt stays clean.
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// The command line, each name with where names come from.
fn definition() -> Command {
    let mut command = Args::command();
    // Each command's own arguments are made when it is built.
    command.build();
    named(command, &[])
}

fn named(command: Command, above: &[String]) -> Command {
    let mut path = above.to_vec();
    path.push(command.get_name().to_owned());
    let words: Vec<&str> = path.iter().skip(1).map(String::as_str).collect();
    let command = command.mut_args(|arg| with_names(arg, &words));
    command.mut_subcommands(|one| named(one, &path))
}

/// Whose name an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Containers,
    Policies,
    /// Of the store, and the host.
    Roots,
    Images,
    Signals,
}

/// By its place and the word that the help has for its value.
fn kind(arg: &Arg, words: &[&str]) -> Option<Names> {
    let id = arg.get_id().as_str();
    let value = arg.get_value_names().and_then(|names| names.first());
    match (words, id, value.map(clap::builder::Str::as_str)) {
        (["run" | "create"], "image", _) => Some(Names::Roots),
        (["pull"] | ["images", "pull" | "rm"], _, Some("IMAGE")) => Some(Names::Images),
        (_, "signal" | "stop_signal", _) => Some(Names::Signals),
        (["policy", ..], _, Some("POLICY")) => Some(Names::Policies),
        (_, "container", _) | (_, _, Some("CONTAINER")) => Some(Names::Containers),
        (_, "name" | "names", Some("NAME")) if arg.is_positional() => Some(Names::Containers),
        _ => None,
    }
}

fn with_names(arg: Arg, words: &[&str]) -> Arg {
    match kind(&arg, words) {
        None => arg,
        Some(Names::Containers) => arg.add(ArgValueCandidates::new(containers)),
        Some(Names::Policies) => arg.add(ArgValueCandidates::new(policies)),
        Some(Names::Images) => arg.add(ArgValueCandidates::new(images)),
        Some(Names::Roots) => arg.add(ArgValueCompleter::new(roots)),
        Some(Names::Signals) => arg.add(ArgValueCandidates::new(|| {
            SIGNALS.into_iter().map(CompletionCandidate::new).collect()
        })),
    }
}

fn containers() -> Vec<CompletionCandidate> {
    let all: Option<Vec<ContainerSummary>> = ask("/v1/containers?all=true");
    let all = all.unwrap_or_default().into_iter();
    offer(all.map(|one| one.name))
}

fn policies() -> Vec<CompletionCandidate> {
    let all: Option<Vec<PolicySummary>> = ask("/v1/policies");
    offer(all.unwrap_or_default().into_iter().map(|one| one.name))
}

fn images() -> Vec<CompletionCandidate> {
    let (to, listed) = mpsc::channel();
    // Whoever puts one in has the store's lock.
    thread::spawn(move || {
        let data = directory("--data-dir", "PADDOCK_DATA_DIR", DATA_DIR);
        let _ = to.send(paddock_images::Store::at(&data).list());
    });
    let all = listed.recv_timeout(PATIENCE).ok().and_then(Result::ok);
    let all = all.unwrap_or_default().into_iter();
    offer(
        all.flat_map(|one| one.names)
            .map(|name| paddock_images::Reference::familiar(&name).to_owned()),
    )
}

/// What a container can be made of.
fn roots(current: &OsStr) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    if typed.starts_with(['/', '.']) {
        return PathCompleter::dir().complete(current);
    }
    let mut all = images();
    all.push(CompletionCandidate::new("host"));
    all.retain(|one| one.get_value().to_string_lossy().starts_with(&*typed));
    all
}

fn offer(names: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    let names = names.filter(|name| is_a_word(name)).take(MOST);
    names.map(CompletionCandidate::new).collect()
}

/// Whether a shell takes it for itself and nothing more.
fn is_a_word(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-:/@+".contains(letter);
    !name.is_empty() && !name.starts_with('-') && name.len() <= 255 && name.chars().all(plain)
}

fn ask<T: serde::de::DeserializeOwned>(path: &str) -> Option<T> {
    let state = directory("--state-dir", "PADDOCK_STATE_DIR", STATE_DIR);
    let client = Client::new(&state).ok()?;
    client.get_within(path, PATIENCE).ok()
}

/// As the line so far says, or the environment, or nobody.
fn directory(flag: &str, variable: &str, default: &str) -> PathBuf {
    let words: Vec<OsString> = std::env::args_os().collect();
    said(&words, flag)
        .or_else(|| std::env::var_os(variable))
        .map_or_else(|| default.into(), PathBuf::from)
}

fn said(words: &[OsString], flag: &str) -> Option<OsString> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == flag {
            return words.next().cloned();
        }
        let value = word.to_str().and_then(|word| word.strip_prefix(flag));
        if let Some(value) = value.and_then(|value| value.strip_prefix('=')) {
            return Some(value.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(words: &[&str]) -> Vec<(String, Names)> {
        let mut command = Args::command();
        command.build();
        let mut at = &command;
        for word in words {
            at = at.find_subcommand(word).unwrap();
        }
        let args = at.get_arguments();
        args.filter_map(|arg| Some((arg.get_id().to_string(), kind(arg, words)?)))
            .collect()
    }

    #[test]
    fn every_command_that_takes_containers_is_offered_them() {
        for word in [
            "attach", "exec", "inspect", "kill", "logs", "pause", "restart", "rm", "start",
            "stats", "stop", "unpause", "update", "wait",
        ] {
            let kinds = kinds(&[word]);
            let has = kinds
                .iter()
                .any(|(id, names)| *names == Names::Containers && (id == "name" || id == "names"));
            assert!(has, "{word}: {kinds:?}");
        }
        for words in [&["events"][..], &["ns"], &["policy", "learn"]] {
            let container = ("container".to_owned(), Names::Containers);
            assert!(kinds(words).contains(&container), "{words:?}");
        }
        // One that is to be made has no name yet.
        assert!(!kinds(&["run"]).iter().any(|(id, _)| id == "name"));
    }

    #[test]
    fn policies_and_roots_are_offered_where_they_are_wanted() {
        for word in ["mode", "remove", "show", "list"] {
            let kinds = kinds(&["policy", word]);
            assert!(
                kinds.iter().any(|(_, names)| *names == Names::Policies),
                "{word}: {kinds:?}"
            );
        }
        let root = ("image".to_owned(), Names::Roots);
        assert!(kinds(&["run"]).contains(&root) && kinds(&["create"]).contains(&root));
        assert!(kinds(&["images", "rm"]).contains(&("names".to_owned(), Names::Images)));
    }

    #[test]
    fn names_that_are_more_than_a_word_to_a_shell_are_left_out() {
        let names = [
            "web",
            "$(reboot)",
            "a b",
            "-f",
            "x;y",
            "",
            "k8s_a/b:c@1",
            "`x`",
            "a\n",
        ];
        let offered = offer(names.into_iter().map(str::to_owned));
        let offered: Vec<_> = offered.iter().map(CompletionCandidate::get_value).collect();
        assert_eq!(offered, ["web", "k8s_a/b:c@1"]);
    }

    #[test]
    fn the_line_says_whom_to_ask() {
        let line = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            said(&words, "--state-dir")
        };
        assert_eq!(
            line(&["paddock", "--state-dir", "/a", "rm"]),
            Some("/a".into())
        );
        assert_eq!(line(&["paddock", "--state-dir=/b"]), Some("/b".into()));
        assert_eq!(line(&["paddock", "--state-dir"]), None);
        assert_eq!(line(&["paddock", "--state-directory"]), None);
    }

    #[test]
    fn each_shell_has_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(shell.script("/opt/pad dock").unwrap()).unwrap();
            assert!(
                script.contains(VAR) && script.contains("pad dock"),
                "{script}"
            );
        }
    }
}
