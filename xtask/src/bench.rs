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
    /// What a syscall that nobody watches costs more, here and in a guest that counts instructions
    Hooks {
        /// Kernel series of the guests; without one, 6.1 and the newest
        #[arg(long = "vm", value_name = "VERSION")]
        guests: Vec<String>,
    },
}

pub(crate) fn main(tree: &Tree, args: &Args) -> Result<i32> {
    if !setup::is_root() {
        bail!("needs root, since kernel programs do: sudo -E cargo xtask bench");
    }
    let Bench::Hooks { guests } = &args.bench;
    let toolchain = setup::prepare(tree, Purpose::Test)?;
    build::all(tree, &toolchain)?;
    step("this machine, by the clock");
    let mut command = Command::new(tree.binary("paddock-bench-hooks"));
    command
        .args(["7", "1000000"])
        .env("PADDOCK_BIN", tree.binary("paddock"))
        .env("PADDOCK_WORKLOAD", tree.binary("paddock-workload"));
    run(&mut command)?;
    let series = if guests.is_empty() {
        vec!["6.1".to_owned(), "newest".to_owned()]
    } else {
        guests.clone()
    };
    let mut code = 0;
    for series in &series {
        step(&format!("Linux {series}, 1 ns being 1 instruction"));
        code |= guest(tree, series)?;
    }
    Ok(code)
}

fn guest(tree: &Tree, series: &str) -> Result<i32> {
    let bench = tree.binary("paddock-bench-hooks");
    let contents = Contents {
        command: Some(
            "export PADDOCK_BIN=/usr/bin/paddock PADDOCK_WORKLOAD=/usr/bin/paddock-workload\n\
             exec paddock-bench-hooks 3 100000\n"
                .to_owned(),
        ),
        files: vec![(bench, "/usr/bin/paddock-bench-hooks".to_owned())],
        tools: Vec::new(),
    };
    let machine = Machine {
        timeout: Duration::from_mins(10),
        memory_mib: 2048,
        deterministic: true,
        interactive: false,
        label: String::new(),
    };
    vm::boot(tree, series, &contents, &machine)?.code()
}
