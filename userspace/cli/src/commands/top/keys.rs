//! What each key does: ctop's where it has one. A key changes the model, or asks for more.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Model, Overlay, Screen, Sort, TextKind};

/// Longer filters find nothing anyway.
const LONGEST: usize = 64;
const PAGE: isize = 10;

/// What somebody else has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    /// Ctrl-Z.
    Suspend,
    /// The screen wants other things from the agent.
    Look,
    Kill {
        id: String,
        name: String,
        signal: i32,
    },
}

pub(super) fn press(model: &mut Model, key: KeyEvent) -> Option<Effect> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Effect::Quit),
            KeyCode::Char('z') => Some(Effect::Suspend),
            _ => None,
        };
    }
    model.message = None;
    match &mut model.overlay {
        Overlay::None => {}
        Overlay::Help => {
            model.overlay = Overlay::None;
            return None;
        }
        Overlay::Sort(_) => {
            sort(model, key.code);
            return None;
        }
        Overlay::Filter(_) => {
            filter(model, key.code);
            return None;
        }
        Overlay::Kill { .. } => return confirm(model, key.code),
    }
    match model.screen {
        Screen::Table => table(model, key.code),
        Screen::Single(_) | Screen::Text(_) => below(model, key.code),
    }
}

/// Where the table is.
fn table(model: &mut Model, key: KeyCode) -> Option<Effect> {
    match key {
        KeyCode::Char('q') | KeyCode::Esc => return Some(Effect::Quit),
        KeyCode::Up | KeyCode::Char('k') => model.step(-1),
        KeyCode::Down | KeyCode::Char('j') => model.step(1),
        KeyCode::PageUp => model.step(-PAGE),
        KeyCode::PageDown => model.step(PAGE),
        KeyCode::Home | KeyCode::Char('g') => model.step(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => model.step(isize::MAX),
        KeyCode::Char('s') => {
            let place = Sort::ALL.iter().position(|one| *one == model.sort);
            model.overlay = Overlay::Sort(place.unwrap_or(0));
        }
        KeyCode::Char('f' | '/') => model.overlay = Overlay::Filter(model.filter.clone()),
        KeyCode::Char('r') => {
            model.reversed = !model.reversed;
            model.arrange();
        }
        KeyCode::Char('t') => {
            model.tree = !model.tree;
            model.arrange();
        }
        KeyCode::Char('a') => {
            model.all = !model.all;
            model.arrange();
            return Some(Effect::Look);
        }
        key => return any(model, key),
    }
    None
}

/// In the view of one container, its log or its events.
fn below(model: &mut Model, key: KeyCode) -> Option<Effect> {
    if let Screen::Text(text) = &mut model.screen {
        let page = PAGE.unsigned_abs();
        match key {
            KeyCode::Up | KeyCode::Char('k') => text.back += 1,
            KeyCode::Down | KeyCode::Char('j') => text.back = text.back.saturating_sub(1),
            KeyCode::PageUp => text.back += page,
            KeyCode::PageDown => text.back = text.back.saturating_sub(page),
            KeyCode::Home | KeyCode::Char('g') => text.back = usize::MAX,
            KeyCode::End | KeyCode::Char('G') => text.back = 0,
            _ => {}
        }
        text.back = text.back.min(text.lines.len().saturating_sub(1));
    }
    match key {
        KeyCode::Char('q') | KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => {
            model.screen = Screen::Table;
            Some(Effect::Look)
        }
        key => any(model, key),
    }
}

/// What works everywhere.
fn any(model: &mut Model, key: KeyCode) -> Option<Effect> {
    match key {
        KeyCode::Enter | KeyCode::Right | KeyCode::Char('o') => model.open_single(),
        KeyCode::Char('l') => model.open_text(TextKind::Logs),
        KeyCode::Char('e') => model.open_text(TextKind::Events),
        KeyCode::Char('K') => {
            if let Some((id, name)) = model.subject() {
                model.overlay = Overlay::Kill { id, name };
            }
            return None;
        }
        KeyCode::Char('h' | '?') => {
            model.overlay = Overlay::Help;
            return None;
        }
        _ => return None,
    }
    Some(Effect::Look)
}

fn sort(model: &mut Model, key: KeyCode) {
    let Overlay::Sort(place) = &mut model.overlay else {
        return;
    };
    let count = Sort::ALL.len();
    match key {
        KeyCode::Up | KeyCode::Char('k') => *place = (*place + count - 1) % count,
        KeyCode::Down | KeyCode::Char('j') => *place = (*place + 1) % count,
        KeyCode::Enter => {
            model.sort = Sort::ALL[*place % count];
            model.overlay = Overlay::None;
            model.arrange();
        }
        KeyCode::Esc | KeyCode::Char('q' | 's') => model.overlay = Overlay::None,
        _ => {}
    }
}

/// Narrows as it is typed.
fn filter(model: &mut Model, key: KeyCode) {
    match key {
        KeyCode::Enter => model.overlay = Overlay::None,
        KeyCode::Esc => {
            if let Overlay::Filter(before) = std::mem::replace(&mut model.overlay, Overlay::None) {
                model.filter = before;
            }
        }
        KeyCode::Backspace => drop(model.filter.pop()),
        KeyCode::Char(letter) if !letter.is_control() && model.filter.len() < LONGEST => {
            model.filter.push(letter);
        }
        _ => return,
    }
    model.arrange();
}

/// Anything but the two answers leaves it.
fn confirm(model: &mut Model, key: KeyCode) -> Option<Effect> {
    let Overlay::Kill { id, name } = std::mem::replace(&mut model.overlay, Overlay::None) else {
        return None;
    };
    let signal = match key {
        KeyCode::Char('y' | 'Y') => nix::libc::SIGKILL,
        KeyCode::Char('t' | 'T') => nix::libc::SIGTERM,
        _ => return None,
    };
    Some(Effect::Kill { id, name, signal })
}

#[cfg(test)]
mod tests {
    use super::{super::model::tests::model, *};

    fn keys(model: &mut Model, keys: &str) -> Vec<Effect> {
        let code = |letter| match letter {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            letter => KeyCode::Char(letter),
        };
        let press = |letter| press(model, KeyEvent::new(code(letter), KeyModifiers::NONE));
        keys.chars().filter_map(press).collect()
    }

    fn names(model: &Model) -> Vec<&str> {
        model.shown().map(|(row, _)| &*row.name).collect()
    }

    #[test]
    fn quits() {
        let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        for key in ["q", "\u{1b}"] {
            assert_eq!(keys(&mut model(), key), [Effect::Quit]);
        }
        assert_eq!(press(&mut model(), control('c')), Some(Effect::Quit));
        // From below it is one step up.
        let mut below = model();
        assert_eq!(keys(&mut below, "lq"), [Effect::Look, Effect::Look]);
        assert_eq!(keys(&mut below, "q"), [Effect::Quit]);
    }

    #[test]
    fn a_filter_narrows_as_it_is_typed_and_esc_takes_it_back() {
        let mut model = model();
        assert!(keys(&mut model, "fbuq").is_empty());
        assert!(names(&model).is_empty(), "q is a letter here");
        keys(&mut model, "\u{8}");
        assert_eq!(names(&model), ["busy"]);
        keys(&mut model, "\n");
        assert_eq!((&*model.filter, &model.overlay), ("bu", &Overlay::None));
        keys(&mut model, "fx\u{1b}");
        assert_eq!((&*model.filter, names(&model)), ("bu", vec!["busy"]));
    }

    #[test]
    fn the_menu_sorts() {
        let mut model = model();
        assert!(keys(&mut model, "sj\n").is_empty());
        assert_eq!(model.sort, Sort::Mem);
        assert_eq!(names(&model), ["idle", "half", "busy"]);
        keys(&mut model, "r");
        assert_eq!(names(&model), ["busy", "half", "idle"]);
        keys(&mut model, "sk\u{1b}");
        assert_eq!(model.sort, Sort::Mem);
    }

    #[test]
    fn killing_takes_a_yes() {
        for (answer, signal) in [("y", Some(9)), ("t", Some(15)), ("n", None), ("\n", None)] {
            let mut model = model();
            assert!(keys(&mut model, "jK").is_empty());
            let told = keys(&mut model, answer);
            let of = |effect: &Effect| match effect {
                Effect::Kill { name, signal, .. } if name == "half" => Some(*signal),
                _ => None,
            };
            assert_eq!(told.first().and_then(of), signal, "{answer:?}: {told:?}");
            assert_eq!(model.overlay, Overlay::None);
        }
    }

    #[test]
    fn help_goes_with_any_key() {
        let mut model = model();
        assert!(keys(&mut model, "hq").is_empty());
        assert_eq!(model.overlay, Overlay::None);
    }

    #[test]
    fn text_scrolls_no_further_than_its_ends() {
        let mut model = model();
        keys(&mut model, "l");
        let (id, _) = model.subject().unwrap();
        let line = super::super::model::Line {
            text: "x".into(),
            weight: super::super::model::Weight::Usual,
        };
        model.take_lines(&id, TextKind::Logs, vec![line; 5]);
        keys(&mut model, "kkkkkkkkk");
        let back = |model: &Model| match &model.screen {
            Screen::Text(text) => text.back,
            other => panic!("{other:?}"),
        };
        assert_eq!(back(&model), 4);
        keys(&mut model, "G");
        assert_eq!(back(&model), 0);
    }
}
