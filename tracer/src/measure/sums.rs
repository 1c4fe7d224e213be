//! The counts of an interval summed up by writer, file and volume.

use std::collections::{HashMap, HashSet};

use tracer_common::{Counters, Entries, FileKey, ProcKey};
use tracer_model::snapshot::{Group, WriteErrors};

use super::context::Volumes;
use super::interval::{IntervalCounts, is_aggregated};
use super::waits::{WaitTime, wait_times};

/// A process on one volume: its key and the volume's device.
pub(super) type WriterKey = (ProcKey, u32);

/// Sums of one writer on one volume.
pub(super) struct WriterSum {
    pub(super) counters: Counters,
    pub(super) files: HashSet<FileKey>,
    pub(super) errors: WriteErrors,
    /// Inodes that it created.
    pub(super) created: u64,
    /// Inodes that it removed; `None` if some of its calls may have removed others.
    pub(super) removed: Option<u64>,
    pub(super) waited: WaitTime,
    /// The part of its counters that went to the logs of containers, by container.
    pub(super) logs: HashMap<Group, Counters>,
}

impl Default for WriterSum {
    fn default() -> Self {
        Self {
            counters: Counters::default(),
            files: HashSet::new(),
            errors: WriteErrors::default(),
            created: 0,
            removed: Some(0),
            waited: WaitTime::default(),
            logs: HashMap::new(),
        }
    }
}

impl WriterSum {
    /// Whether it changed something, and did not only fail or wait.
    pub(super) fn is_active(&self) -> bool {
        let changed = !self.files.is_empty() || !self.counters.is_zero();
        changed || self.created > 0 || self.removed != Some(0)
    }

    fn add_entries(&mut self, entries: &Entries) {
        self.created += entries.created;
        let removed = self.removed.filter(|_| entries.renamed == 0);
        self.removed = removed.map(|removed| removed + entries.removed);
    }
}

/// Sums of one file.
#[derive(Default)]
pub(super) struct FileSum {
    pub(super) counters: Counters,
    pub(super) writers: Vec<ProcKey>,
}

/// All sums of an interval.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) writers: HashMap<WriterKey, WriterSum>,
    pub(super) files: HashMap<FileKey, FileSum>,
    /// Keyed by device.
    pub(super) volumes: HashMap<u32, Counters>,
}

impl Sums {
    /// Sums up the counts of an interval. Counts on devices that are not volumes (memfd, container
    /// internals) are ignored. `unlinks` is [`Context::unlinks_counted`](super::context::Context), `jiffy_ms`
    /// the length of a jiffy.
    pub(super) fn of(
        counts: &IntervalCounts,
        volumes: &Volumes<'_>,
        unlinks: bool,
        jiffy_ms: f64,
    ) -> Self {
        let mut sums = Self::default();
        for (pair, counters) in counts.pairs().iter().filter(|(pair, _)| volumes.contains(pair.dev))
        {
            sums.volumes.entry(pair.dev).or_default().add(counters);
            let writer = sums.writers.entry((pair.process(), pair.dev)).or_default();
            writer.counters.add(counters);
            if is_aggregated(pair) {
                continue;
            }
            writer.files.insert(pair.file());
            let file = sums.files.entry(pair.file()).or_default();
            file.counters.add(counters);
            if counters.written > 0 {
                file.writers.push(pair.process());
            }
        }
        for (key, errors) in counts.errors.iter().filter(|(key, _)| volumes.contains(key.dev)) {
            let proc = ProcKey { start_ns: key.start_ns, tgid: key.tgid, pad: 0 };
            sums.writers.entry((proc, key.dev)).or_default().errors = WriteErrors {
                short: errors.short,
                enospc: errors.enospc,
                edquot: errors.edquot,
                eio: errors.eio,
                other: errors.other,
            };
        }
        for (key, entries) in counts.created.iter().filter(|(key, _)| volumes.contains(key.dev)) {
            sums.writers.entry((key.process(), key.dev)).or_default().add_entries(entries);
        }
        if unlinks {
            for writer in sums.writers.values_mut() {
                let unlinked = u64::from(writer.counters.unlinked);
                writer.removed = writer.removed.map(|removed| removed + unlinked);
            }
        }
        sums.add_waits(wait_times(&counts.waits, volumes, jiffy_ms));
        sums
    }

    /// Adds wait times to the writers. Those on an unknown device (0) go to the volume that the
    /// process wrote most to.
    fn add_waits(&mut self, waits: HashMap<WriterKey, WaitTime>) {
        let mut on_unknown = Vec::new();
        for ((proc, dev), waited) in waits {
            if dev == 0 {
                on_unknown.push((proc, waited));
            } else {
                self.writers.entry((proc, dev)).or_default().waited = waited;
            }
        }
        if on_unknown.is_empty() {
            return;
        }
        let mut most: HashMap<ProcKey, (u64, u32)> = HashMap::new();
        for ((proc, dev), sum) in &self.writers {
            let written = (sum.counters.written, *dev);
            let most = most.entry(*proc).or_insert(written);
            *most = (*most).max(written);
        }
        for (proc, waited) in on_unknown {
            if let Some((_, dev)) = most.get(&proc)
                && let Some(writer) = self.writers.get_mut(&(proc, *dev))
            {
                writer.waited.waiting_ms += waited.waiting_ms;
            }
        }
    }

    /// Assigns what was written to the logs of containers to these containers, by writer.
    pub(super) fn add_logs(&mut self, counts: &IntervalCounts, logs: &HashMap<FileKey, Group>) {
        if logs.is_empty() {
            return;
        }
        for (pair, counters) in counts.pairs() {
            if let Some(container) = logs.get(&pair.file())
                && let Some(writer) = self.writers.get_mut(&(pair.process(), pair.dev))
            {
                writer.logs.entry(container.clone()).or_default().add(counters);
            }
        }
    }

    /// The sum of a volume.
    pub(super) fn volume(&self, dev: u32) -> Counters {
        self.volumes.get(&dev).copied().unwrap_or_default()
    }
}

/// Allocated − freed, bytes.
pub(super) fn signed_growth(sum: &Counters) -> i64 {
    sum.allocated.cast_signed().wrapping_sub(sum.freed.cast_signed())
}

/// The share of the change of a volume's used space that the counted growth accounts for, 0..1.
/// `None` if it changed by less than 1 MiB, because that little can be the filesystem's own
/// housekeeping.
pub(super) fn explained(used_delta: i64, growth: i64) -> Option<f64> {
    const MIN_CHANGE: u64 = 1 << 20;
    let changed = used_delta.unsigned_abs();
    (changed >= MIN_CHANGE)
        .then(|| (1.0 - used_delta.abs_diff(growth) as f64 / changed as f64).clamp(0.0, 1.0))
}

/// The rate of an amount over an interval; 0 for an interval without a length.
pub(super) fn per_second(amount: f64, interval_s: f64) -> f64 {
    if interval_s > 0.0 { amount / interval_s } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explained_is_the_share_that_growth_accounts_for() {
        let mib = 1 << 20;
        assert_eq!(explained(100 * mib, 100 * mib), Some(1.0));
        assert_eq!(explained(100 * mib, 99 * mib), Some(0.99));
        assert_eq!(explained(-100 * mib, -150 * mib), Some(0.5));
        assert_eq!(explained(10 * mib, -10 * mib), Some(0.0));
        assert_eq!(explained(mib - 1, mib - 1), None);
    }
}
