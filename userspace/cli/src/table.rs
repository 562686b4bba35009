//! Tables that fit the terminal.
//!
//! Columns are as wide as their widest cell. Where that is too much, the columns marked to give
//! way lose characters, the widest first, down to a floor; a cut cell ends in `…`.

/// Columns may not become narrower than this.
const FLOOR: usize = 8;
const GAP: usize = 2;

#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a trait of its own, and columns are constants"
)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// May be cut to fit.
    pub(crate) shrinks: bool,
    /// Numbers stand on the right.
    pub(crate) right: bool,
    /// Left out where no row has anything in it, by [`render_used`].
    pub(crate) optional: bool,
    /// Left out where there is no room, the last of them first, by [`render_used`].
    pub(crate) spare: bool,
}

impl Column {
    pub(crate) const fn fixed(title: &'static str) -> Self {
        Self {
            title,
            shrinks: false,
            right: false,
            optional: false,
            spare: false,
        }
    }
    pub(crate) const fn optional(title: &'static str) -> Self {
        Self {
            title,
            shrinks: true,
            right: false,
            optional: true,
            spare: false,
        }
    }
    pub(crate) const fn shrinking(title: &'static str) -> Self {
        Self {
            title,
            shrinks: true,
            right: false,
            optional: false,
            spare: false,
        }
    }
    pub(crate) const fn spare(self) -> Self {
        Self {
            spare: true,
            ..self
        }
    }
    pub(crate) const fn number(title: &'static str) -> Self {
        Self {
            title,
            shrinks: false,
            right: true,
            optional: false,
            spare: false,
        }
    }
}

/// As [`render`], without the optional columns that have nothing to say.
pub(crate) fn render_used(
    columns: &[Column],
    rows: &[Vec<String>],
    width: Option<usize>,
) -> String {
    let used = |index: usize, column: &Column| {
        let says = |row: &Vec<String>| row.get(index).is_some_and(|cell| !cell.is_empty());
        !column.optional || rows.iter().any(says)
    };
    let mut kept: Vec<usize> = (0..columns.len())
        .filter(|&index| used(index, &columns[index]))
        .collect();
    let least = |kept: &[usize]| {
        let widths = kept.iter().map(|&index| least(columns, rows, index));
        widths.sum::<usize>() + GAP * kept.len().saturating_sub(1)
    };
    while width.is_some_and(|width| least(&kept) > width)
        && let Some(last) = kept.iter().rposition(|&index| columns[index].spare)
    {
        kept.remove(last);
    }
    let columns: Vec<Column> = kept.iter().map(|&index| columns[index]).collect();
    let cut = |row: &Vec<String>| kept.iter().map(|&index| row[index].clone()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(cut).collect();
    render(&columns, &rows, width)
}

/// Lays out `rows` under their titles. `width: None` never cuts.
pub(crate) fn render(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let widths = widths(columns, rows, width);
    let mut text = String::new();
    let titles: Vec<String> = columns
        .iter()
        .map(|column| column.title.to_owned())
        .collect();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for ((column, cell), &width) in columns.iter().zip(row).zip(&widths) {
            if !line.is_empty() {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = cut(cell, width);
            let padding = " ".repeat(width - cell.chars().count());
            let parts = if column.right {
                [padding, cell]
            } else {
                [cell, padding]
            };
            line.extend(parts);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// At most `width` characters, with `…` for what is missing.
pub(crate) fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let mut short: String = cell.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// A column's width when it has given what it can.
fn least(columns: &[Column], rows: &[Vec<String>], index: usize) -> usize {
    let column = &columns[index];
    let title = column.title.chars().count();
    let cells = rows.iter().filter_map(|row| row.get(index));
    let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
    if column.shrinks {
        title.max(widest.min(FLOOR))
    } else {
        title.max(widest)
    }
}

fn widths(columns: &[Column], rows: &[Vec<String>], limit: Option<usize>) -> Vec<usize> {
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(index))
                .map(|cell| cell.chars().count());
            cells
                .chain([column.title.chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let gaps = GAP * columns.len().saturating_sub(1);
    let mut excess = limit.map_or(0, |limit| {
        (widths.iter().sum::<usize>() + gaps).saturating_sub(limit)
    });
    while excess > 0 {
        let widest = widths
            .iter_mut()
            .zip(columns)
            .filter(|(width, column)| {
                column.shrinks && **width > FLOOR.max(column.title.chars().count())
            })
            .map(|(width, _)| width)
            .max();
        let Some(width) = widest else { break };
        *width -= 1;
        excess -= 1;
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::fixed("ID"),
        Column::shrinking("COMMAND"),
        Column::number("OOM"),
    ];

    fn rows() -> Vec<Vec<String>> {
        vec![
            vec![
                "abcdef".into(),
                "sh -c 'a very long command line'".into(),
                "12".into(),
            ],
            vec!["012345".into(), "true".into(), "0".into()],
        ]
    }

    #[test]
    fn fits_the_width_by_cutting_what_may_be_cut() {
        let text = render(&COLUMNS, &rows(), Some(30));
        assert!(
            text.lines().all(|line| line.chars().count() <= 30),
            "{text}"
        );
        assert_eq!(text.lines().nth(1), Some("abcdef  sh -c 'a very lo…   12"));
        assert_eq!(text.lines().nth(2), Some("012345  true                 0"));
    }

    #[test]
    fn leaves_out_what_can_be_spared_where_there_is_no_room() {
        let columns = [
            COLUMNS[0],
            COLUMNS[1].spare(),
            COLUMNS[2],
            Column::fixed("LAST").spare(),
        ];
        let mut rows = rows();
        for row in &mut rows {
            row.push("x".to_owned());
        }
        let titles = |width| {
            let text = render_used(&columns, &rows, width);
            let titles = text.lines().next().unwrap_or_default().to_owned();
            titles
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(titles(None).len(), 4);
        assert_eq!(titles(Some(27)), ["ID", "COMMAND", "OOM", "LAST"]);
        assert_eq!(titles(Some(26)), ["ID", "COMMAND", "OOM"]);
        assert_eq!(titles(Some(12)), ["ID", "OOM"]);
        assert_eq!(titles(Some(1)), ["ID", "OOM"]);
    }

    #[test]
    fn cuts_nothing_where_nobody_looks() {
        assert!(render(&COLUMNS, &rows(), None).contains("long command line'"));
    }

    #[test]
    fn keeps_a_floor_when_nothing_fits() {
        let text = render(&COLUMNS, &rows(), Some(5));
        assert_eq!(text.lines().nth(2), Some("012345  true        0"));
    }
}
