//! Merges two rows of the same item.

use std::collections::HashMap;
use std::hash::Hash;

use crate::snapshot::{
    Directory, Fsync, GroupRow, OnBehalf, PathRow, SpaceChange, Victim, Volume, WriteErrors, Writer,
};

/// Smallest change of used space, bytes, for which `explained` is meaningful.
const EXPLAINED_MIN_BYTES: u64 = 1 << 20;

/// Lengths of the two merged windows, seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowLengths {
    pub(super) before: f64,
    pub(super) after: f64,
}

impl WindowLengths {
    pub(super) fn both(self) -> f64 {
        self.before + self.after
    }

    /// The mean rate over both windows.
    pub(super) fn mean(self, before: f64, after: f64) -> f64 {
        if self.both() > 0.0 {
            (before * self.before + after * self.after) / self.both()
        } else {
            after
        }
    }
}

/// The rows of both parts, with rows of the same item merged by `merge_row`.
///
/// A row that is in only one part counts as zero in the other: `merge_row` gets its
/// [`Row::zeroed`].
pub(super) fn merge_tables<T: Row, K: Hash + Eq>(
    earlier: Vec<T>,
    later: &[T],
    key: impl Fn(&T) -> K,
    merge_row: impl Fn(&T, &T) -> T,
) -> Vec<T> {
    let mut index_by_key: HashMap<K, usize> = HashMap::with_capacity(earlier.len());
    for (i, row) in earlier.iter().enumerate() {
        index_by_key.insert(key(row), i);
    }
    let mut partner: Vec<Option<usize>> = vec![None; earlier.len()];
    let mut new = vec![];
    for (i, row) in later.iter().enumerate() {
        match index_by_key.get(&key(row)) {
            Some(&at) => partner[at] = Some(i),
            None => new.push(merge_row(&row.zeroed(), row)),
        }
    }
    let mut rows: Vec<T> = earlier
        .iter()
        .zip(partner)
        .map(|(row, partner)| match partner {
            Some(i) => merge_row(row, &later[i]),
            None => merge_row(row, &row.zeroed()),
        })
        .collect();
    rows.append(&mut new);
    rows
}

/// A row that has an all-zero copy of itself.
pub(super) trait Row {
    fn zeroed(&self) -> Self;
}

impl Row for Writer {
    fn zeroed(&self) -> Self {
        Self {
            written_bytes: 0,
            allocated_bytes: self.allocated_bytes.map(|_| 0),
            freed_bytes: self.freed_bytes.map(|_| 0),
            written_bytes_per_s: 0.0,
            growth_bytes_per_s: 0.0,
            share: 0.0,
            files: 0,
            inodes_created: self.inodes_created.map(|_| 0),
            inodes_removed: self.inodes_removed.map(|_| 0),
            errors: WriteErrors::default(),
            fsync: self.fsync.map(|_| Fsync::default()),
            on_behalf_of: Vec::new(),
            ..self.clone()
        }
    }
}

impl Row for Directory {
    fn zeroed(&self) -> Self {
        Self {
            inflow_bytes_per_s: 0.0,
            outflow_bytes_per_s: 0.0,
            drain: None,
            files_created: self.files_created.map(|_| 0),
            files_removed: self.files_removed.map(|_| 0),
            ..self.clone()
        }
    }
}

impl Row for PathRow {
    fn zeroed(&self) -> Self {
        Self {
            written_bytes: 0,
            allocated_bytes: self.allocated_bytes.map(|_| 0),
            freed_bytes: self.freed_bytes.map(|_| 0),
            growth_bytes_per_s: 0.0,
            ..self.clone()
        }
    }
}

impl Row for GroupRow {
    fn zeroed(&self) -> Self {
        Self {
            written_bytes: 0,
            written_bytes_per_s: 0.0,
            growth_bytes_per_s: 0.0,
            share: 0.0,
            files_created: 0,
            files_removed: 0,
            log_bytes_per_s: 0.0,
            log_growth_bytes_per_s: 0.0,
            on_behalf_growth_bytes_per_s: 0.0,
            ..self.clone()
        }
    }
}

impl Row for Victim {
    fn zeroed(&self) -> Self {
        Self {
            errors: WriteErrors::default(),
            waiting_ms: self.waiting_ms.map(|_| 0.0),
            ..self.clone()
        }
    }
}

pub(super) fn group(earlier: &GroupRow, later: &GroupRow, lengths: WindowLengths) -> GroupRow {
    let mean = |of: fn(&GroupRow) -> f64| lengths.mean(of(earlier), of(later));
    GroupRow {
        written_bytes: earlier.written_bytes.saturating_add(later.written_bytes),
        files_created: earlier.files_created.saturating_add(later.files_created),
        files_removed: earlier.files_removed.saturating_add(later.files_removed),
        written_bytes_per_s: mean(|row| row.written_bytes_per_s),
        growth_bytes_per_s: mean(|row| row.growth_bytes_per_s),
        share: mean(|row| row.share),
        log_bytes_per_s: mean(|row| row.log_bytes_per_s),
        log_growth_bytes_per_s: mean(|row| row.log_growth_bytes_per_s),
        on_behalf_growth_bytes_per_s: mean(|row| row.on_behalf_growth_bytes_per_s),
        first_seen: earlier.first_seen.min(later.first_seen),
        ..later.clone()
    }
}

fn add_known(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a?.saturating_add(b?))
}

fn errors(a: WriteErrors, b: WriteErrors) -> WriteErrors {
    WriteErrors {
        enospc: a.enospc.saturating_add(b.enospc),
        edquot: a.edquot.saturating_add(b.edquot),
        eio: a.eio.saturating_add(b.eio),
        other: a.other.saturating_add(b.other),
        short: a.short.saturating_add(b.short),
    }
}

/// The zero row of a volume that is new in the later Snapshot.
pub(super) fn zeroed_volume(volume: &Volume) -> Volume {
    Volume {
        written_bytes: 0,
        allocated_bytes: volume.allocated_bytes.map(|_| 0),
        freed_bytes: volume.freed_bytes.map(|_| 0),
        used_delta_bytes: 0,
        inodes_delta: 0,
        was_full: false,
        growth_bytes_per_s: 0.0,
        ..volume.clone()
    }
}

pub(super) fn volume(earlier: &Volume, later: &Volume, lengths: WindowLengths) -> Volume {
    let allocated_bytes = add_known(earlier.allocated_bytes, later.allocated_bytes);
    let freed_bytes = add_known(earlier.freed_bytes, later.freed_bytes);
    let used_delta_bytes = earlier.used_delta_bytes.saturating_add(later.used_delta_bytes);
    let explained = match (allocated_bytes, freed_bytes) {
        (Some(allocated), Some(freed))
            if used_delta_bytes.unsigned_abs() >= EXPLAINED_MIN_BYTES =>
        {
            let delta = used_delta_bytes as f64;
            let growth = allocated as f64 - freed as f64;
            Some((1.0 - (delta - growth).abs() / delta.abs()).max(0.0))
        }
        _ => None,
    };
    let merged = Volume {
        written_bytes: earlier.written_bytes.saturating_add(later.written_bytes),
        allocated_bytes,
        freed_bytes,
        used_delta_bytes,
        inodes_delta: earlier.inodes_delta.saturating_add(later.inodes_delta),
        was_full: earlier.was_full || later.was_full,
        growth_bytes_per_s: lengths.mean(earlier.growth_bytes_per_s, later.growth_bytes_per_s),
        explained,
        ..later.clone()
    };
    let blind = SpaceChange::of(&merged, lengths.both()).blind(later.gap);
    let growth_bytes_per_s = match blind {
        Some(_) if lengths.both() > 0.0 => used_delta_bytes as f64 / lengths.both(),
        _ => merged.growth_bytes_per_s,
    };
    // A change too small to judge over this window may be large enough over the period that the
    // later Snapshot judged.
    Volume { blind: blind.or(later.blind), growth_bytes_per_s, ..merged }
}

pub(super) fn writer(earlier: &Writer, later: &Writer, lengths: WindowLengths) -> Writer {
    Writer {
        written_bytes: earlier.written_bytes.saturating_add(later.written_bytes),
        allocated_bytes: add_known(earlier.allocated_bytes, later.allocated_bytes),
        freed_bytes: add_known(earlier.freed_bytes, later.freed_bytes),
        written_bytes_per_s: lengths.mean(earlier.written_bytes_per_s, later.written_bytes_per_s),
        growth_bytes_per_s: lengths.mean(earlier.growth_bytes_per_s, later.growth_bytes_per_s),
        files: earlier.files.max(later.files),
        inodes_created: add_known(earlier.inodes_created, later.inodes_created),
        inodes_removed: add_known(earlier.inodes_removed, later.inodes_removed),
        errors: errors(earlier.errors, later.errors),
        // A window without fsync calls must not discard those of the other.
        fsync: earlier.fsync.into_iter().chain(later.fsync).reduce(|a, b| Fsync {
            count: a.count.saturating_add(b.count),
            max_ms: a.max_ms.max(b.max_ms),
            p99_ms: a.p99_ms.max(b.p99_ms),
        }),
        on_behalf_of: on_behalf(&earlier.on_behalf_of, &later.on_behalf_of, lengths),
        ..later.clone()
    }
}

/// Sums per container, largest growth first.
fn on_behalf(earlier: &[OnBehalf], later: &[OnBehalf], lengths: WindowLengths) -> Vec<OnBehalf> {
    let none = |row: &OnBehalf| OnBehalf {
        written_bytes: 0,
        written_bytes_per_s: 0.0,
        growth_bytes_per_s: 0.0,
        ..row.clone()
    };
    let mut rows: Vec<OnBehalf> = earlier.to_vec();
    rows.extend(
        later.iter().filter(|row| earlier.iter().all(|one| one.group != row.group)).map(none),
    );
    for row in &mut rows {
        let of = later.iter().find(|one| one.group == row.group).cloned();
        let of = of.unwrap_or_else(|| none(row));
        row.written_bytes = row.written_bytes.saturating_add(of.written_bytes);
        row.written_bytes_per_s = lengths.mean(row.written_bytes_per_s, of.written_bytes_per_s);
        row.growth_bytes_per_s = lengths.mean(row.growth_bytes_per_s, of.growth_bytes_per_s);
    }
    rows.sort_by(|a, b| b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s));
    rows
}

pub(super) fn directory(
    earlier: &Directory,
    later: &Directory,
    lengths: WindowLengths,
) -> Directory {
    let inflow = lengths.mean(earlier.inflow_bytes_per_s, later.inflow_bytes_per_s);
    let outflow = lengths.mean(earlier.outflow_bytes_per_s, later.outflow_bytes_per_s);
    Directory {
        inflow_bytes_per_s: inflow,
        outflow_bytes_per_s: outflow,
        drain: (inflow > 0.0).then(|| outflow / inflow),
        files_created: add_known(earlier.files_created, later.files_created),
        files_removed: add_known(earlier.files_removed, later.files_removed),
        ..later.clone()
    }
}

pub(super) fn path(earlier: &PathRow, later: &PathRow, lengths: WindowLengths) -> PathRow {
    let mut writers = later.writers.clone();
    writers.extend(earlier.writers.iter().filter(|pid| !later.writers.contains(pid)));
    PathRow {
        written_bytes: earlier.written_bytes.saturating_add(later.written_bytes),
        allocated_bytes: add_known(earlier.allocated_bytes, later.allocated_bytes),
        freed_bytes: add_known(earlier.freed_bytes, later.freed_bytes),
        growth_bytes_per_s: lengths.mean(earlier.growth_bytes_per_s, later.growth_bytes_per_s),
        size_bytes: later.size_bytes.or(earlier.size_bytes.filter(|_| !later.deleted)),
        space_bytes: later.space_bytes.or(earlier.space_bytes.filter(|_| !later.deleted)),
        deleted: earlier.deleted || later.deleted,
        approximate: earlier.approximate || later.approximate,
        writers,
        ..later.clone()
    }
}

pub(super) fn victim(earlier: &Victim, later: &Victim) -> Victim {
    Victim {
        errors: errors(earlier.errors, later.errors),
        waiting_ms: earlier.waiting_ms.zip(later.waiting_ms).map(|(a, b)| a + b),
        ..later.clone()
    }
}
