//! CPU time of serving: storing a Snapshot, sending an hour of history to a client that attaches,
//! answering a scrape.
//!
//! Run: `cargo bench -p tracer --bench service`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tracer::output::openmetrics::{Format, Metrics, Own, Totals};
use tracer::service::Service;
use tracer::service::client::Client;
use tracer::service::store::Store;
use tracer_model::fixtures;
use tracer_model::history::retention::{History, Limits};
use tracer_model::snapshot::Snapshot;

/// `count` writers with one file and one directory each, with new numbers every second.
fn snapshot(count: u32, second: u32) -> Snapshot {
    let mut snapshot = fixtures::busy();
    let store = "/srv/store";
    snapshot.taken_at = Timestamp::from_second(fixtures::NOW + i64::from(second)).unwrap();
    snapshot.interval_s = 1.0;
    let bytes = |n: u32| u64::from((n + 977 * second).wrapping_mul(2_654_435_761) >> 4);
    snapshot.writers =
        (0..count).map(|n| fixtures::writer(1000 + n, &format!("w{n}"), store, bytes(n))).collect();
    let name = |n: u32| format!("/srv/store/bucket-{}/objects/{n:06}", n % 97);
    snapshot.paths = (0..count)
        .map(|n| fixtures::path(&name(n), store, u64::from(n), bytes(n), 1000 + n))
        .collect();
    snapshot.dirs =
        (0..count).map(|n| fixtures::dir(&name(n), store, bytes(n) as f64, 0.0)).collect();
    snapshot
}

/// CPU time of this thread, which excludes everything else on the machine.
fn cpu_of<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let now = || {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec as u32)
    };
    let start = now();
    let value = work();
    (value, now() - start)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn measure(count: u32, seconds: u32) {
    let mut store = Store::new(Limits::default());
    let metrics = Metrics::new(Totals::new(50, &[]));
    let mut pushes = Vec::new();
    let mut sums = Vec::new();
    for second in 0..seconds {
        let snapshot = Arc::new(snapshot(count, second));
        sums.push(cpu_of(|| metrics.see(Arc::clone(&snapshot))).1);
        pushes.push(cpu_of(|| store.push(&snapshot).unwrap()).1);
    }
    let (bytes, span) = (store.bytes(), store.span_s());
    let (text, scrape) =
        cpu_of(|| metrics.text(&Own::default(), Format::OpenMetrics).unwrap().len());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let service = Service::with_history(&path, store).unwrap();
    let (first, shown) = cpu_of(|| {
        let mut client = Client::connect(&path, "bench", 0.0, true).unwrap();
        client.receive().unwrap().is_some()
    });
    assert!(first);
    let (past, read) = cpu_of(|| {
        let mut client = Client::connect(&path, "bench", 3600.0, false).unwrap();
        let mut past = History::new(Limits::default());
        while let Some(snapshot) = client.receive().unwrap() {
            past.push(Arc::from(snapshot));
        }
        past
    });
    drop(service);
    pushes.sort_unstable();
    sums.sort_unstable();
    println!(
        "{count:>6} {:>9.2} {:>9.2} {:>9.1} {:>8.0} {:>9.3} {:>9.2} {:>9} {:>9.1} {:>9.0} {:>8.0}",
        ms(pushes[pushes.len() / 2]),
        ms(pushes[pushes.len() - 1]),
        bytes as f64 / f64::from(1 << 20),
        span,
        ms(sums[sums.len() / 2]),
        ms(scrape),
        text,
        ms(shown),
        ms(read),
        past.span_s(),
    );
}

fn main() {
    println!(
        "{:>6} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "rows",
        "push ms",
        "max ms",
        "hist MiB",
        "hist s",
        "sums ms",
        "scrape ms",
        "bytes",
        "first ms",
        "read ms",
        "read s"
    );
    // The last is a host with thousands of concurrent writers; ten minutes of it fill the limit.
    for (count, seconds) in [(10, 3600), (100, 3600), (2000, 600)] {
        measure(count, seconds);
    }
}
