//! The counts of one interval between two Snapshots, in bounded memory.

use std::collections::{HashMap, HashSet};

use tracer_common::{Counters, Entries, ErrorKey, Errors, FileKey, ProcFileKey, WaitKey, Waits};

/// Maximum number of (process, file) pairs with a row of their own in one interval: as many as a
/// hash table of 2¹⁸ buckets takes, which is 17 MB. Beyond it, the smaller half is aggregated into
/// the rows of its processes.
pub(super) const MAX_PAIRS: usize = (1 << 18) / 8 * 7;

/// The counts of one interval.
#[derive(Default)]
pub(super) struct IntervalCounts {
    pairs: HashMap<ProcFileKey, Counters>,
    aggregated: u64,
    /// Files whose rows were evicted; some of them may have a row again.
    evicted: HashSet<FileKey>,
    /// Failed writes, keyed by process and device.
    pub(super) errors: HashMap<ErrorKey, Errors>,
    /// How long processes waited, keyed by process, device and kind.
    pub(super) waits: HashMap<WaitKey, Waits>,
    /// Inodes created and removed, keyed by process and directory. Without an inode number, the directory
    /// is not known.
    pub(super) created: HashMap<ProcFileKey, Entries>,
    /// Totals that no process or file could be assigned to.
    pub(super) other: Counters,
}

impl IntervalCounts {
    /// Counters keyed by process and file; aggregated files are under [`NO_FILE`] of their device.
    pub(super) const fn pairs(&self) -> &HashMap<ProcFileKey, Counters> {
        &self.pairs
    }

    /// The files that have a row, once per process.
    pub(super) fn files(&self) -> impl Iterator<Item = FileKey> {
        self.pairs.keys().map(ProcFileKey::file)
    }

    /// Number of pairs that were aggregated: their bytes are in their process's row, but in no
    /// file's row. A pair that is written to again later may be counted twice here.
    pub(super) const fn aggregated(&self) -> u64 {
        self.aggregated
    }

    /// Takes the files that have lost their row since the last call: their names are no longer
    /// needed.
    pub(super) fn take_evicted(&mut self) -> HashSet<FileKey> {
        let mut evicted = std::mem::take(&mut self.evicted);
        if !evicted.is_empty() {
            // Files that another process has a row for, or that have a row again.
            for file in self.files() {
                evicted.remove(&file);
            }
        }
        evicted
    }

    /// Adds counters to a pair.
    pub(super) fn add(&mut self, key: ProcFileKey, counters: &Counters) {
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&key) {
            self.aggregate();
        }
        self.pairs.entry(key).or_default().add(counters);
    }

    /// Adds the time that a process waited.
    pub(super) fn add_waits(&mut self, key: WaitKey, waits: &Waits) {
        self.waits.entry(key).or_insert(Waits::ZERO).add(waits);
    }

    /// Adds failed writes.
    pub(super) fn add_errors(&mut self, key: ErrorKey, errors: &Errors) {
        let sum = self.errors.entry(key).or_default();
        sum.enospc += errors.enospc;
        sum.edquot += errors.edquot;
        sum.eio += errors.eio;
        sum.other += errors.other;
        sum.short += errors.short;
    }

    /// Aggregates the half of the pairs with the fewest bytes.
    fn aggregate(&mut self) {
        let mut sizes: Vec<u64> = self.pairs.values().map(size).collect();
        let middle = sizes.len() / 2;
        let (_, median, _) = sizes.select_nth_unstable(middle);
        let median = *median;
        // Of the pairs as large as the median, which may be all, evict only so many that half stay.
        let mut rest = middle;
        let (pairs, aggregated) = (&mut self.pairs, &mut self.aggregated);
        let small = pairs.extract_if(|key, counters| {
            let evict = rest > 0 && !is_aggregated(key) && size(counters) <= median;
            rest -= usize::from(evict);
            evict
        });
        let mut sums: HashMap<ProcFileKey, Counters> = HashMap::new();
        for (key, counters) in small {
            *aggregated += 1;
            self.evicted.insert(key.file());
            let no_file = FileKey { dev: key.dev, ..NO_FILE };
            sums.entry(ProcFileKey::new(key.process(), no_file)).or_default().add(&counters);
        }
        for (key, sum) in sums {
            self.pairs.entry(key).or_default().add(&sum);
        }
    }
}

/// Stands for files without a row of their own; no filesystem has an inode 0.
pub(super) const NO_FILE: FileKey = FileKey { ino: 0, generation: 0, dev: 0 };

/// Whether this key holds the counters of files without a row of their own.
pub(super) const fn is_aggregated(key: &ProcFileKey) -> bool {
    key.ino == NO_FILE.ino
}

/// All bytes of a pair; the larger pairs keep their rows.
const fn size(counters: &Counters) -> u64 {
    counters.written.saturating_add(counters.allocated).saturating_add(counters.freed)
}

#[cfg(test)]
mod tests {
    use tracer_common::ProcKey;

    use super::*;

    fn pair(tgid: u32, ino: u64) -> ProcFileKey {
        let proc = ProcKey { start_ns: 1, tgid, pad: 0 };
        ProcFileKey::new(proc, FileKey { ino, generation: 0, dev: 8 })
    }

    fn written(bytes: u64) -> Counters {
        Counters { written: bytes, ..Counters::default() }
    }

    #[test]
    fn a_million_files_keep_their_sum_and_the_largest_keep_their_rows() {
        let mut counts = IntervalCounts::default();
        counts.add(pair(1, 7_777_777), &written(1 << 30));
        for ino in 1..=1_000_000 {
            counts.add(pair(1 + (ino % 2) as u32, ino), &written(10));
        }
        assert!(counts.pairs.len() <= MAX_PAIRS, "{}", counts.pairs.len());
        assert_eq!(counts.pairs[&pair(1, 7_777_777)].written, 1 << 30);
        for tgid in [1, 2] {
            let mine = counts.pairs.iter().filter(|(key, _)| key.tgid == tgid);
            let sum: u64 = mine.map(|(_, counters)| counters.written).sum();
            assert_eq!(sum, 5_000_000 + if tgid == 1 { 1 << 30 } else { 0 });
        }
        let evicted = counts.take_evicted();
        assert_eq!(evicted.len() as u64, counts.aggregated());
        assert!(!evicted.iter().any(|file| file.ino == 7_777_777));
        assert!(counts.take_evicted().is_empty());
        let rows = counts.pairs.keys().filter(|key| !is_aggregated(key)).count() as u64;
        assert_eq!(rows + counts.aggregated(), 1_000_001);
    }

    #[test]
    fn a_file_in_the_row_of_another_process_keeps_its_name() {
        let mut counts = IntervalCounts::default();
        counts.add(pair(2, 1), &written(1 << 30));
        for ino in 1..=MAX_PAIRS as u64 {
            counts.add(pair(1, ino), &written(ino));
        }
        assert!(counts.aggregated() > 0 && !counts.pairs.contains_key(&pair(1, 1)));
        assert!(!counts.take_evicted().contains(&pair(1, 1).file()));
    }

    #[test]
    fn a_file_that_has_a_row_again_keeps_its_name() {
        let mut counts = IntervalCounts::default();
        for ino in 1..=MAX_PAIRS as u64 + 1 {
            counts.add(pair(1, ino), &written(ino));
        }
        assert!(!counts.pairs.contains_key(&pair(1, 1)));
        counts.add(pair(1, 1), &written(1));
        let evicted = counts.take_evicted();
        assert!(evicted.contains(&pair(1, 2).file()) && !evicted.contains(&pair(1, 1).file()));
    }

    #[test]
    fn few_files_all_keep_their_rows() {
        let mut counts = IntervalCounts::default();
        for ino in 1..=1000 {
            counts.add(pair(1, ino), &written(ino));
        }
        assert_eq!((counts.pairs.len(), counts.aggregated()), (1000, 0));
    }
}
