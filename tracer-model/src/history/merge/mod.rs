//! Merges Snapshots: longer windows for rates, and a coarser history.

mod rows;

use std::collections::HashMap;

use crate::snapshot::{PathRow, Snapshot, Verdict, Volume, Writer, share_base, space_is_late};
use crate::verdict::over_both;
use jiff::Timestamp;

use self::rows::{
    WindowLengths, directory, group, merge_tables, path, victim, volume, writer, zeroed_volume,
};

/// Most rows in a table of a merged Snapshot, largest first. Rows beyond that stay in the volumes'
/// totals; the bytes of such writers are added to `unattributed_bytes`.
pub const MAX_ROWS: usize = 2000;

/// Merges the Snapshot that follows `sum` into it: totals are added, gauges are those of the later
/// one, rates are averaged over both windows.
///
/// Two values cannot be derived from the parts and are bounds: `files` of a writer is the maximum
/// of the parts (a lower bound), the 99th percentile of fsync the maximum (an upper bound).
pub fn add(sum: &mut Snapshot, next: &Snapshot) {
    let lengths = WindowLengths { before: sum.interval_s, after: next.interval_s };
    let mut backend = next.backend.clone();
    // Lost events count since the start, unattributed bytes in each interval.
    backend.lost_events = backend.lost_events.max(sum.backend.lost_events);
    backend.unattributed_bytes =
        backend.unattributed_bytes.saturating_add(sum.backend.unattributed_bytes);

    let volumes: HashMap<&str, &Volume> =
        sum.volumes.iter().map(|volume| (&*volume.mount_point, volume)).collect();
    let volumes = next
        .volumes
        .iter()
        .map(|later| match volumes.get(&*later.mount_point) {
            Some(earlier) => volume(earlier, later, lengths),
            None => volume(&zeroed_volume(later), later, lengths),
        })
        .collect();

    let mut writers = merge_tables(
        std::mem::take(&mut sum.writers),
        &next.writers,
        |row| (row.pid, row.start_time, row.volume.clone()),
        |earlier, later| writer(earlier, later, lengths),
    );
    let mut dirs = merge_tables(
        std::mem::take(&mut sum.dirs),
        &next.dirs,
        |row| (row.path.clone(), row.volume.clone()),
        |earlier, later| directory(earlier, later, lengths),
    );
    let mut paths = merge_tables(
        std::mem::take(&mut sum.paths),
        &next.paths,
        |row| (row.dev.clone(), row.ino, row.path.clone()),
        |earlier, later| path(earlier, later, lengths),
    );
    let victims = merge_tables(
        std::mem::take(&mut sum.victims),
        &next.victims,
        |row| (row.pid, row.volume.clone()),
        victim,
    );
    let mut ended = std::mem::take(&mut sum.ended);
    ended.extend(&next.ended);
    let groups = merge_tables(
        std::mem::take(&mut sum.groups),
        &next.groups,
        |row| (row.group.clone(), row.volume.clone()),
        |earlier, later| group(earlier, later, lengths),
    );

    let verdicts: HashMap<String, Verdict> = std::mem::take(&mut sum.volumes)
        .into_iter()
        .filter_map(|volume| Some((volume.mount_point, volume.verdict?)))
        .collect();

    writers.sort_by(|a, b| b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s));
    dirs.sort_by(|a, b| b.inflow_bytes_per_s.total_cmp(&a.inflow_bytes_per_s));
    paths.sort_by(PathRow::by_growth);
    *sum = Snapshot {
        schema: next.schema,
        host: next.host.clone(),
        taken_at: next.taken_at,
        interval_s: lengths.both(),
        backend,
        volumes,
        writers,
        ended,
        dirs,
        paths,
        held: next.held.clone(),
        uninspected_processes: next.uninspected_processes,
        victims,
        groups,
        residents: next.residents.clone(),
    };
    truncate_tables(sum);
    update_shares(sum);
    update_verdicts(sum, &verdicts);
}

/// Adds what `before` concludes of the intervals before the last one, by mount point: a volume that was
/// full in one of them was full.
fn update_verdicts(snapshot: &mut Snapshot, before: &HashMap<String, Verdict>) {
    let changed: Vec<Option<Verdict>> = snapshot
        .volumes
        .iter()
        .map(|volume| over_both(snapshot, volume, before.get(&volume.mount_point)?))
        .collect();
    for (volume, verdict) in snapshot.volumes.iter_mut().zip(changed) {
        if verdict.is_some() {
            volume.verdict = verdict;
        }
    }
}

/// Replaces the verdicts by those of another Snapshot, for a view of a longer interval that says what is
/// so at its end.
pub fn set_verdicts(snapshot: &mut Snapshot, of: &Snapshot) {
    for volume in &mut snapshot.volumes {
        let same = of.volumes.iter().find(|other| other.mount_point == volume.mount_point);
        if let Some(same) = same {
            volume.verdict.clone_from(&same.verdict);
        }
    }
}

/// Whether a table has more than [`MAX_ROWS`] rows.
#[must_use]
pub fn exceeds_row_limit(snapshot: &Snapshot) -> bool {
    let Snapshot { writers, dirs, paths, .. } = snapshot;
    [writers.len(), dirs.len(), paths.len()].into_iter().any(|rows| rows > MAX_ROWS)
}

/// Truncates the tables to [`MAX_ROWS`].
fn truncate_tables(snapshot: &mut Snapshot) {
    let Snapshot { backend, writers, dirs, paths, .. } = snapshot;
    let cut = writers.get(MAX_ROWS..).unwrap_or_default();
    backend.unattributed_bytes = backend.unattributed_bytes.saturating_add(written(cut));
    writers.truncate(MAX_ROWS);
    dirs.truncate(MAX_ROWS);
    paths.truncate(MAX_ROWS);
}

fn written(writers: &[Writer]) -> u64 {
    writers.iter().fold(0, |sum, writer| sum.saturating_add(writer.written_bytes))
}

/// Returns a copy of the Snapshot with at most [`MAX_ROWS`] rows in each table.
#[must_use]
pub fn truncated(snapshot: &Snapshot) -> Snapshot {
    fn first<T: Clone>(rows: &[T]) -> Vec<T> {
        rows[..rows.len().min(MAX_ROWS)].to_vec()
    }
    let mut backend = snapshot.backend.clone();
    let cut = snapshot.writers.get(MAX_ROWS..).unwrap_or_default();
    backend.unattributed_bytes = backend.unattributed_bytes.saturating_add(written(cut));
    Snapshot {
        schema: snapshot.schema,
        host: snapshot.host.clone(),
        taken_at: snapshot.taken_at,
        interval_s: snapshot.interval_s,
        backend,
        volumes: snapshot.volumes.clone(),
        writers: first(&snapshot.writers),
        ended: first(&snapshot.ended),
        dirs: first(&snapshot.dirs),
        paths: first(&snapshot.paths),
        held: snapshot.held.clone(),
        uninspected_processes: snapshot.uninspected_processes,
        victims: snapshot.victims.clone(),
        groups: snapshot.groups.clone(),
        residents: snapshot.residents.clone(),
    }
}

/// Recomputes each writer's share of what was taken on its volume.
fn update_shares(snapshot: &mut Snapshot) {
    let mut growths: HashMap<&str, Vec<f64>> = HashMap::new();
    for writer in &snapshot.writers {
        growths.entry(&writer.volume).or_default().push(writer.growth_bytes_per_s);
    }
    let mut taken: HashMap<String, f64> = HashMap::new();
    for volume in &snapshot.volumes {
        let growths = growths.get(&*volume.mount_point).map_or(&[][..], Vec::as_slice);
        let per_s = volume.used_delta_bytes as f64 / snapshot.interval_s.max(f64::MIN_POSITIVE);
        let used = if space_is_late(&volume.fs_type) { 0.0 } else { per_s };
        let all = share_base(growths.iter().copied(), used);
        // A blind volume's growth is known to be more than what is attributed.
        let blind = volume.blind.map_or(0.0, |_| volume.growth_bytes_per_s);
        taken.insert(volume.mount_point.clone(), all.max(blind));
    }
    for writer in &mut snapshot.writers {
        let all = taken.get(&writer.volume).copied().unwrap_or(0.0);
        writer.share = if all > 0.0 { writer.growth_bytes_per_s.max(0.0) / all } else { 0.0 };
    }
}

/// Merges the Snapshots into one; `None` if there are none.
pub fn merge<'s>(snapshots: impl IntoIterator<Item = &'s Snapshot>) -> Option<Snapshot> {
    let mut snapshots = snapshots.into_iter();
    let mut sum = snapshots.next()?.clone();
    for next in snapshots {
        add(&mut sum, next);
    }
    Some(sum)
}

/// The start of this Snapshot's window.
#[must_use]
pub fn window_start(snapshot: &Snapshot) -> Timestamp {
    seconds_before(snapshot.taken_at, snapshot.interval_s)
}

/// The time `seconds` before `time`, or the earliest representable one.
#[must_use]
pub fn seconds_before(time: Timestamp, seconds: f64) -> Timestamp {
    let span = jiff::SignedDuration::try_from_secs_f64(seconds).unwrap_or_default();
    time.checked_sub(span).unwrap_or(Timestamp::MIN)
}
