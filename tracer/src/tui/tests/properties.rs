//! Properties that hold for every size, every name and every order of keys.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use proptest::prelude::*;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{TerminalOptions, Viewport};
use tracer_model::sanitize::{Charset, lossless};
use tracer_model::snapshot::{PathRow, Writer};

use super::*;
use crate::output::theme::Theme;
use crate::tui::keys::BINDINGS;
use crate::tui::term::Ansi;
use tracer_model::fixtures;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<Vec<u8>>().prop_map(|raw| lossless(&raw)),
        any::<String>(),
        Just("\x1b[2J\x07\u{9b}1m".to_owned()),
        Just("\u{202e}\u{2066}\u{200b}".to_owned()),
        Just("日本語".repeat(30)),
        Just("a\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}".to_owned()),
        Just("👩\u{200d}👩\u{200d}👧🇩🇪".to_owned()),
        Just(String::new()),
    ]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), 0.0..1e12]
}

prop_compose! {
    fn snapshot()(
        names in prop::collection::vec(name(), 1..12),
        numbers in prop::collection::vec(number(), 12),
        bytes in prop::collection::vec(any::<u64>(), 12),
    ) -> Snapshot {
        let mut snapshot = fixtures::busy();
        let name = |i: usize| names[i % names.len()].clone();
        snapshot.host = name(0);
        snapshot.backend.own_cpu = Some(numbers[0]);
        snapshot.interval_s = numbers[1];
        let volume = &mut snapshot.volumes[0];
        volume.mount_point = name(1);
        volume.limit = name(2);
        (volume.total_bytes, volume.used_bytes, volume.reserved_bytes) = (bytes[0], bytes[1], bytes[2]);
        (volume.eta_s, volume.eta_lo_s) = (Some(numbers[2]), Some(numbers[3]));
        volume.growth_bytes_per_s = numbers[4];
        volume.explained = Some(numbers[5]);
        for (i, text) in names.iter().enumerate() {
            snapshot.writers.push(Writer {
                comm: text.clone(),
                cmdline: Some(text.clone()),
                growth_bytes_per_s: numbers[i % 12],
                share: numbers[(i + 1) % 12],
                ..fixtures::writer(i as u32, "x", &name(1), bytes[i % 12])
            });
            snapshot.paths.push(PathRow {
                path: text.clone(),
                ..fixtures::path("x", &name(1), i as u64, bytes[i % 12], i as u32)
            });
            snapshot.dirs.push(fixtures::dir(text, &name(1), numbers[i % 12], numbers[(i + 5) % 12]));
        }
        snapshot
    }
}

fn keys() -> impl Strategy<Value = Vec<Key>> {
    let bound: Vec<Key> =
        BINDINGS.iter().flat_map(|binding| binding.keys).map(|(key, _)| *key).collect();
    let key = prop_oneof![
        8 => prop::sample::select(bound),
        1 => any::<char>().prop_map(Key::Char),
        1 => (0u16..310, 0u16..110).prop_map(|(x, y)| Key::Click(x, y)),
        1 => Just(Key::Backspace),
        1 => Just(Key::Ctrl('r')),
    ];
    prop::collection::vec(key, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_nothing_hostile_is_painted(
        snapshots in prop::collection::vec(snapshot(), 1..3),
        keys in keys(),
        width in 1u16..=300,
        height in 1u16..=100,
        ascii in any::<bool>(),
    ) {
        let charset = if ascii { Charset::Ascii } else { Charset::Unicode };
        let state = UiState {
            size: Size::new(width, height),
            charset,
            interval_s: Some(1.0),
            can_act: true,
            ..UiState::default()
        };
        let mut app = App::new(state, Limits { seconds: 3600.0, bytes: 200_000 });
        for snapshot in snapshots {
            app.add_snapshot(Arc::new(snapshot));
        }
        for key in keys {
            app.press(key);
            let state = app.state();
            prop_assert!(state.cursor < state.rows.rows.len().max(1));
            prop_assert!(state.scroll <= state.cursor);
        }
        let buffer = screen(&app);
        for cell in buffer.content() {
            for c in cell.symbol().chars() {
                let hidden = c.is_control()
                    || ('\u{200b}'..='\u{200f}').contains(&c)
                    || ('\u{202a}'..='\u{202e}').contains(&c)
                    || ('\u{2066}'..='\u{2069}').contains(&c);
                prop_assert!(!hidden, "{:?}", cell.symbol());
                prop_assert!(!ascii || c.is_ascii(), "{:?}", cell.symbol());
            }
        }
    }
}

#[test]
fn every_size_is_drawn() {
    let snapshot = fixtures::busy();
    for width in 1..=300 {
        // Every height at a few widths, and every width at a few heights.
        let step = if width % 40 == 1 { 1 } else { 9 };
        for height in (1..=100).step_by(step) {
            let state = reconciled(&snapshot, width, height);
            paint(&snapshot, &state);
        }
    }
}

/// A state that was reconciled with another Snapshot must not cause a panic.
#[test]
fn a_stale_state_is_drawn() {
    let busy = fixtures::busy();
    let mut state = reconciled(&busy, 80, 24);
    state.cursor = 2;
    paint(&fixtures::idle(), &state);
}

/// One second of a busy host, in which every number in every row changes.
fn changing(i: u64) -> Snapshot {
    let mut snapshot = fixtures::busy();
    snapshot.taken_at = jiff::Timestamp::from_second(fixtures::NOW + i as i64).unwrap();
    snapshot.interval_s = 1.0;
    // A linear congruential generator: the same numbers in every run.
    let mut random = i.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let mut next = || {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as f64 / f64::from(1u32 << 31)
    };
    snapshot.writers = (0..30u32)
        .map(|pid| {
            let mut writer = fixtures::writer(1000 + pid, "worker", "/srv/store", 0);
            writer.growth_bytes_per_s = next() * 1e8 + f64::from(30 - pid) * 1e9;
            writer.written_bytes_per_s = next() * 1e9;
            writer.share = next();
            writer.files = (next() * 100.0) as u64;
            writer
        })
        .collect();
    for volume in &mut snapshot.volumes {
        volume.growth_bytes_per_s = next() * 1e9;
        volume.avail_bytes = (next() * 1e11) as u64;
        volume.eta_s = Some(next() * 1e4);
    }
    snapshot
}

/// Counts the bytes written to it.
#[derive(Clone, Default)]
struct Counter(Rc<Cell<usize>>);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.set(self.0.get() + bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A slow ssh line: a full screen in less than 8 kB, then less than 2 kB per frame with all rows
/// changing, and no bytes for an unchanged frame. Crossterm's encoder is measured for comparison.
#[test]
fn a_slow_line_is_enough() {
    let size = Size::new(80, 24);
    let state = UiState { size, theme: Theme::Dark, ..UiState::default() };
    let mut app = App::new(state, Limits::default());
    let mut ours = Terminal::new(Ansi::new(size)).unwrap();
    let mut frame = |app: &App| {
        ours.draw(|frame| app.draw(frame)).unwrap();
        ours.backend_mut().take().len()
    };
    let viewport = Viewport::Fixed(Rect::new(0, 0, 80, 24));
    let counter = Counter::default();
    let mut theirs = Terminal::with_options(
        CrosstermBackend::new(counter.clone()),
        TerminalOptions { viewport },
    )
    .unwrap();
    let mut their_frame = |app: &App| {
        theirs.draw(|frame| app.draw(frame)).unwrap();
        counter.0.take()
    };
    app.add_snapshot(Arc::new(changing(0)));
    let first = frame(&app);
    let their_first = their_frame(&app);
    assert_eq!(frame(&app), 0, "an unchanged frame");
    let their_idle = their_frame(&app);
    let (mut total, mut their_total, mut worst) = (0, 0, 0);
    for i in 1..=60 {
        app.add_snapshot(Arc::new(changing(i)));
        let sent = frame(&app);
        total += sent;
        worst = worst.max(sent);
        their_total += their_frame(&app);
    }
    let (steady, their_steady) = (total / 60, their_total / 60);
    println!("ours: full {first}, live {steady} bytes a frame, at most {worst}");
    println!("crossterm's: full {their_first}, live {their_steady}, unchanged {their_idle}");
    assert!(first < 8000, "full redraw: {first} bytes");
    assert!(steady < 2000, "steady: {steady} bytes a frame");
    // The saving that justifies our own code.
    assert!(4 * steady < 3 * their_steady, "live: {steady} against {their_steady}");
    assert!(4 * first < 3 * their_first, "full: {first} against {their_first}");
}
