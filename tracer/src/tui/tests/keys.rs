//! Every key listed in the help does what the help says.

use super::*;
use crate::output::theme::Theme;
use crate::tui::keys::BINDINGS;
use crate::tui::query::{Col, View, VolumeChoice, Window};
use crate::tui::rows::RowKey;
use crate::tui::rows::item::Item;
use crate::tui::state::{Effect, Overlay};
use tracer_model::fixtures;
use tracer_model::units::Units;

/// An app in which every key has something to do.
fn ready() -> App {
    let mut app =
        App::new(UiState { interval_s: Some(1.0), ..UiState::default() }, Limits::default());
    for seconds in [90.0, 30.0, 5.0, 0.0] {
        let mut snapshot = fixtures::busy();
        snapshot.taken_at =
            tracer_model::history::merge::seconds_before(snapshot.taken_at, seconds);
        app.add_snapshot(Arc::new(snapshot));
    }
    app
}

/// Situations such that every key has an effect in at least one: at the start, and in the middle of
/// the tables and of the history.
const SITUATIONS: [&[Key]; 2] =
    [&[Key::Char('2')], &[Key::Down, Key::Down, Key::Char('a'), Key::Left, Key::Left, Key::Left]];

#[test]
fn every_key_in_the_help_changes_something() {
    for binding in BINDINGS {
        for &(key, command) in binding.keys {
            let works = SITUATIONS.iter().any(|situation| {
                let mut app = ready();
                for &key in *situation {
                    app.press(key);
                }
                let before = screen(&app);
                let outside = app.press(key);
                screen(&app) != before || !outside.is_empty()
            });
            assert!(works, "{} ({key:?}, {command:?}) does nothing", binding.label);
        }
    }
}

#[test]
fn no_key_is_bound_twice() {
    let keys: Vec<Key> =
        BINDINGS.iter().flat_map(|binding| binding.keys).map(|(key, _)| *key).collect();
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "{key:?}");
    }
}

#[test]
fn the_help_shows_every_binding() {
    let mut app = app();
    app.resize(Size::new(100, 60));
    app.press(Key::Char('?'));
    let screen = text(&screen(&app));
    for binding in BINDINGS {
        assert!(screen.contains(binding.description), "{}\n{screen}", binding.description);
    }
}

#[test]
fn moving() {
    let mut app = app();
    let cursor = |app: &App| app.state().cursor;
    assert_eq!(app.state().rows.rows.len(), 3);
    press(&mut app, "jj");
    assert_eq!(cursor(&app), 2);
    press(&mut app, "j");
    assert_eq!(cursor(&app), 2, "the last row is the last");
    press(&mut app, "k");
    assert_eq!(cursor(&app), 1);
    app.press(Key::Home);
    assert_eq!(cursor(&app), 0);
    app.press(Key::Up);
    assert_eq!(cursor(&app), 0);
    app.press(Key::End);
    assert_eq!(cursor(&app), 2);
    app.press(Key::PageUp);
    assert_eq!(cursor(&app), 0);
    app.press(Key::PageDown);
    assert_eq!(cursor(&app), 2);
}

#[test]
fn the_selection_stays_on_the_same_row() {
    let mut app = app();
    app.press(Key::Down);
    let selected = app.state().selected.clone();
    assert!(matches!(&selected, Some(RowKey::Writer { pid: 880, .. })), "{selected:?}");
    let mut later = fixtures::busy();
    later.taken_at = jiff::Timestamp::from_second(fixtures::NOW + 5).unwrap();
    later.writers[1].growth_bytes_per_s = 1e12;
    app.add_snapshot(Arc::new(later.clone()));
    assert_eq!(app.state().cursor, 0, "its row has moved up");
    assert_eq!(app.state().selected, selected);
    // It is idle: no other row takes its place under the cursor.
    let back = later.clone();
    later.taken_at = jiff::Timestamp::from_second(fixtures::NOW + 10).unwrap();
    later.writers.remove(1);
    app.add_snapshot(Arc::new(later));
    assert!(app.state().item().is_none() && app.state().target.is_none());
    assert!(!text(&screen(&app)).contains(">   2114"));
    press(&mut app, "x");
    assert_eq!(app.state().overlay, Overlay::None, "x has no target");
    // It writes again.
    app.add_snapshot(Arc::new(Snapshot {
        taken_at: back.taken_at + jiff::SignedDuration::from_secs(10),
        ..back
    }));
    assert_eq!(app.state().selected, selected);
    assert!(app.state().target.is_some());
}

#[test]
fn open_details_stay_on_the_selected_process() {
    let mut app = app();
    app.press(Key::Enter);
    let mut later = fixtures::busy();
    later.taken_at = jiff::Timestamp::from_second(fixtures::NOW + 5).unwrap();
    later.writers.remove(0);
    app.add_snapshot(Arc::new(later));
    let shown = text(&screen(&app));
    assert!(shown.contains("process 2114") && shown.contains("not in this window"), "{shown}");
    assert!(app.state().target.is_none(), "x must not target another process");
    // It writes again.
    let mut again = fixtures::busy();
    again.taken_at = jiff::Timestamp::from_second(fixtures::NOW + 10).unwrap();
    app.add_snapshot(Arc::new(again));
    assert!(text(&screen(&app)).contains("minio (2114)"));
}

#[test]
fn without_a_selection_the_first_row_is_selected() {
    let mut app = app();
    let mut later = fixtures::busy();
    later.taken_at = jiff::Timestamp::from_second(fixtures::NOW + 5).unwrap();
    later.writers[1].growth_bytes_per_s = 1e12;
    app.add_snapshot(Arc::new(later));
    assert!(matches!(&app.state().selected, Some(RowKey::Writer { pid: 880, .. })));
}

#[test]
fn the_most_urgent_volume_is_followed_until_a_row_is_selected() {
    let mut app = app();
    assert_eq!(app.state().focus, "/srv/store");
    let mut later = fixtures::busy();
    later.volumes.swap(0, 1);
    later.taken_at = jiff::Timestamp::from_second(fixtures::NOW + 5).unwrap();
    app.add_snapshot(Arc::new(later.clone()));
    assert_eq!(app.state().focus, "/");
    press(&mut app, "j");
    later.volumes.swap(0, 1);
    later.taken_at = jiff::Timestamp::from_second(fixtures::NOW + 10).unwrap();
    app.add_snapshot(Arc::new(later));
    assert_eq!(app.state().focus, "/", "the table does not change under the cursor");
    press(&mut app, "d");
    assert_eq!(app.state().focus, "/srv/store");
}

#[test]
fn an_idle_volume_gives_way_to_one_that_fills() {
    let mut app = App::new(UiState::default(), Limits::default());
    let quiet = |second| {
        let mut quiet = fixtures::busy();
        quiet.taken_at = jiff::Timestamp::from_second(fixtures::NOW + second).unwrap();
        quiet.volumes.swap(0, 1);
        for volume in &mut quiet.volumes {
            (volume.full, volume.eta_s) = (false, None);
        }
        quiet
    };
    let mut empty = quiet(0);
    empty.writers.clear();
    app.add_snapshot(Arc::new(empty));
    assert_eq!(app.state().focus, "/");
    press(&mut app, "jjk");
    assert!(!app.state().user_selected, "there is nothing to select");
    // The user selects a row of the quiet volume, which then becomes idle.
    app.add_snapshot(Arc::new(quiet(1)));
    press(&mut app, "j");
    assert!(app.state().user_selected);
    let fills = |second, rests: bool| {
        let mut fills = fixtures::busy();
        fills.taken_at = jiff::Timestamp::from_second(fixtures::NOW + second).unwrap();
        fills.volumes[1].eta_s = None;
        fills.writers.retain(|writer| !rests || writer.volume != "/");
        Arc::new(fills)
    };
    app.add_snapshot(fills(2, false));
    assert_eq!(app.state().focus, "/", "the row is still there");
    press(&mut app, "x");
    app.add_snapshot(fills(3, true));
    assert_eq!(app.state().focus, "/", "a menu is open");
    app.press(Key::Esc);
    app.add_snapshot(fills(4, true));
    assert_eq!(app.state().focus, "/srv/store");
    assert!(!app.state().selection_missing && !app.state().user_selected);
}

#[test]
fn volumes() {
    let mut app = app();
    press(&mut app, "]");
    assert_eq!(app.state().focus, "/");
    assert_eq!(app.state().rows.rows.len(), 1);
    press(&mut app, "]");
    assert_eq!(app.state().focus, "/srv/store");
    press(&mut app, "[");
    assert_eq!(app.state().focus, "/");
    press(&mut app, "a");
    assert_eq!(app.state().volume, VolumeChoice::All);
    assert_eq!(app.state().rows.rows.len(), 4);
    press(&mut app, "a");
    assert_eq!(app.state().rows.rows.len(), 1);
}

#[test]
fn views() {
    let mut app = app();
    for (key, view) in "123456".chars().zip(View::ALL) {
        app.press(Key::Char(key));
        assert_eq!(app.state().view, view);
    }
    app.press(Key::Tab);
    assert_eq!(app.state().view, View::Writers);
    app.press(Key::BackTab);
    assert_eq!(app.state().view, View::Victims);
}

#[test]
fn folding() {
    let mut app = app();
    press(&mut app, "2");
    assert_eq!(app.state().rows.rows.len(), 3);
    press(&mut app, "e");
    assert_eq!(app.state().rows.rows.len(), 4);
    press(&mut app, "e");
    assert_eq!(app.state().rows.rows.len(), 3);
    press(&mut app, "E");
    assert_eq!(app.state().rows.rows.len(), 6);
    press(&mut app, "3");
    let dirs = |app: &App| -> Vec<String> {
        let snapshot = fixtures::busy();
        let rows = &app.state().rows.rows;
        rows.iter()
            .filter_map(|row| match row.item {
                Item::Dir(i) => Some(format!("{} {}", row.depth, snapshot.dirs[i].path)),
                _ => None,
            })
            .collect()
    };
    assert_eq!(
        dirs(&app),
        [
            "0 /srv/store",
            "1 /srv/store/.minio.sys",
            "2 /srv/store/.minio.sys/multipart",
            "1 /srv/store/pg",
            "1 /srv/store/backup",
        ]
    );
    press(&mut app, "je");
    assert_eq!(dirs(&app).len(), 4);
    press(&mut app, "E");
    assert_eq!(dirs(&app), ["0 /srv/store"]);
}

#[test]
fn sorting() {
    let mut app = app();
    let first = |app: &App| app.state().rows.rows[0].item;
    assert_eq!(app.state().query().sort.column, Col::Growth);
    assert_eq!(first(&app), Item::Writer(0));
    press(&mut app, "r");
    assert_eq!(first(&app), Item::Writer(2), "the smallest growth first");
    press(&mut app, "<");
    assert_eq!(app.state().query().sort.column, Col::WrittenRate);
    assert!(app.state().query().sort.descending);
    press(&mut app, "<<<");
    assert_eq!(app.state().query().sort.column, Col::Command, "it wraps around");
    press(&mut app, "s");
    assert_eq!(app.state().query().sort.column, Col::Pid);
    assert_eq!(first(&app), Item::Writer(2));
}

#[test]
fn filtering() {
    let mut app = app();
    press(&mut app, "/MINIO");
    assert!(app.state().typing);
    assert_eq!(app.state().rows.rows.len(), 1, "case is ignored");
    app.press(Key::Enter);
    assert!(!app.state().typing);
    assert!(text(&screen(&app)).contains("/MINIO/"));
    // Digits are keys again.
    press(&mut app, "4");
    assert_eq!(app.state().view, View::Files);
    assert_eq!(app.state().rows.rows.len(), 2);
    app.press(Key::Esc);
    assert_eq!(app.state().rows.rows.len(), 3);
    press(&mut app, "/.");
    assert_eq!(app.state().rows.rows.len(), 2, "a dot is a dot, as in part.0001");
    app.press(Key::Ctrl('r'));
    assert_eq!(app.state().rows.rows.len(), 3, "now a dot is any character");
    app.press(Key::Backspace);
    press(&mut app, r"\d{4}$");
    assert_eq!(app.state().rows.rows.len(), 2);
    app.press(Key::Ctrl('u'));
    assert_eq!(app.state().filter.text(), "");
    app.press(Key::Backspace);
    assert!(!app.state().typing);
}

#[test]
fn typing_q_in_a_filter_does_not_quit() {
    let mut app = app();
    press(&mut app, "/");
    assert!(app.press(Key::Char('q')).is_empty());
    assert_eq!(app.press(Key::Ctrl('c')), [Effect::Quit]);
}

#[test]
fn units_theme_window_interval() {
    let mut app = ready();
    press(&mut app, "u");
    assert_eq!(app.state().units, Units::Si);
    press(&mut app, "cc");
    assert_eq!(app.state().theme, Theme::Safe);
    press(&mut app, "w");
    assert_eq!(app.state().window, Window::TenSeconds);
    assert_eq!(app.press(Key::Char('+')), [Effect::Interval(2.0)]);
    assert_eq!(app.press(Key::Char('-')), [Effect::Interval(1.0)]);
    assert_eq!(app.press(Key::Char('-')), [Effect::Interval(0.5)]);
    assert_eq!(app.press(Key::Char('-')), [Effect::Interval(0.5)], "that is the shortest");
}

#[test]
fn a_fixed_interval_cannot_be_changed() {
    let mut app = app();
    assert!(app.press(Key::Char('+')).is_empty());
    assert!(text(&screen(&app)).contains("cannot be changed"));
}

#[test]
fn quit_suspend_and_redraw() {
    let mut app = app();
    assert_eq!(app.press(Key::Char('q')), [Effect::Quit]);
    assert_eq!(app.press(Key::Ctrl('z')), [Effect::Suspend]);
    assert_eq!(app.press(Key::Ctrl('l')), [Effect::Redraw]);
}

#[test]
fn two_keys_to_the_action_and_a_third_to_confirm() {
    let mut app = app();
    press(&mut app, "x");
    assert!(matches!(app.state().overlay, Overlay::Menu(..)));
    app.press(Key::Enter);
    let asked = text(&screen(&app));
    for fact in ["2114 (minio)", "2026-11-21 01:36:53 UTC", "minio server", "minio.service"] {
        assert!(asked.contains(fact), "{fact}\n{asked}");
    }
    // Actions are not available here: the command is shown, and y does nothing.
    assert!(asked.contains("filltop stop 2114 --how freeze"), "{asked}");
    assert!(app.press(Key::Char('y')).is_empty());
    app.press(Key::Esc);
    assert_eq!(app.state().overlay, Overlay::None);
}

#[test]
fn a_confirmed_action_is_returned_as_an_effect() {
    let mut app = App::new(UiState { can_act: true, ..UiState::default() }, Limits::default());
    app.add_snapshot(Arc::new(fixtures::busy()));
    press(&mut app, "xjjj");
    app.press(Key::Enter);
    assert!(app.press(Key::Enter).is_empty(), "Enter is not yes");
    let effects = app.press(Key::Char('y'));
    let [Effect::Act(request)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(request.target.pid, Some(2114));
    assert_eq!(request.operation.name(), "term");
}

#[test]
fn a_refused_action_cannot_be_chosen() {
    let mut app = app();
    press(&mut app, "]x");
    app.press(Key::Enter);
    assert!(matches!(app.state().overlay, Overlay::Menu(..)));
    assert!(text(&screen(&app)).contains("PID 1 is never touched"));
}

#[test]
fn the_mouse() {
    let mut app = app();
    // Header, two volumes and their heading, two lines of the verdict, tabs, heading: the second row
    // is on line 9.
    app.press(Key::Click(10, 9));
    assert_eq!(app.state().cursor, 1);
    app.press(Key::Click(10, 3));
    assert_eq!(app.state().focus, "/");
    app.press(Key::Click(15, 6));
    assert_eq!(app.state().view, View::Groups);
    app.press(Key::Click(79, 23));
    app.press(Key::Click(500, 500));
}
