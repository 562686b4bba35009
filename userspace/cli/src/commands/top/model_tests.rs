//! What is shown, in which order, and who stays chosen.

use super::{super::row::tests::row, *};

/// Three that run, one that does not.
pub(in crate::commands::top) fn model() -> Model {
    let mut model = Model::new(Sort::Cpu, String::new());
    let mut over = row("over", 0.0, 0);
    (over.used, over.state, over.exit_code) = (None, State::Exited, Some(3));
    model.take_rows(vec![
        row("idle", 0.0, 30 << 20),
        row("busy", 99.0, 10 << 20),
        row("half", 50.0, 20 << 20),
        over,
    ]);
    model
}

fn names(model: &Model) -> Vec<&str> {
    model.shown().map(|(row, _)| &*row.name).collect()
}

#[test]
fn fields_order_and_reverse_turns() {
    let mut model = model();
    assert_eq!(names(&model), ["busy", "half", "idle"]);
    model.sort = Sort::Mem;
    model.arrange();
    assert_eq!(names(&model), ["idle", "half", "busy"]);
    model.reversed = true;
    model.arrange();
    assert_eq!(names(&model), ["busy", "half", "idle"]);
    (model.sort, model.reversed) = (Sort::Name, false);
    model.arrange();
    assert_eq!(names(&model), ["busy", "half", "idle"]);
    // Alike in this: by name.
    model.sort = Sort::Oom;
    model.arrange();
    assert_eq!(names(&model), ["busy", "half", "idle"]);
}

#[test]
fn stopped_ones_are_shown_where_asked_for() {
    let mut model = model();
    model.all = true;
    model.sort = Sort::State;
    model.arrange();
    assert_eq!(names(&model), ["busy", "half", "idle", "over"]);
    model.filter = "OVE".into();
    model.arrange();
    assert_eq!(names(&model), ["over"]);
}

#[test]
fn the_chosen_one_stays_chosen_while_it_is_there() {
    let mut model = model();
    assert_eq!(model.chosen().unwrap().name, "busy");
    model.step(1);
    assert_eq!(model.chosen().unwrap().name, "half");
    model.sort = Sort::Mem;
    model.arrange();
    assert_eq!(model.chosen().unwrap().name, "half");
    model.take_rows(vec![row("idle", 0.0, 3), row("busy", 9.0, 1)]);
    assert_eq!(model.chosen().unwrap().name, "busy", "the one in its place");
    model.step(-100);
    model.step(100);
    assert_eq!(model.place(), Some(1));
    model.take_rows(vec![]);
    assert!(model.chosen().is_none());
    model.take_rows(vec![row("new", 0.0, 3)]);
    assert_eq!(model.chosen().unwrap().name, "new");
}

#[test]
fn a_tree_has_each_below_the_one_it_is_in_and_nobody_twice() {
    let mut model = Model::new(Sort::Name, String::new());
    model.tree = true;
    let within = |name: &str, parent: &str| {
        let mut row = row(name, 0.0, 0);
        row.parent = Some(parent.into());
        row
    };
    model.take_rows(vec![
        row("z", 0.0, 0),
        within("a", "z"),
        within("b", "a"),
        within("c", "not shown"),
        within("x", "y"),
        within("y", "x"),
    ]);
    let shown: Vec<_> = model
        .shown()
        .map(|(row, depth)| (&*row.name, depth))
        .collect();
    assert_eq!(
        shown,
        [("c", 0), ("z", 0), ("a", 1), ("b", 2), ("y", 0), ("x", 0)]
    );
}

#[test]
fn the_past_is_bounded_and_goes_with_its_container() {
    let mut model = Model::new(Sort::Name, String::new());
    for _ in 0..PAST + 5 {
        model.take_rows(vec![row("a", 12.3, 7)]);
    }
    let id = model.rows()[0].id.clone();
    let past = model.past(&id).unwrap();
    assert_eq!((past.cpu.len(), past.cpu[0]), (PAST, 123));
    model.take_rows(vec![]);
    assert!(model.past(&id).is_none());
}

#[test]
fn text_is_of_whom_it_was_asked_for_and_bounded() {
    let mut model = model();
    model.open_text(TextKind::Logs);
    let (id, _) = model.subject().unwrap();
    let line = |text: &str| Line {
        text: text.into(),
        weight: Weight::Usual,
    };
    model.take_lines("other", TextKind::Logs, vec![line("no")]);
    model.take_lines(&id, TextKind::Events, vec![line("no")]);
    model.take_lines(&id, TextKind::Logs, vec![line("x"); LINES + 3]);
    model.take_lines(&id, TextKind::Logs, vec![line("whole")]);
    let Screen::Text(text) = &model.screen else {
        panic!("{:?}", model.screen);
    };
    assert_eq!(text.lines, [line("whole")]);
}

#[test]
fn every_field_has_its_word_on_the_command_line() {
    for sort in Sort::ALL {
        assert_eq!(Sort::from_str(sort.word(), false), Ok(sort));
    }
}
