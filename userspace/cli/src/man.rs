//! The manual pages, from the definition of the command line, in a test: nothing that runs has
//! them. `cargo xtask man` runs it with `PADDOCK_MAN_DIR`, where it writes them, and
//! `PADDOCK_MAN_DATE`.

use std::{fs, path::PathBuf};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::args::Args;

/// Names of files and what is in them.
fn pages() -> Vec<(String, String)> {
    let mut command = Args::command();
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages);
    pages
}

fn add(command: &Command, pages: &mut Vec<(String, String)>) {
    if command.is_hide_set() {
        return;
    }
    let version = concat!("paddock ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .source(version)
        .date(std::env::var("PADDOCK_MAN_DATE").unwrap_or_default())
        .manual("User Commands");
    let mut page = Vec::new();
    man.render(&mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    // What a command's help ends with.
    let page = page.replace(".SH EXTRA\nExamples:", ".SH EXAMPLES");
    pages.push((man.get_filename(), page.replace(".SH EXTRA", ".SH NOTES")));
    for one in command.get_subcommands() {
        add(one, pages);
    }
}

#[test]
fn every_command_has_its_page() {
    let pages = pages();
    let page = |name: &str| {
        let found = pages.iter().find(|(file, _)| file == name);
        &found.unwrap_or_else(|| panic!("no {name}")).1
    };
    for name in [
        "paddock.1",
        "paddock-run.1",
        "paddock-top.1",
        "paddock-policy-apply.1",
    ] {
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(page(name).contains(section), "{name}: {section}");
        }
    }
    assert!(page("paddock-top.1").contains(".SH EXAMPLES"));
    assert!(pages.len() > 35, "{}", pages.len());
    if let Some(dir) = std::env::var_os("PADDOCK_MAN_DIR").map(PathBuf::from) {
        fs::create_dir_all(&dir).unwrap();
        for (name, page) in &pages {
            fs::write(dir.join(name), page).unwrap();
        }
    }
}
