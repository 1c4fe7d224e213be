//! Time that processes spend waiting for a volume.

use std::collections::HashMap;

use tracer_common::{ProcKey, WaitKey, WaitKind, Waits};
use tracer_model::snapshot::Fsync;

use super::context::Volumes;

/// Time that one process spent in fsync and throttled writes on one volume.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WaitTime {
    /// fsync calls; `None` if there were none.
    pub(super) fsync: Option<Fsync>,
    /// fsync and throttled writes together, milliseconds.
    pub(super) waiting_ms: f64,
}

/// Rolls waits up by process and device; those on devices that are not volumes are left out. A
/// throttled writer whose device is not a volume (the kernel reports none for btrfs and network
/// filesystems) is listed under device 0.
pub(super) fn wait_times(
    waits: &HashMap<WaitKey, Waits>,
    volumes: &Volumes<'_>,
    jiffy_ms: f64,
) -> HashMap<(ProcKey, u32), WaitTime> {
    let mut rows: HashMap<(ProcKey, u32), WaitTime> = HashMap::new();
    for (key, waits) in waits {
        let proc = ProcKey { start_ns: key.start_ns, tgid: key.tgid, pad: 0 };
        let is_fsync = key.kind == WaitKind::Fsync as u32;
        let is_volume = volumes.contains(key.dev);
        if is_fsync && !is_volume {
            continue;
        }
        let row = rows.entry((proc, if is_volume { key.dev } else { 0 })).or_default();
        if is_fsync {
            let ms = |ns: u64| ns as f64 / 1e6;
            row.fsync =
                Some(Fsync { count: waits.count, max_ms: ms(waits.max), p99_ms: ms(waits.p99()) });
            row.waiting_ms += ms(waits.total);
        } else {
            row.waiting_ms += waits.total as f64 * jiffy_ms;
        }
    }
    rows
}
