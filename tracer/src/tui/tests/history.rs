//! Tests of pausing, moving in time, longer windows, and the cost of history.

use super::*;
use crate::tui::query::Window;
use jiff::Timestamp;
use proptest::prelude::*;
use tracer_model::fixtures;
use tracer_model::history::merge::{add, merge};
use tracer_model::history::retention::{History, memory_bytes};
use tracer_model::snapshot::{Fsync, Writer};

/// A busy Snapshot `n` intervals after the first, with distinct rates.
fn nth(n: u32) -> Arc<Snapshot> {
    let mut snapshot = fixtures::busy();
    snapshot.taken_at = Timestamp::from_second(fixtures::NOW + 5 * i64::from(n)).unwrap();
    snapshot.writers[0].written_bytes = u64::from(n) << 20;
    snapshot.writers[0].written_bytes_per_s = f64::from(n) * 1048576.0 / 5.0;
    Arc::new(snapshot)
}

fn app_with(n: u32) -> App {
    let mut app = app();
    for i in 1..=n {
        app.add_snapshot(nth(i));
    }
    app
}

fn shown_at(app: &App) -> i64 {
    app.shown().unwrap().taken_at.as_second() - fixtures::NOW
}

#[test]
fn a_paused_screen_keeps_collecting() {
    let mut app = app_with(3);
    press(&mut app, " ");
    app.add_snapshot(nth(4));
    assert_eq!(shown_at(&app), 15);
    assert!(text(&screen(&app)).contains("PAST 03:12:22Z, 5 s ago"));
    press(&mut app, " ");
    assert_eq!(shown_at(&app), 20);
}

#[test]
fn back_and_forward() {
    let mut app = app_with(20);
    app.press(Key::Left);
    assert_eq!(shown_at(&app), 95);
    app.press(Key::Left);
    assert_eq!(shown_at(&app), 90);
    app.press(Key::Right);
    app.press(Key::Right);
    assert_eq!(app.state().position.at, None, "the newest Snapshot is the present");
    app.press(Key::ShiftLeft);
    assert_eq!(shown_at(&app), 40);
    app.press(Key::ShiftLeft);
    assert_eq!(shown_at(&app), 0, "no further back than the history");
    app.press(Key::ShiftLeft);
    assert_eq!(shown_at(&app), 0);
    app.press(Key::ShiftRight);
    assert_eq!(shown_at(&app), 60);
    app.press(Key::Esc);
    assert_eq!(shown_at(&app), 100);
}

#[test]
fn a_recording_is_opened_at_its_end() {
    let mut app = App::replay(UiState::default(), Limits::default());
    (0..5).map(nth).for_each(|snapshot| app.add_recorded(snapshot));
    app.resize(Size::new(80, 24));
    assert_eq!(shown_at(&app), 20);
    assert!(text(&screen(&app)).contains("REPLAY 03:12:27Z"));
}

#[test]
fn windows_are_sums() {
    let mut app = app_with(4);
    press(&mut app, "w");
    assert_eq!(app.state().window, Window::TenSeconds);
    let shown = app.shown().unwrap();
    assert_eq!(shown.interval_s, 10.0);
    assert_eq!(shown.writers[0].written_bytes, 7 << 20);
    press(&mut app, "ww");
    let shown = app.shown().unwrap();
    assert_eq!(shown.interval_s, 25.0);
    assert_eq!(shown.writers[0].written_bytes, (500 + 10) << 20);
    assert_eq!(shown.volumes[0].written_bytes, 5 * (560 << 20));
    assert_eq!(shown.volumes[0].explained, Some(1.0 - 3.0 / 515.0));
}

#[test]
fn a_writer_that_stops_has_a_falling_rate() {
    let mut sum = (*nth(0)).clone();
    let mut quiet = (*nth(1)).clone();
    quiet.writers.remove(1);
    add(&mut sum, &quiet);
    let postgres = sum.writers.iter().find(|writer| writer.pid == 880).unwrap();
    assert_eq!(postgres.written_bytes, 40 << 20);
    assert_eq!(postgres.written_bytes_per_s, 4.0 * 1048576.0);
    assert_eq!(postgres.errors.enospc, 2);
}

#[test]
fn history_is_bounded_in_time() {
    let mut history = History::new(Limits { seconds: 60.0, bytes: usize::MAX });
    for n in 0..100 {
        history.push(nth(n));
    }
    assert_eq!(history.span_s(), 65.0);
}

#[test]
fn history_is_bounded_in_memory_and_loses_no_written_byte() {
    let one = memory_bytes(&fixtures::busy());
    let limits = Limits { seconds: 1e9, bytes: 40 * one };
    let mut history = History::new(limits);
    for n in 0..1000 {
        history.push(nth(n));
        assert!(history.bytes() <= limits.bytes);
    }
    assert!(history.span_s() > 900.0 * 5.0, "{} s", history.span_s());
    let newest = history.newest().unwrap().taken_at;
    let all = merge(
        history.until(newest).map(|snapshot| &**snapshot).collect::<Vec<_>>().into_iter().rev(),
    );
    let kept = all.unwrap();
    // Only the oldest entries were dropped; the rest adds up exactly.
    let first = 1000 - (kept.interval_s / 5.0) as u64;
    let want: u64 = (first..1000).map(|n| n << 20).sum();
    let minio: u64 = kept.writers.iter().filter(|w| w.pid == 2114).map(|w| w.written_bytes).sum();
    assert_eq!(minio, want);
}

#[test]
fn a_host_with_many_writers_has_a_history() {
    let long = |n: u32| {
        let mut snapshot = (*nth(n)).clone();
        let writer = snapshot.writers[0].clone();
        snapshot.writers = (0..5000).map(|pid| Writer { pid, ..writer.clone() }).collect();
        Arc::new(snapshot)
    };
    let mut app = app();
    for n in 1..5 {
        app.add_snapshot(long(n));
    }
    assert_eq!(app.shown().unwrap().writers.len(), 5000, "now is complete");
    app.press(Key::Left);
    let before = app.shown().unwrap();
    assert_eq!(before.writers.len(), 2000);
    assert_eq!(before.backend.unattributed_bytes, 3000 * (3 << 20), "truncated rows are reported");
    press(&mut app, "www");
    let all = app.shown().unwrap();
    let rows: u64 = all.writers.iter().map(|writer| writer.written_bytes).sum();
    // One step back in time: what minio wrote at first, and three times 5,000 writers.
    let want = (500 << 20) + (40 << 20) + (20 << 20) + (3 << 20) + 5000 * ((1 + 2 + 3) << 20);
    assert_eq!(rows + all.backend.unattributed_bytes, want);
}

#[test]
fn a_clock_that_is_set_back_is_tolerated() {
    let mut app = app_with(5);
    app.add_snapshot(nth(2));
    assert_eq!(shown_at(&app), 10);
    app.press(Key::Left);
    assert_eq!(shown_at(&app), 5);
}

proptest! {
    /// However the windows are split, the totals are the same.
    #[test]
    fn merging_is_the_same_in_one_or_two_steps(cut in 1usize..9) {
        let parts: Vec<_> = (0..10).map(nth).collect();
        let parts: Vec<&Snapshot> = parts.iter().map(|part| &**part).collect();
        let whole = merge(parts.iter().copied()).unwrap();
        let early = merge(parts[..cut].iter().copied()).unwrap();
        let late = merge(parts[cut..].iter().copied()).unwrap();
        let both = merge([&early, &late]).unwrap();
        prop_assert_eq!(whole.interval_s, both.interval_s);
        for (a, b) in whole.writers.iter().zip(&both.writers) {
            prop_assert_eq!(a.written_bytes, b.written_bytes);
            prop_assert!((a.written_bytes_per_s - b.written_bytes_per_s).abs() < 1.0);
        }
        for (a, b) in whole.volumes.iter().zip(&both.volumes) {
            prop_assert_eq!(a.written_bytes, b.written_bytes);
            prop_assert_eq!(a.used_delta_bytes, b.used_delta_bytes);
        }
    }
}

#[test]
fn a_window_without_fsync_keeps_those_of_the_others() {
    let with = |fsync| {
        let mut snapshot = fixtures::busy();
        snapshot.writers[0].fsync = fsync;
        snapshot
    };
    let calls = |count, p99_ms, max_ms| Some(Fsync { count, max_ms, p99_ms });
    let parts = [with(calls(7, 3.0, 9.0)), with(None), with(calls(5, 4.0, 5.0)), with(None)];
    let merged = merge(&parts).expect("four windows");
    let pid = parts[0].writers[0].pid;
    let row = merged.writers.iter().find(|row| row.pid == pid).expect("a row");
    assert_eq!(row.fsync, calls(12, 4.0, 9.0));
}
