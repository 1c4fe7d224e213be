//! Culprits: the processes and groups that fill a volume, by their growth over more than one
//! interval. A burst of another process in the second of the alert is not the cause, and a culprit
//! is still named after it has exited.

use std::collections::HashMap;

use crate::snapshot::{Group, GroupKind, GroupRow, Writer};

/// Time constants over which growth is summed, seconds: for urgent alerts, and for all others.
const TIME_CONSTANTS_S: [f64; 2] = [20.0, 900.0];
/// Maximum number of writers added per interval, largest growth first.
const MAX_NEW_WRITERS: usize = 64;
/// Maximum number of writers kept. With 64 new ones per interval, it still holds those of the last
/// seconds.
const MAX_WRITERS: usize = 256;
/// A writer with less than this share of the growth is not a culprit.
const MIN_SHARE: f64 = 0.05;
/// A process whose start time differs by at least this, seconds, is another one with a reused pid.
/// Smaller differences come from the clock: start times are wall-clock times.
const REUSED_PID_S: f64 = 1.0;
/// The row of an interval in which a writer was much slower replaces a kept one only after this
/// time, seconds: a writer is not slow because the volume has just become full.
const SLOW_ROW_S: f64 = 10.0;
/// If one interval frees more than this share of the summed growth, the culprits from before it are
/// kept.
const CLEANUP_SHARE: f64 = 0.5;
/// Maximum number of culprits in an event.
pub(super) const MAX_CULPRITS: usize = 3;

#[derive(Debug, Clone)]
struct Entry<T> {
    row: T,
    /// Growth of that row, bytes per second, and the time of its interval.
    rate: f64,
    at_s: f64,
    /// Bytes grown, decaying with the time constants [`TIME_CONSTANTS_S`].
    grown: [f64; 2],
}

/// A group as a culprit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GroupCulprit {
    pub(super) group: Group,
    pub(super) growth_bytes_per_s: f64,
    pub(super) processes: u64,
    pub(super) directory: Option<String>,
    /// Share of the growth of all groups, 0..1.
    pub(super) share: f64,
}

/// The culprits from before most of the space was freed: a program that runs out of space removes
/// its files when it exits, and then no process shows any growth.
#[derive(Debug, Clone)]
struct BeforeCleanup {
    culprits: (Vec<Writer>, f64),
    group: Option<GroupCulprit>,
    /// Bytes grown by all writers, decaying with the time constants [`TIME_CONSTANTS_S`].
    grown: [f64; 2],
}

/// The growth of one volume's writers (by pid) and groups (by kind and name).
#[derive(Debug, Clone, Default)]
pub(super) struct Culprits {
    writers: HashMap<u32, Entry<Writer>>,
    groups: HashMap<(GroupKind, String), Entry<GroupRow>>,
    before_cleanup: Option<BeforeCleanup>,
}

impl Culprits {
    /// Decays all sums by `dt` seconds and drops entries that have become negligible.
    pub(super) fn decay(&mut self, dt: f64) {
        let keep = TIME_CONSTANTS_S.map(|constant| (-dt.max(0.0) / constant).exp());
        let decayed = |grown: &mut [f64; 2]| {
            grown.iter_mut().zip(keep).for_each(|(sum, keep)| *sum *= keep);
            grown[1] >= 4096.0
        };
        if self.before_cleanup.as_mut().is_some_and(|before| !decayed(&mut before.grown)) {
            self.before_cleanup = None;
        }
        self.writers.retain(|_, entry| decayed(&mut entry.grown));
        self.groups.retain(|_, entry| decayed(&mut entry.grown));
        if self.writers.len() > MAX_WRITERS {
            let mut least: Vec<_> = self.writers.iter().map(|(k, e)| (e.grown[1], *k)).collect();
            least.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (_, key) in &least[MAX_WRITERS / 2..] {
                self.writers.remove(key);
            }
        }
    }

    /// Adds the rows of one interval of `dt` seconds that ends at `now`, largest growth first.
    pub(super) fn update(&mut self, now: f64, dt: f64, writers: &[&Writer], groups: &[&GroupRow]) {
        self.keep_before_cleanup(dt, writers);
        for (rank, &row) in writers.iter().enumerate() {
            let is_another = self.writers.get(&row.pid).is_some_and(|entry| {
                let apart = row.start_time.duration_since(entry.row.start_time);
                apart.as_secs_f64().abs() >= REUSED_PID_S
            });
            if is_another {
                self.writers.remove(&row.pid);
            }
            match self.writers.get_mut(&row.pid) {
                Some(entry) => {
                    entry.add(now, dt, row, row.growth_bytes_per_s);
                    entry.row.alive = row.alive;
                }
                None if row.growth_bytes_per_s > 0.0 && rank < MAX_NEW_WRITERS => {
                    let entry = Entry::new(now, dt, row, row.growth_bytes_per_s);
                    self.writers.insert(row.pid, entry);
                }
                None => {}
            }
        }
        for &row in groups {
            let key = (row.group.kind, row.group.name.clone());
            match self.groups.get_mut(&key) {
                Some(entry) => entry.add(now, dt, row, row.charged_growth()),
                None if row.charged_growth() > 0.0 => {
                    self.groups.insert(key, Entry::new(now, dt, row, row.charged_growth()));
                }
                None => {}
            }
        }
    }

    /// Keeps the present culprits if this interval frees most of the growth, and updates which of
    /// the kept ones still run.
    fn keep_before_cleanup(&mut self, dt: f64, writers: &[&Writer]) {
        let mut freed = 0.0;
        for row in writers {
            let grown = self.writers.get(&row.pid).map_or(0.0, |entry| entry.grown[0]);
            freed += (-row.growth_bytes_per_s * dt).clamp(0.0, grown);
        }
        let grown = [0, 1].map(|n| self.writers.values().map(|entry| entry.grown[n]).sum());
        let is_more = self.before_cleanup.as_ref().is_none_or(|before| before.grown[0] < grown[0]);
        if freed > CLEANUP_SHARE * grown[0] && is_more {
            let (culprits, group) = (self.culprits(true), self.group(true));
            self.before_cleanup = Some(BeforeCleanup { culprits, group, grown });
        }
        for kept in self.before_cleanup.iter_mut().flat_map(|before| &mut before.culprits.0) {
            if let Some(row) = writers.iter().find(|row| row.pid == kept.pid) {
                kept.alive = row.alive;
            }
        }
    }

    /// The kept culprits, if they grew by more than all growth since.
    fn freed_since(&self, urgent: bool) -> Option<&BeforeCleanup> {
        let n = usize::from(!urgent);
        let now: f64 = self.writers.values().map(|entry| entry.grown[n]).sum();
        self.before_cleanup.as_ref().filter(|before| before.grown[n] > now)
    }

    /// At most [`MAX_CULPRITS`] writers, largest growth first, with the first one's share of all
    /// growth. `urgent` ranks by the last seconds, otherwise by the last quarter of an hour.
    pub(super) fn culprits(&self, urgent: bool) -> (Vec<Writer>, f64) {
        if let Some(before) = self.freed_since(urgent) {
            return before.culprits.clone();
        }
        let mut rows: Vec<_> = ranked(&self.writers, urgent);
        let total: f64 = rows.iter().map(|(sum, _)| sum).sum();
        let most = rows.first().map_or(0.0, |(sum, _)| *sum);
        // If the growth is spread over many writers, the first one is still named.
        rows.retain(|(sum, _)| *sum >= (MIN_SHARE * total).min(most));
        rows.truncate(MAX_CULPRITS);
        (rows.into_iter().map(|(_, row)| row.clone()).collect(), most / total.max(1.0))
    }

    /// The group that grows most; `urgent` as for [`Culprits::culprits`].
    pub(super) fn group(&self, urgent: bool) -> Option<GroupCulprit> {
        if let Some(before) = self.freed_since(urgent) {
            return before.group.clone();
        }
        let rows = ranked(&self.groups, urgent);
        let total: f64 = rows.iter().map(|(sum, _)| sum).sum();
        let (sum, row) = rows.first()?;
        Some(GroupCulprit {
            group: row.group.clone(),
            growth_bytes_per_s: row.charged_growth(),
            processes: row.processes,
            directory: row.directory.clone(),
            share: sum / total,
        })
    }
}

impl<T: Clone> Entry<T> {
    fn new(now: f64, dt: f64, row: &T, rate: f64) -> Self {
        Self { row: row.clone(), rate, at_s: now, grown: [rate * dt; 2] }
    }

    fn add(&mut self, now: f64, dt: f64, row: &T, rate: f64) {
        self.grown.iter_mut().for_each(|sum| *sum = (*sum + rate * dt).max(0.0));
        // The row of a pause does not show how fast the writer was.
        let is_slow = rate < 0.5 * self.rate && now - self.at_s < SLOW_ROW_S;
        if rate > 0.0 && !is_slow {
            (self.row, self.rate, self.at_s) = (row.clone(), rate, now);
        }
    }
}

/// The entries with growth, largest first. If nothing grew lately, the longer time constant is used.
fn ranked<K, T>(entries: &HashMap<K, Entry<T>>, urgent: bool) -> Vec<(f64, &T)>
where
    K: Ord,
{
    let lately = urgent && entries.values().any(|entry| entry.grown[0] >= 1.0);
    let mut rows: Vec<_> = entries
        .iter()
        .map(|(key, entry)| (entry.grown[usize::from(!lately)], key, &entry.row))
        .filter(|(sum, ..)| *sum > 0.0)
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    rows.into_iter().map(|(sum, _, row)| (sum, row)).collect()
}
