//! Cost of a frame by number of rows: building and painting rows, keeping history, bytes sent.
//!
//! Run: `cargo bench -p tracer --bench frame`. Times are medians over the runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::layout::Size;
use tracer::tui::keys::Key;
use tracer::tui::term::Ansi;
use tracer::tui::{App, UiState};
use tracer_model::fixtures;
use tracer_model::history::retention::{Limits, memory_bytes};
use tracer_model::snapshot::{Snapshot, Writer};

/// `count` writers with one file each on the most urgent volume, with new numbers every second.
fn snapshot(count: u32, second: u32) -> Arc<Snapshot> {
    let mut snapshot = fixtures::busy();
    let store = "/srv/store";
    snapshot.taken_at = Timestamp::from_second(fixtures::NOW + i64::from(second)).unwrap();
    snapshot.interval_s = 1.0;
    let bytes = |n: u32| u64::from((n + 977 * second).wrapping_mul(2_654_435_761) >> 4);
    snapshot.writers = (0..count)
        .map(|n| Writer {
            share: 1.0 / f64::from(count),
            ..fixtures::writer(1000 + n, "worker", store, bytes(n))
        })
        .collect();
    snapshot.paths = (0..count)
        .map(|n| {
            let name = format!("/srv/store/bucket-{}/objects/part.{n:06}", n % 97);
            fixtures::path(&name, store, u64::from(n), bytes(n), 1000 + n)
        })
        .collect();
    Arc::new(snapshot)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

fn measure(count: u32, screen: Size, view: char) {
    const RUNS: u32 = 11;
    let state = UiState { size: screen, ..UiState::default() };
    let mut app = App::new(state, Limits::default());
    app.press(Key::Char(view));
    let mut terminal = Terminal::new(Ansi::new(screen)).unwrap();
    let (mut build, mut draw, mut key, mut bytes) = (vec![], vec![], vec![], 0);
    let mut memory = 0;
    for second in 0..=RUNS {
        let snapshot = snapshot(count, second);
        memory = memory_bytes(&snapshot);
        let ((), built) = timed(|| app.add_snapshot(snapshot));
        let (_, drawn) = timed(|| terminal.draw(|frame| app.draw(frame)).map(|_| ()).unwrap());
        let sent = terminal.backend_mut().take().len();
        let (_, pressed) = timed(|| app.press(Key::Down));
        terminal.draw(|frame| app.draw(frame)).unwrap();
        terminal.backend_mut().take();
        // The first frame is a full redraw.
        if second > 0 {
            build.push(built);
            draw.push(drawn);
            key.push(pressed);
            bytes += sent;
        }
    }
    println!(
        "{count:>8} {:>9} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>12} {:>10.1}",
        format!("{}x{}", screen.width, screen.height),
        match view {
            '1' => "writers",
            '2' => "groups",
            _ => "files",
        },
        median(build),
        median(draw),
        median(key),
        bytes / RUNS as usize,
        memory as f64 / f64::from(1 << 20),
    );
}

fn main() {
    println!(
        "{:>8} {:>9} {:>8} {:>9} {:>9} {:>9} {:>12} {:>10}",
        "rows", "screen", "view", "build ms", "draw ms", "key ms", "bytes/frame", "MiB each"
    );
    for count in [100, 10_000, 100_000] {
        for (screen, view) in [
            (Size::new(80, 24), '1'),
            (Size::new(80, 24), '2'),
            (Size::new(80, 24), '4'),
            (Size::new(300, 100), '1'),
        ] {
            measure(count, screen, view);
        }
    }
}
