//! The service's history: Snapshots as records, bounded in time and in bytes, and coarser the older
//! they are.
//!
//! They are stored as records because a record takes a tenth of the memory, and because an
//! attaching client can be sent an hour of them without encoding anything again.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use tracer_model::snapshot::Snapshot;

use crate::recording;
use tracer_model::history::merge;
use tracer_model::history::merge::seconds_before;
use tracer_model::history::retention::Limits;

/// Maximum number of pairs merged per new Snapshot. Bounds the work, which is about 30 ms per pair
/// on a busy host.
const MERGES: usize = 2;

struct Entry {
    /// Number of the last Snapshot merged into the record.
    number: u64,
    taken_at: Timestamp,
    interval_s: f64,
    record: Arc<[u8]>,
}

/// The stored records, oldest first.
pub struct Store {
    entries: VecDeque<Entry>,
    limits: Limits,
    bytes: usize,
    newest: u64,
}

impl Store {
    /// Creates an empty store.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { entries: VecDeque::new(), limits, bytes: 0, newest: 0 }
    }

    /// Adds the newest Snapshot; only its largest rows are kept.
    ///
    /// # Errors
    /// A Snapshot cannot cause any.
    pub fn push(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let record = if merge::exceeds_row_limit(snapshot) {
            recording::encode(&merge::truncated(snapshot))?
        } else {
            recording::encode(snapshot)?
        };
        // If the clock was set back, records would lie in the future: drop them.
        while self.entries.back().is_some_and(|entry| entry.taken_at >= snapshot.taken_at) {
            self.bytes -= self.entries.pop_back().map_or(0, |entry| entry.record.len());
        }
        let oldest = seconds_before(snapshot.taken_at, self.limits.seconds);
        while self.entries.front().is_some_and(|entry| entry.taken_at < oldest) {
            self.pop_front();
        }
        self.newest += 1;
        self.bytes += record.len();
        self.entries.push_back(Entry {
            number: self.newest,
            taken_at: snapshot.taken_at,
            interval_s: snapshot.interval_s,
            record: record.into(),
        });
        for _ in 0..MERGES {
            if self.bytes > self.limits.bytes {
                self.coarsen()?;
            }
        }
        while self.bytes > self.limits.bytes && self.entries.len() > 1 {
            self.pop_front();
        }
        Ok(())
    }

    fn pop_front(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |entry| entry.record.len());
    }

    /// Merges two adjacent records in the older half: the pair with the shortest total length.
    fn coarsen(&mut self) -> io::Result<()> {
        let half = self.entries.len() / 2;
        let length = |at: &usize| self.entries[*at].interval_s + self.entries[at + 1].interval_s;
        let Some(at) = (1..half).map(|at| at - 1).min_by(|a, b| length(a).total_cmp(&length(b)))
        else {
            return Ok(());
        };
        let pair = [at, at + 1].map(|at| recording::decode_one(&self.entries[at].record));
        let Some(sum) = merge::merge(pair.iter().flatten().map(|snapshot| &**snapshot)) else {
            return Ok(());
        };
        let record = recording::encode(&sum)?;
        self.bytes -= self.entries[at].record.len() + self.entries[at + 1].record.len();
        self.bytes += record.len();
        self.entries[at + 1].interval_s = sum.interval_s;
        self.entries[at + 1].record = record.into();
        self.entries.remove(at);
        Ok(())
    }

    /// Number of the newest Snapshot; 0 before the first.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// Memory used by the records, bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Time from the start of the oldest record to the end of the newest, seconds.
    #[must_use]
    pub fn span_s(&self) -> f64 {
        let (Some(oldest), Some(newest)) = (self.entries.front(), self.entries.back()) else {
            return 0.0;
        };
        (newest.taken_at - oldest.taken_at).total(jiff::Unit::Second).unwrap_or(0.0)
            + oldest.interval_s
    }

    /// The number of the last record before the last `seconds`; at least the newest Snapshot comes
    /// after it. 0 if that is all records.
    #[must_use]
    pub fn before(&self, seconds: f64) -> u64 {
        let Some(newest) = self.entries.back() else { return 0 };
        // A Snapshot never covers exactly the configured interval.
        let from = seconds_before(newest.taken_at, seconds - newest.interval_s / 2.0);
        let first = self.entries.partition_point(|entry| entry.taken_at < from);
        let first = first.min(self.entries.len() - 1);
        first.checked_sub(1).map_or(0, |before| self.entries[before].number)
    }

    /// The next record after a number, with its own number.
    #[must_use]
    pub fn after(&self, number: u64) -> Option<(u64, Arc<[u8]>)> {
        let next = self.entries.partition_point(|entry| entry.number <= number);
        self.entries.get(next).map(|entry| (entry.number, Arc::clone(&entry.record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_model::fixtures;

    fn at(second: i64) -> Snapshot {
        let mut snapshot = fixtures::busy();
        snapshot.taken_at = Timestamp::from_second(fixtures::NOW + second).unwrap();
        snapshot.interval_s = 1.0;
        snapshot.volumes[0].written_bytes = 1000;
        snapshot
    }

    fn all(store: &Store, mut number: u64) -> Vec<Snapshot> {
        let mut found = vec![];
        while let Some((next, record)) = store.after(number) {
            assert!(next > number);
            number = next;
            found.push(*recording::decode_one(&record).unwrap());
        }
        found
    }

    #[test]
    fn the_last_seconds_are_found() {
        let mut store = Store::new(Limits::default());
        assert_eq!((store.before(5.0), store.after(0).is_none()), (0, true));
        for second in 0..60 {
            store.push(&at(second)).unwrap();
        }
        assert_eq!(store.newest(), 60);
        assert_eq!(store.span_s(), 60.0);
        assert_eq!(all(&store, store.before(0.0)), [at(59)]);
        assert_eq!(all(&store, store.before(5.0)), (55..60).map(at).collect::<Vec<_>>());
        assert_eq!(all(&store, store.before(3600.0)).len(), 60);
        assert_eq!(all(&store, 60).len(), 0);
    }

    #[test]
    fn old_records_expire_and_a_clock_set_back_is_handled() {
        let mut store = Store::new(Limits { seconds: 10.0, ..Limits::default() });
        for second in 0..30 {
            store.push(&at(second)).unwrap();
        }
        assert_eq!(all(&store, 0).len(), 11);
        store.push(&at(5)).unwrap();
        assert_eq!(all(&store, 0), [at(5)]);
        assert_eq!(store.newest(), 31);
    }

    #[test]
    fn above_the_memory_limit_old_records_get_coarser_and_no_byte_is_lost() {
        let size = recording::encode(&at(0)).unwrap().len();
        let limits = Limits { bytes: size * 40, ..Limits::default() };
        let mut store = Store::new(limits);
        for second in 0..200 {
            store.push(&at(second)).unwrap();
            assert!(store.bytes() <= limits.bytes);
        }
        let kept = all(&store, 0);
        assert_eq!(store.bytes(), store.entries.iter().map(|one| one.record.len()).sum::<usize>());
        let seconds: f64 = kept.iter().map(|one| one.interval_s).sum();
        let written: u64 = kept.iter().map(|one| one.volumes[0].written_bytes).sum();
        assert!((seconds - 200.0).abs() < 1e-6, "{seconds} s in {} records", kept.len());
        assert_eq!(written, 200 * 1000);
        assert_eq!(kept.last(), Some(&at(199)));
        assert!(kept[0].interval_s > kept[kept.len() - 1].interval_s);
    }
}
