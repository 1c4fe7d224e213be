//! Each group's share of a volume's growth, over the last seconds in which the volume grew. A full
//! volume no longer grows, so the seconds before it was full are kept.

use std::collections::{BTreeMap, VecDeque};

use crate::action::pattern::Pattern;
use crate::snapshot::{Group, GroupRow, Resource, Snapshot, Volume};
use crate::verdict::{GroupKey, group_key};

/// A volume that grows more slowly than this counts as idle, bytes per second.
const IDLE_BYTES_PER_S: f64 = 64.0 * 1024.0;
/// Growth older than this is discarded, seconds.
const MAX_AGE_S: f64 = 600.0;

/// Identifies a group as the verdict does.
pub(super) type Key = GroupKey;

pub(super) fn key(group: &Group) -> Key {
    group_key(group)
}

/// What a group took in an interval of `dt` seconds.
fn taken(row: &GroupRow, resource: Resource, dt: f64) -> f64 {
    match resource {
        Resource::Inodes => row.files_created as f64 - row.files_removed as f64,
        // A container's log counts as the container's growth and not as that of the runtime's
        // daemon, which writes it.
        Resource::Bytes => row.charged_growth() * dt,
    }
}

/// What a volume that counts as idle takes at most, per second: bytes, or inodes.
const fn idle_per_s(resource: Resource) -> f64 {
    match resource {
        Resource::Inodes => 1.0,
        Resource::Bytes => IDLE_BYTES_PER_S,
    }
}

/// A group with its share of the growth.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub(super) group: Group,
    /// Share of all growth in the span, 0..1.
    pub(super) share: f64,
    /// The smaller of the shares in the two halves of the span, 0..1.
    pub(super) least_share: f64,
    /// Mean growth over the span, bytes (or inodes) per second.
    pub(super) growth_bytes_per_s: f64,
    /// What that growth is counted in.
    pub(super) resource: Resource,
    /// Length of the span, seconds.
    pub(super) span_s: f64,
}

impl Candidate {
    pub(super) fn key(&self) -> Key {
        key(&self.group)
    }

    /// Creates a candidate whose growth is no longer recorded.
    pub(super) fn without_growth(group: Group) -> Self {
        Self {
            group,
            share: 0.0,
            least_share: 0.0,
            growth_bytes_per_s: 0.0,
            resource: Resource::Bytes,
            span_s: 0.0,
        }
    }
}

#[derive(Debug, Clone)]
struct Span {
    at_s: f64,
    dt: f64,
    grown: BTreeMap<Key, f64>,
}

/// The recorded growth of one volume.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    spans: VecDeque<Span>,
    groups: BTreeMap<Key, Group>,
    /// What the recorded growth is counted in.
    resource: Resource,
    /// Recorded time that is needed before there are candidates, seconds.
    length_s: f64,
}

impl Shares {
    /// Adds an interval of `dt` seconds. Only the last `length_s` seconds of growth are kept.
    pub(super) fn add(
        &mut self,
        now_s: f64,
        dt: f64,
        length_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        ignore: &[Pattern],
    ) {
        self.length_s = length_s;
        let resource = volume.verdict.as_ref().map_or(Resource::Bytes, |one| one.resource);
        if resource != self.resource {
            // Another limit runs out now, and what was taken of the first one does not count.
            self.spans.clear();
            self.resource = resource;
        }
        let mut grown = BTreeMap::new();
        for row in snapshot.groups.iter().filter(|row| row.volume == volume.mount_point) {
            let ignored = ignore.iter().any(|pattern| pattern.matches(&row.group.name));
            let taken = taken(row, resource, dt);
            if taken > 0.0 && !ignored {
                let key = key(&row.group);
                *grown.entry(key.clone()).or_insert(0.0) += taken;
                self.groups.insert(key, row.group.clone());
            }
        }
        if dt > 0.0 && grown.values().sum::<f64>() >= idle_per_s(resource) * dt {
            self.spans.push_back(Span { at_s: now_s, dt, grown });
        }
        while let Some(first) = self.spans.front() {
            let rest: f64 = self.spans.iter().skip(1).map(|span| span.dt).sum();
            if rest < length_s && now_s - first.at_s <= MAX_AGE_S {
                break;
            }
            self.spans.pop_front();
        }
        let spans = &self.spans;
        self.groups.retain(|key, _| spans.iter().any(|span| span.grown.contains_key(key)));
    }

    /// Returns all groups that grew, largest share first; empty while too little time is recorded.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let span_s: f64 = self.spans.iter().map(|span| span.dt).sum();
        if span_s < self.length_s {
            return Vec::new();
        }
        let (halves, totals) = self.halves(span_s);
        let mut candidates: Vec<Candidate> = self
            .groups
            .iter()
            .map(|(key, group)| {
                let grown = halves.get(key).copied().unwrap_or_default();
                let share = |half: usize| {
                    if totals[half] > 0.0 { grown[half] / totals[half] } else { 0.0 }
                };
                let total: f64 = grown.iter().sum();
                Candidate {
                    group: group.clone(),
                    share: total / totals.iter().sum::<f64>().max(1.0),
                    least_share: share(0).min(share(1)),
                    growth_bytes_per_s: total / span_s,
                    resource: self.resource,
                    span_s,
                }
            })
            .collect();
        candidates.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.group.cmp(&b.group)));
        candidates
    }

    /// Returns the candidate with this key.
    pub(super) fn of(&self, wanted: &Key) -> Option<Candidate> {
        self.candidates().into_iter().find(|candidate| candidate.key() == *wanted)
    }

    /// Discards the recorded growth after a group's processes have ended, so that later processes with
    /// the same name are not blamed for it.
    pub(super) fn forget(&mut self, key: &Key) {
        self.groups.remove(key);
        self.spans.clear();
    }

    /// Returns the growth of each group in the earlier and the later half of the span, and the totals.
    fn halves(&self, span_s: f64) -> (BTreeMap<&Key, [f64; 2]>, [f64; 2]) {
        let (mut sums, mut totals) = (BTreeMap::new(), [0.0; 2]);
        let mut passed = 0.0;
        for span in &self.spans {
            let half = usize::from(passed + span.dt / 2.0 >= span_s / 2.0);
            passed += span.dt;
            for (key, grown) in &span.grown {
                sums.entry(key).or_insert([0.0; 2])[half] += grown;
                totals[half] += grown;
            }
        }
        (sums, totals)
    }
}
