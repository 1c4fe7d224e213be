//! Golden frames: text and styles of every view with colours, without, and in ASCII.

use tracer_model::sanitize::Charset;

use super::*;
use crate::output::theme::Theme;
use crate::tui::query::View;
use tracer_model::fixtures;

fn styles() -> [(&'static str, Theme, Charset); 3] {
    [
        ("colour", Theme::Dark, Charset::Unicode),
        ("mono", Theme::Mono, Charset::Unicode),
        ("ascii", Theme::Dark, Charset::Ascii),
    ]
}

/// An app with enough history for sparklines.
fn with_past(state: UiState) -> App {
    let mut app = App::new(state, Limits::default());
    for i in 0..6 {
        let mut snapshot = fixtures::busy();
        let before = 5.0 * f64::from(5 - i);
        snapshot.taken_at = tracer_model::history::merge::seconds_before(snapshot.taken_at, before);
        for volume in &mut snapshot.volumes {
            volume.growth_bytes_per_s *= f64::from(i + 1) / 6.0;
        }
        for writer in &mut snapshot.writers {
            writer.growth_bytes_per_s *= f64::from(i + 1) / 6.0;
        }
        app.add_snapshot(Arc::new(snapshot));
    }
    app
}

fn state(width: u16, height: u16, theme: Theme, charset: Charset) -> UiState {
    UiState { size: Size::new(width, height), theme, charset, ..UiState::default() }
}

#[test]
fn every_view_in_every_style() {
    for (look, theme, charset) in styles() {
        for view in View::ALL {
            let mut app = with_past(state(80, 24, theme, charset));
            press(&mut app, &(view.index() + 1).to_string());
            let name = format!("{}_{look}", view.name());
            let buffer = screen(&app);
            if charset == Charset::Ascii {
                assert!(text(&buffer).is_ascii(), "{}", text(&buffer));
            }
            insta::assert_snapshot!(name, golden(&buffer));
        }
    }
}

#[test]
fn every_page_in_every_style() {
    let pages: [(&str, &[Key]); 9] = [
        ("help", &[Key::Char('?')]),
        ("health", &[Key::Char('i')]),
        ("detail_writer", &[Key::Enter]),
        ("detail_dir", &[Key::Char('3'), Key::Enter]),
        ("detail_held", &[Key::Char('5'), Key::Enter]),
        ("menu", &[Key::Char('x')]),
        ("confirm", &[Key::Char('x'), Key::Down, Key::Down, Key::Down, Key::Enter]),
        ("filter", &[Key::Char('/'), Key::Char('g'), Key::Char('z')]),
        ("bad_regex", &[Key::Char('/'), Key::Ctrl('r'), Key::Char('(')]),
    ];
    for (look, theme, charset) in styles() {
        for (page, keys) in pages {
            let mut app = with_past(state(80, 24, theme, charset));
            for key in keys {
                app.press(*key);
            }
            let buffer = screen(&app);
            if charset == Charset::Ascii {
                assert!(text(&buffer).is_ascii(), "{}", text(&buffer));
            }
            insta::assert_snapshot!(format!("{page}_{look}"), golden(&buffer));
        }
    }
}

#[test]
fn sizes() {
    for (width, height) in [(20, 5), (40, 12), (120, 40), (300, 100)] {
        let app = with_past(state(width, height, Theme::Dark, Charset::Unicode));
        insta::assert_snapshot!(format!("size_{width}x{height}"), golden(&screen(&app)));
    }
}

#[test]
fn themes() {
    for (name, theme) in [("light", Theme::Light), ("safe", Theme::Safe)] {
        let app = with_past(state(80, 24, theme, Charset::Unicode));
        insta::assert_snapshot!(format!("theme_{name}"), golden(&screen(&app)));
    }
}

#[test]
fn full_and_idle() {
    let mut snapshot = fixtures::busy();
    snapshot.volumes[0].full = true;
    snapshot.volumes[0].eta_s = Some(0.0);
    insta::assert_snapshot!("full", golden(&paint(&snapshot, &reconciled(&snapshot, 80, 24))));
    let idle = fixtures::idle();
    insta::assert_snapshot!("idle", golden(&paint(&idle, &reconciled(&idle, 80, 24))));
    insta::assert_snapshot!(
        "waiting",
        text(&screen(&App::new(UiState::default(), Limits::default())))
    );
}

/// Time to full with its interval, for several lengths, on every terminal with a table.
#[test]
fn the_interval_is_never_cut() {
    for (lo, eta, hi) in [
        (180.0, 240.0, Some(360.0)),
        (3300.0, 4800.0, Some(6600.0)),
        (100_000.0, 200_000.0, None),
        (40_000.0, 90_000.0, Some(900_000.0)),
        (85.0, 95.0, Some(110.0)),
    ] {
        for limit in ["avail", "inodes"] {
            let mut snapshot = fixtures::busy();
            let volume = &mut snapshot.volumes[0];
            (volume.eta_s, volume.eta_lo_s, volume.eta_hi_s) = (Some(eta), Some(lo), hi);
            volume.limit = limit.to_owned();
            let end = if limit == "avail" { ")" } else { ") inodes" };
            for (width, height) in [(80, 24), (100, 30), (120, 40), (300, 100)] {
                let shown = text(&paint(&snapshot, &reconciled(&snapshot, width, height)));
                let line = shown.lines().nth(2).unwrap();
                assert!(line.ends_with(end), "{width}: {shown}");
            }
            let narrow = text(&paint(&snapshot, &reconciled(&snapshot, 40, 12)));
            let line = narrow.lines().nth(2).unwrap();
            assert!(line.ends_with(')') || line.ends_with(end), "{narrow}");
        }
    }
}

#[test]
fn volumes_that_do_not_fit_are_counted() {
    let mut snapshot = fixtures::busy();
    for n in 0..20 {
        snapshot.volumes.push(fixtures::volume(&format!("/mnt/disk{n}")));
    }
    let mut app = App::new(UiState::default(), Limits::default());
    app.add_snapshot(Arc::new(snapshot));
    assert!(text(&screen(&app)).contains("6 OF 22"));
    // The selected volume is always among those shown.
    press(&mut app, "[");
    let shown = text(&screen(&app));
    assert!(shown.contains(">/mnt/disk19"), "{shown}");
    press(&mut app, "[");
    assert!(text(&screen(&app)).contains(">/mnt/disk18"));
}
