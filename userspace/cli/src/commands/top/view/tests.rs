//! Screens at two sizes and smaller ones, drawn into memory.

use std::time::{Duration, UNIX_EPOCH};

use ratatui::{Terminal, backend::TestBackend};

use super::{
    super::{
        model::{LINES, Line, Sort, Weight, tests::model},
        row::tests::row,
    },
    *,
};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(100)
}

fn lines(model: &Model, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let mut view = View::new(false);
    terminal
        .draw(|frame| view.draw(frame, model, now()))
        .unwrap();
    let buffer = terminal.backend().buffer();
    (0..rows)
        .map(|y| {
            let cells = (0..columns).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>()
        })
        .collect()
}

#[test]
fn the_table_at_80_by_24() {
    let shown = lines(&model(), 80, 24);
    assert_eq!(
        shown[0].trim_end(),
        "paddock top  3 launched, 0 found                                          by cpu"
    );
    assert_eq!(
        shown[1].trim_end(),
        "NAME              CPU%   MEM/LIMIT MEM% pCPU pMEM  IO/s  PIDS OOM ESC STATUS"
    );
    assert_eq!(
        shown[2].trim_end(),
        "busy              99.0     10M/64M 15.6 12.5  0.0     -     3   0   0 up 1m"
    );
    assert!(shown[4].starts_with("idle"), "{shown:#?}");
    assert!(shown[5].trim().is_empty(), "{shown:#?}");
    assert!(shown[23].starts_with("q quit"), "{shown:#?}");
}

#[test]
fn the_table_at_200_by_60_says_more() {
    let shown = lines(&model(), 200, 60);
    for title in [
        "READ/s",
        "WRITE/s",
        "pIO",
        "ESCAPES",
        "ORIGIN",
        "CONTAINER ID",
        "IMAGE",
    ] {
        assert!(shown[1].contains(title), "{title}: {}", shown[1]);
    }
    assert!(shown[2].contains("launched up 1m") && shown[2].contains("busyaaaaaaaa host"));
    assert_eq!(shown[1].chars().count(), 200);
}

#[test]
fn no_size_is_too_small_and_no_name_too_odd() {
    let mut odd = row(
        "\u{1b}[2J\u{202e}evil\n日本語日本語日本語日本語日本語",
        1.0,
        1,
    );
    odd.image = "\u{7}bell\u{1b}]0;title\u{7}".into();
    let mut model = Model::new(Sort::Cpu, String::new());
    model.take_rows(vec![odd.clone()]);
    let screens: [fn(&mut Model); 5] = [
        |_| {},
        Model::open_single,
        |model| model.open_text(TextKind::Logs),
        |model| model.overlay = Overlay::Help,
        |model| {
            let (id, name) = model.subject().unwrap();
            model.overlay = Overlay::Kill { id, name };
        },
    ];
    for screen in screens {
        screen(&mut model);
        for (columns, rows) in [(200, 60), (80, 24), (60, 10), (20, 5), (3, 2), (1, 1)] {
            let shown = lines(&model, columns, rows).concat();
            assert!(
                !shown
                    .chars()
                    .any(|letter| letter.is_control() || letter == '\u{202e}'),
                "{columns}x{rows}: {shown:?}"
            );
        }
    }
    let shown = lines(&model, 200, 60).join("\n");
    assert!(shown.contains("Kill \\u{1b}[2J\\u{202e}evil"), "{shown}");
}

#[test]
fn the_chosen_one_is_on_the_screen() {
    let mut model = Model::new(Sort::Name, String::new());
    let rows = (0..100).map(|number| row(&format!("c{number:02}"), 0.0, 1));
    model.take_rows(rows.collect());
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let mut view = View::new(false);
    let mut first = |model: &Model| {
        terminal
            .draw(|frame| view.draw(frame, model, now()))
            .unwrap();
        let buffer = terminal.backend().buffer();
        (2..23)
            .map(|y| (0..3).map(|x| buffer[(x, y)].symbol()).collect::<String>())
            .collect::<Vec<_>>()
    };
    assert_eq!(first(&model)[0], "c00");
    model.step(21);
    assert_eq!((&*first(&model)[0], &*first(&model)[20]), ("c01", "c21"));
    model.step(-3);
    assert_eq!(first(&model)[0], "c01", "it moves on the screen first");
    model.step(isize::MAX);
    assert_eq!(first(&model)[20], "c99");
    model.step(isize::MIN);
    assert_eq!(first(&model)[0], "c00");
}

#[test]
fn an_agent_that_is_gone_is_told_over_what_was() {
    let mut model = model();
    model.link = Link::Gone("no agent answers on /run/x".into());
    let shown = lines(&model, 80, 24);
    assert_eq!(
        shown[0].trim_end(),
        "paddock top  no agent answers on /run/x; asking again"
    );
    assert!(shown[2].starts_with("busy"), "{shown:#?}");
}

#[test]
fn one_container_at_80_by_24() {
    let mut model = model();
    model.open_single();
    let (id, _) = model.subject().unwrap();
    let line = |number| Line {
        text: format!("12:00:{number:02} exec"),
        weight: Weight::Grave,
    };
    model.take_lines(&id, TextKind::Events, (0..30).map(line).collect());
    let shown = lines(&model, 80, 24);
    assert_eq!(shown[1].trim_end(), "busy  up 1m");
    let all = shown.join("\n");
    for text in [
        "memory   10M of 64M",
        "waiting  cpu 12.5 mem 0.0 io - %",
        "CPU 99.0 %",
        "top 100",
        "Last events",
        "12:00:29 exec",
    ] {
        assert!(all.contains(text), "{text}:\n{all}");
    }
    assert!(!all.contains("12:00:01"), "the last ones:\n{all}");
    // A bar of the memory's graph: one of six eighths.
    assert!(all.contains('█') || all.contains('▇'), "{all}");
}

#[test]
fn a_log_ends_at_the_bottom_and_scrolls() {
    let mut model = model();
    model.open_text(TextKind::Logs);
    let (id, _) = model.subject().unwrap();
    let line = |number: usize| Line {
        text: format!("line {number}."),
        weight: Weight::Usual,
    };
    model.take_lines(&id, TextKind::Logs, (0..LINES).map(line).collect());
    assert!(lines(&model, 80, 24)[22].starts_with("line 1999."));
    if let Screen::Text(text) = &mut model.screen {
        text.back = LINES - 1;
    }
    assert!(lines(&model, 80, 24)[2].starts_with("line 0."));
}

#[test]
fn nothing_is_coloured_where_nobody_wants_it() {
    let mut one = row("bad", 1.0, 63 << 20);
    (one.oom_kills, one.escapes) = (3, 1);
    let mut model = Model::new(Sort::Cpu, String::new());
    model.take_rows(vec![one]);
    for colour in [false, true] {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut view = View::new(colour);
        terminal
            .draw(|frame| view.draw(frame, &model, now()))
            .unwrap();
        let cells = &terminal.backend().buffer().content;
        let coloured = cells
            .iter()
            .any(|cell| cell.fg != ratatui::style::Color::Reset);
        assert_eq!(coloured, colour);
    }
}
