//! The verbs, a file each where there is more to it than a line.

pub(crate) mod create;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod list;
mod ps;
mod run;
mod signal;
mod spec;
mod start;
mod update;

use std::io::{self, Write as _};

use serde_json::Value;

use crate::{
    args::{Args, Command},
    container::{self, Container, Status},
    error::Error,
    log::Log,
};

pub(crate) fn dispatch(args: Args, log: &Log) -> Result<u8, Error> {
    let root = &std::path::absolute(&args.root).map_err(Error::io("find", &args.root))?;
    let manager = args.cgroup_manager;
    match args.command {
        Command::Create(wanted) => create::verb(root, &wanted, manager, log).map(|()| 0),
        Command::Start(wanted) => start::verb(root, &wanted.id, log).map(|()| 0),
        Command::Run(wanted) => run::verb(root, &wanted, manager, log),
        Command::State(wanted) => {
            let (record, status) = container::peek(root, &wanted.id)?;
            print(&container::state(&record, status)).map(|()| 0)
        }
        Command::Kill(wanted) => signal::verb(root, &wanted).map(|()| 0),
        Command::Delete(wanted) => delete::verb(root, &wanted, log).map(|()| 0),
        Command::Exec(wanted) => exec::verb(root, &wanted),
        Command::Pause(wanted) => freeze(root, &wanted.id, true).map(|()| 0),
        Command::Resume(wanted) => freeze(root, &wanted.id, false).map(|()| 0),
        Command::Update(wanted) => update::verb(root, &wanted).map(|()| 0),
        Command::Ps(wanted) => ps::verb(root, &wanted).map(|()| 0),
        Command::List(wanted) => list::verb(root, &wanted).map(|()| 0),
        Command::Events(wanted) => events::verb(root, &wanted).map(|()| 0),
        Command::Features => print(&features::all()).map(|()| 0),
        Command::Spec(wanted) => spec::verb(&wanted).map(|()| 0),
    }
}

fn freeze(root: &std::path::Path, id: &str, frozen: bool) -> Result<(), Error> {
    let container = Container::open(root, id)?;
    let (verb, from) = if frozen {
        ("pause", [Status::Running, Status::Created])
    } else {
        ("resume", [Status::Paused, Status::Paused])
    };
    container.record.check_cgroup(verb)?;
    let status = container.status();
    if !from.contains(&status) {
        return Err(Error::Status {
            verb,
            id: id.to_owned(),
            status: status.word(),
        });
    }
    let cgroup = container.record.needed_cgroup(verb)?;
    Ok(if frozen {
        cgroup.freeze()
    } else {
        cgroup.thaw()
    }?)
}

/// Pretty, as runc's.
fn print(value: &Value) -> Result<(), Error> {
    line(&format!("{value:#}"))
}

fn line(text: &str) -> Result<(), Error> {
    match writeln!(io::stdout(), "{text}") {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write", "/dev/stdout")(source))
        }
        _ => Ok(()),
    }
}
