//! The history kept in memory: bounded in time and bytes, coarser the older it is.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::snapshot::{Group, Snapshot};
use jiff::Timestamp;

use super::merge;

/// How much history to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Longest time span, seconds.
    pub seconds: f64,
    /// Most memory, bytes.
    pub bytes: usize,
}

impl Default for Limits {
    /// One hour, in at most 64 MiB.
    fn default() -> Self {
        Self { seconds: 3600.0, bytes: 64 << 20 }
    }
}

struct Entry {
    snapshot: Arc<Snapshot>,
    bytes: usize,
}

/// Snapshots, oldest first.
///
/// When they exceed the memory limit, neighbours in the older half are merged: twice as coarse,
/// half as large, with every byte still counted.
pub struct History {
    entries: VecDeque<Entry>,
    limits: Limits,
    bytes: usize,
}

impl History {
    /// An empty history.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { entries: VecDeque::new(), limits, bytes: 0 }
    }

    /// Appends the newest Snapshot, of which only the largest rows are kept.
    pub fn push(&mut self, snapshot: Arc<Snapshot>) {
        let snapshot = if merge::exceeds_row_limit(&snapshot) {
            Arc::new(merge::truncated(&snapshot))
        } else {
            snapshot
        };
        // After the clock was set back, newer entries would lie in the future.
        while self.newest().is_some_and(|newest| newest.taken_at >= snapshot.taken_at) {
            self.pop_back();
        }
        let oldest = merge::seconds_before(snapshot.taken_at, self.limits.seconds);
        while self.entries.front().is_some_and(|entry| entry.snapshot.taken_at < oldest) {
            self.pop_front();
        }
        let bytes = memory_bytes(&snapshot);
        self.bytes += bytes;
        self.entries.push_back(Entry { snapshot, bytes });
        while self.bytes > self.limits.bytes && self.entries.len() > 1 {
            if self.entries.len() < 8 {
                self.pop_front();
            } else {
                self.coarsen();
            }
        }
    }

    /// Inserts another history before this one, within this one's limits.
    pub fn prepend(&mut self, mut past: Self) {
        past.limits = self.limits;
        let later = std::mem::replace(self, past);
        for entry in later.entries {
            self.push(entry.snapshot);
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.bytes;
        }
    }

    fn pop_back(&mut self) {
        if let Some(entry) = self.entries.pop_back() {
            self.bytes -= entry.bytes;
        }
    }

    /// Merges pairs in the older half; if that frees nothing, drops the oldest entry.
    fn coarsen(&mut self) {
        let before = self.bytes;
        let half = self.entries.len() / 2;
        let old: Vec<Entry> = self.entries.drain(..half).collect();
        let merged: Vec<Entry> = old
            .chunks(2)
            .filter_map(|pair| {
                let snapshot = merge::merge(pair.iter().map(|entry| &*entry.snapshot))?;
                Some(Entry { bytes: memory_bytes(&snapshot), snapshot: Arc::new(snapshot) })
            })
            .collect();
        for entry in merged.into_iter().rev() {
            self.entries.push_front(entry);
        }
        self.bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        if self.bytes >= before {
            self.pop_front();
        }
    }

    /// The newest Snapshot, if any.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<Snapshot>> {
        self.entries.back().map(|entry| &entry.snapshot)
    }

    /// Memory used, bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Seconds from the start of the oldest Snapshot to the end of the newest.
    #[must_use]
    pub fn span_s(&self) -> f64 {
        match (self.entries.front(), self.newest()) {
            (Some(oldest), Some(newest)) => (newest.taken_at
                - merge::window_start(&oldest.snapshot))
            .total(jiff::Unit::Second)
            .unwrap_or(0.0),
            _ => 0.0,
        }
    }

    /// Index of the last Snapshot taken at or before `time`; the oldest if there is none.
    fn index(&self, time: Timestamp) -> usize {
        self.entries.partition_point(|entry| entry.snapshot.taken_at <= time).saturating_sub(1)
    }

    /// The Snapshot to show for `time`.
    #[must_use]
    pub fn at(&self, time: Timestamp) -> Option<&Arc<Snapshot>> {
        self.entries.get(self.index(time)).map(|entry| &entry.snapshot)
    }

    /// The time of the Snapshot `steps` after the one at `time`; `None` if that is the newest.
    #[must_use]
    pub fn step(&self, time: Timestamp, steps: i32) -> Option<Timestamp> {
        let to = self.index(time).saturating_add_signed(steps as isize);
        let entry = self.entries.get(to).filter(|_| to + 1 < self.entries.len())?;
        Some(entry.snapshot.taken_at)
    }

    /// The Snapshots taken at or before `time`, newest first.
    pub fn until(&self, time: Timestamp) -> impl Iterator<Item = &Arc<Snapshot>> {
        let end = (self.index(time) + 1).min(self.entries.len());
        self.entries.range(..end).rev().map(|entry| &entry.snapshot)
    }
}

/// Memory used by a Snapshot, bytes: its rows and their strings.
#[must_use]
pub fn memory_bytes(snapshot: &Snapshot) -> usize {
    fn text(text: &String) -> usize {
        text.capacity()
    }
    fn maybe(text: Option<&String>) -> usize {
        text.map_or(0, String::capacity)
    }
    let rows = size_of::<Snapshot>()
        + size_of_val(&*snapshot.volumes)
        + size_of_val(&*snapshot.writers)
        + size_of_val(&*snapshot.dirs)
        + size_of_val(&*snapshot.paths)
        + size_of_val(&*snapshot.held)
        + size_of_val(&*snapshot.victims)
        + size_of_val(&*snapshot.backend.hooks);
    let hooks =
        snapshot.backend.hooks.iter().map(|hook| text(&hook.name) + hook.how.name().len() + 32);
    let volumes = snapshot.volumes.iter().map(|volume| {
        text(&volume.mount_point)
            + text(&volume.device)
            + text(&volume.fs_type)
            + text(&volume.limit)
            + volume.mount_points.iter().map(|mount| text(mount) + 24).sum::<usize>()
    });
    let group = |group: Option<&Group>| {
        let size = |group: &Group| text(&group.name) + maybe(group.cgroup.as_ref());
        group.map_or(0, size)
    };
    let writers = snapshot.writers.iter().map(|writer| {
        text(&writer.comm)
            + maybe(writer.exe.as_ref())
            + maybe(writer.cmdline.as_ref())
            + maybe(writer.user.as_ref())
            + text(&writer.volume)
            + group(writer.group.as_ref())
    });
    let dirs = snapshot.dirs.iter().map(|dir| text(&dir.path) + text(&dir.volume));
    let paths = snapshot.paths.iter().map(|path| {
        text(&path.path)
            + maybe(path.path_in_container.as_ref())
            + text(&path.volume)
            + text(&path.dev)
            + size_of_val(&*path.writers)
    });
    let held = snapshot.held.iter().map(|held| {
        text(&held.comm)
            + text(&held.path)
            + maybe(held.path_in_container.as_ref())
            + group(held.group.as_ref())
            + text(&held.volume)
            + size_of_val(&*held.holders)
    });
    let victims = snapshot.victims.iter().map(|victim| text(&victim.comm) + text(&victim.volume));
    rows + hooks.sum::<usize>()
        + volumes.sum::<usize>()
        + writers.sum::<usize>()
        + dirs.sum::<usize>()
        + paths.sum::<usize>()
        + held.sum::<usize>()
        + victims.sum::<usize>()
}
