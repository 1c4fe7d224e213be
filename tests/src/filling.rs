//! Fills a volume from within the test.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Writes at `rate` bytes per second until `length` has passed or there is no space left.
///
/// # Errors
/// If the file cannot be created.
pub fn write_at(
    path: &Path,
    rate: f64,
    length: Duration,
) -> anyhow::Result<thread::JoinHandle<()>> {
    const BLOCK: usize = 1_000_000;
    let mut file = File::create(path)?;
    Ok(thread::spawn(move || {
        let start = Instant::now();
        let block = vec![7; BLOCK];
        let mut written = 0.0;
        while start.elapsed() < length && file.write_all(&block).is_ok() {
            written += BLOCK as f64;
            let due = Duration::from_secs_f64(written / rate);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }))
}

/// Uses all remaining space of a volume.
///
/// # Errors
/// If it fails for another reason than a lack of space.
pub fn fill(path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    for block in [1 << 20, 1 << 12] {
        while file.write_all(&vec![7; block]).is_ok() {}
    }
    file.sync_all().or_else(|error| match error.raw_os_error() {
        Some(libc::ENOSPC) => Ok(()),
        _ => Err(error.into()),
    })
}

/// Writes one file that leaves `left_bytes` for ordinary users, and waits until it is on disk.
///
/// # Errors
/// If it cannot be written.
pub fn fill_up_to(mount: &Path, left_bytes: u64) -> anyhow::Result<()> {
    let space = rustix::fs::statvfs(mount)?;
    let bytes = (space.f_bavail * space.f_frsize).saturating_sub(left_bytes);
    let mut file = File::create(mount.join("before"))?;
    let block = vec![7; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&block)?;
    }
    Ok(file.sync_all()?)
}
