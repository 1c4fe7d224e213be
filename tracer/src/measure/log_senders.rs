//! Who is behind what a log daemon writes: the programs that the end of its log names.

use std::path::Path;

use tracer_host::{host_root, noatime};
use tracer_model::action::protect;
use tracer_model::log_lines;
use tracer_model::snapshot::{LogSender, PathRow, Snapshot};

/// A log daemon that causes less growth is not looked at, bytes per second.
const MIN_BYTES_PER_S: f64 = 64.0 * 1024.0;
/// Length of the end of a log that is read, bytes.
const TAIL_BYTES: u64 = 64 * 1024;
/// Maximum number of log daemons that are looked at in one interval.
const MAX_DAEMONS: usize = 4;

/// Fills in the senders of the log daemons among the writers.
pub(super) fn fill(snapshot: &mut Snapshot) {
    let Snapshot { writers, paths, .. } = snapshot;
    let daemons = writers
        .iter_mut()
        .filter(|row| row.growth_bytes_per_s >= MIN_BYTES_PER_S && protect::is_log_daemon(row));
    for row in daemons.take(MAX_DAEMONS) {
        let is_its_log = |path: &&PathRow| {
            path.volume == row.volume && !path.deleted && path.writers.contains(&row.pid)
        };
        let log = paths.iter().filter(is_its_log).max_by(|a, b| {
            a.growth_of().total_cmp(&b.growth_of()).then_with(|| b.path.cmp(&a.path))
        });
        row.log_senders = log.map_or_else(Vec::new, |log| senders(Path::new(&log.path)));
    }
}

fn senders(path: &Path) -> Vec<LogSender> {
    let tail = noatime::tail(&host_root::path(path), TAIL_BYTES);
    tail.map_or_else(|_| Vec::new(), |tail| log_lines::senders(&tail))
}
