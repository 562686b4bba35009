//! `paddock check --programs`: what this kernel's verifier says of each program, one by one.
//!
//! Loads and attaches nothing that stays, and asks no agent.

use paddock_probe::{Verified, verify_all};

use crate::{
    human,
    output::{self, Format, print},
    table::{self, Column},
};

const COLUMNS: [Column; 4] = [
    Column::fixed("PROGRAM"),
    Column::number("STEPS"),
    Column::number("INSTRUCTIONS"),
    Column::shrinking("WHY NOT"),
];

pub(super) fn show(format: Format) -> anyhow::Result<()> {
    let all = verify_all()?;
    match format {
        Format::Json => output::print_json(&all)?,
        Format::Table => print(&text(&all, output::width()))?,
    }
    Ok(())
}

fn text(all: &[Verified], width: Option<usize>) -> String {
    let number = |count: Option<u32>| count.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|one| {
            let errno = one.errno.as_ref().map(|errno| format!("{errno}, "));
            let reason = one.reason.as_deref().unwrap_or("-");
            vec![
                one.program.clone(),
                number(one.steps),
                number(one.instructions),
                human::single_line(&format!("{}{reason}", errno.unwrap_or_default())),
            ]
        })
        .collect();
    table::render(&COLUMNS, &rows, width)
}
