//! Time and memory of the directory roll-up for a million directories in one window.
//!
//! Run: `cargo bench -p tracer --bench directories`.

use std::time::Instant;

use tracer_model::tree::{Traffic, Tree};

const DIRECTORIES: u32 = 1_000_000;

fn main() {
    let before = resident_kib();
    let start = Instant::now();
    let mut tree = Tree::default();
    let mut largest = 0;
    for n in 0..DIRECTORIES {
        let path = format!("/srv/store/bucket/{:03}/{n:07}", n % 1_000);
        tree.add(path.as_bytes(), &Traffic { inflow: 4_096, created: 1, ..Traffic::default() });
        largest = largest.max(tree.len());
    }
    let added = start.elapsed();
    let rows = tree.rows(1_000, |_| false);
    let hot: Vec<_> = rows.iter().filter(|row| row.hot).collect();
    println!(
        "{DIRECTORIES} directories: {:.0} ns each, {:.1} ms for the rows; at most {largest} kept, +{} KiB",
        added.as_secs_f64() * 1e9 / f64::from(DIRECTORIES),
        (start.elapsed() - added).as_secs_f64() * 1e3,
        resident_kib().saturating_sub(before)
    );
    assert_eq!(hot.len(), 1, "{hot:?}");
    assert_eq!(hot[0].path, b"srv/store/bucket");
    assert_eq!(hot[0].traffic.inflow, u64::from(DIRECTORIES) * 4_096);
}

/// Resident memory (VmRSS of /proc/self/status), KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
