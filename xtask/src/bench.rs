//! `cargo xtask bench NAME`: measurements, side by side in one run, never a timed test.

use std::{process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::{
    build,
    cmd::{run, step},
    setup::{self, Purpose},
    tree::Tree,
    vm::{self, initramfs::Contents, qemu::Machine},
};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Bench {
    /// What calls cost more, here and in a guest that counts instructions; what is delivered, here
    Hooks {
        /// Kernel series of the guests; without one, 6.1 and the newest
        #[arg(long = "vm", value_name = "VERSION")]
        guests: Vec<String>,
    },
    /// What a policy in force costs calls inside a container, and how long a swap takes
    Enforce {
        /// Kernel series of the guests; without one, 6.1 and the newest
        #[arg(long = "vm", value_name = "VERSION")]
        guests: Vec<String>,
    },
    /// What an agent costs beside many containers: idle, scrapes, `ps` and `stats`
    Scale {
        /// So many containers, one row each
        #[arg(default_values_t = [10, 100, 1000])]
        containers: Vec<u32>,
    },
    /// Many short containers, one after the other: whether memory and series stay flat, and whether
    /// each kill and escape is told
    Turnover {
        /// So many
        #[arg(default_value_t = 10_000)]
        containers: u32,
    },
    /// Searching a store of many events: one container's of a time, a kind, a verdict, all
    Events {
        /// So many are stored; some 500 bytes of disk each
        #[arg(default_value_t = 10_000_000)]
        events: u64,
    },
    /// Starting and entering a container, beside crun, runc and the floor
    Launch {
        /// Kernel series of the guests; without one, the newest
        #[arg(long = "vm", value_name = "VERSION")]
        guests: Vec<String>,
        /// Launches of each on this machine; a guest has a tenth
        #[arg(long, default_value_t = 100)]
        rounds: u32,
        /// Launches that must leave no trace
        #[arg(long, default_value_t = 10_000)]
        soak: u32,
    },
}

/// A measuring program, and what it takes here and in a guest.
struct Program {
    name: &'static str,
    here: Vec<String>,
    guest: String,
    tools: &'static [&'static str],
    series: Vec<String>,
}

pub(crate) fn main(tree: &Tree, args: &Args) -> Result<i32> {
    if !setup::is_root() {
        bail!("needs root, since kernel programs do: sudo -E cargo xtask bench");
    }
    let toolchain = setup::prepare(tree, Purpose::Test)?;
    build::all(tree, &toolchain)?;
    let program = program(&args.bench);
    step("this machine, by the clock");
    let mut command = Command::new(tree.binary(program.name));
    command
        .args(&program.here)
        .env("PADDOCK_BIN", tree.binary("paddock"))
        .env("PADDOCK_WORKLOAD", tree.binary("paddock-workload"))
        // Where state is by default, and the peers' too.
        .env("TMPDIR", "/run");
    run(&mut command)?;
    let mut code = 0;
    for series in &program.series {
        step(&format!("Linux {series}, 1 ns being 1 instruction"));
        code |= guest(tree, series, &program)?;
    }
    Ok(code)
}

fn program(bench: &Bench) -> Program {
    let or = |chosen: &[String], usual: &[&str]| {
        if chosen.is_empty() {
            usual.iter().map(|&series| series.to_owned()).collect()
        } else {
            chosen.to_vec()
        }
    };
    match bench {
        Bench::Hooks { guests } => Program {
            name: "paddock-bench-hooks",
            here: ["7", "300000", "50", "20000"].map(str::to_owned).to_vec(),
            guest: "3 100000".to_owned(),
            tools: &[],
            series: or(guests, &["6.1", "newest"]),
        },
        Bench::Enforce { guests } => Program {
            name: "paddock-bench-enforce",
            here: ["7", "300000", "200"].map(str::to_owned).to_vec(),
            guest: "3 20000 20".to_owned(),
            tools: &[],
            series: or(guests, &["6.1", "newest"]),
        },
        Bench::Scale { containers } => Program {
            name: "paddock-bench-scale",
            here: containers.iter().map(u32::to_string).collect(),
            guest: String::new(),
            tools: &[],
            series: Vec::new(),
        },
        Bench::Turnover { containers } => Program {
            name: "paddock-bench-turnover",
            here: vec![containers.to_string()],
            guest: String::new(),
            tools: &[],
            series: Vec::new(),
        },
        Bench::Events { events } => Program {
            name: "paddock-bench-events",
            here: vec![events.to_string()],
            guest: String::new(),
            tools: &[],
            series: Vec::new(),
        },
        Bench::Launch {
            guests,
            rounds,
            soak,
        } => Program {
            name: "paddock-bench-launch",
            here: vec![rounds.to_string(), "5".to_owned(), soak.to_string()],
            guest: format!("{} 0 0", rounds.div_ceil(10)),
            tools: &["crun", "runc"],
            series: or(guests, &["newest"]),
        },
    }
}

fn guest(tree: &Tree, series: &str, program: &Program) -> Result<i32> {
    let name = program.name;
    let contents = Contents {
        command: Some(format!(
            "export PADDOCK_BIN=/usr/bin/paddock PADDOCK_WORKLOAD=/usr/bin/paddock-workload\n\
             exec {name} {}\n",
            program.guest
        )),
        files: vec![(tree.binary(name), format!("/usr/bin/{name}"))],
        tools: program.tools.iter().map(|&tool| tool.to_owned()).collect(),
        debian: None,
    };
    let machine = Machine {
        timeout: Duration::from_mins(10),
        memory_mib: 2048,
        deterministic: true,
        interactive: false,
        quiet: false,
        label: String::new(),
    };
    vm::boot(tree, series, &contents, &machine)?.code()
}
