//! Who fills a volume, evened out over more than one window: a burst of somebody else in the second
//! of the alert is not the cause, and a culprit stays named after it has ended.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::snapshot::{Group, GroupRow, Writer};

/// Time constants over which growth is summed up, seconds: for what is urgent, and for the rest.
const FADE_S: [f64; 2] = [20.0, 900.0];
/// Writers of a window that are looked at, largest growth first.
const LOOKED_AT: usize = 64;
/// Writers that are kept. At 64 new ones a window, those of the last seconds are among them.
const KEPT: usize = 256;
/// A writer with less than this share of the growth is no culprit.
const LEAST_SHARE: f64 = 0.05;
/// Culprits of an event.
pub(super) const CULPRITS: usize = 3;

#[derive(Debug, Clone)]
struct Entry<T> {
    row: T,
    /// Bytes grown, fading: see [`FADE_S`].
    grown: [f64; 2],
}

/// A group as a culprit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GroupBlame {
    pub(super) group: Group,
    pub(super) growth_bytes_per_s: f64,
    pub(super) processes: u64,
    pub(super) directory: Option<String>,
    /// Of all groups' growth.
    pub(super) share: f64,
}

/// The writers and groups of one volume.
#[derive(Debug, Clone, Default)]
pub(super) struct Blame {
    writers: HashMap<(u32, Timestamp), Entry<Writer>>,
    groups: HashMap<(String, String), Entry<GroupRow>>,
}

impl Blame {
    /// Lets `dt` seconds pass.
    pub(super) fn fade(&mut self, dt: f64) {
        let keep = FADE_S.map(|fade| (-dt.max(0.0) / fade).exp());
        let faded = |grown: &mut [f64; 2]| {
            grown.iter_mut().zip(keep).for_each(|(sum, keep)| *sum *= keep);
            grown[1] >= 4096.0
        };
        self.writers.retain(|_, entry| faded(&mut entry.grown));
        self.groups.retain(|_, entry| faded(&mut entry.grown));
        if self.writers.len() > KEPT {
            let mut least: Vec<_> = self.writers.iter().map(|(k, e)| (e.grown[1], *k)).collect();
            least.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (_, key) in &least[KEPT / 2..] {
                self.writers.remove(key);
            }
        }
    }

    /// Takes in the rows of one window of `dt` seconds, largest growth first.
    pub(super) fn see<'s>(
        &mut self,
        dt: f64,
        writers: impl Iterator<Item = &'s Writer>,
        groups: impl Iterator<Item = &'s GroupRow>,
    ) {
        for (rank, row) in writers.enumerate() {
            let grown = row.growth_bytes_per_s * dt;
            let key = (row.pid, row.start_time);
            match self.writers.get_mut(&key) {
                Some(entry) => {
                    add(&mut entry.grown, grown);
                    // The row of a pause says nothing about how fast it was.
                    if grown > 0.0 {
                        entry.row = row.clone();
                    } else {
                        entry.row.alive = row.alive;
                    }
                }
                None if grown > 0.0 && rank < LOOKED_AT => {
                    self.writers.insert(key, Entry { row: row.clone(), grown: [grown; 2] });
                }
                None => {}
            }
        }
        for row in groups {
            let grown = row.growth_bytes_per_s * dt;
            let key = (row.group.kind.clone(), row.group.name.clone());
            match self.groups.get_mut(&key) {
                Some(entry) => {
                    add(&mut entry.grown, grown);
                    if grown > 0.0 {
                        entry.row = row.clone();
                    }
                }
                None if grown > 0.0 => {
                    self.groups.insert(key, Entry { row: row.clone(), grown: [grown; 2] });
                }
                None => {}
            }
        }
    }

    /// At most [`CULPRITS`], largest growth first; `urgent` weighs the last seconds, else the last
    /// quarter of an hour.
    pub(super) fn culprits(&self, urgent: bool) -> Vec<Writer> {
        let mut rows: Vec<_> = ranked(&self.writers, urgent);
        let total: f64 = rows.iter().map(|(sum, _)| sum).sum();
        rows.retain(|(sum, _)| *sum >= LEAST_SHARE * total);
        rows.truncate(CULPRITS);
        rows.into_iter().map(|(_, row)| row.clone()).collect()
    }

    /// The group that grows most.
    pub(super) fn group(&self, urgent: bool) -> Option<GroupBlame> {
        let rows = ranked(&self.groups, urgent);
        let total: f64 = rows.iter().map(|(sum, _)| sum).sum();
        let (sum, row) = rows.first()?;
        Some(GroupBlame {
            group: row.group.clone(),
            growth_bytes_per_s: row.growth_bytes_per_s,
            processes: row.processes,
            directory: row.directory.clone(),
            share: sum / total,
        })
    }
}

fn add(sums: &mut [f64; 2], grown: f64) {
    sums.iter_mut().for_each(|sum| *sum = (*sum + grown).max(0.0));
}

/// Largest first. Where nobody grew lately, the longer time counts.
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
