//! From what was counted to the [`Snapshot`] that everybody reads: roll-ups, shares and rates.

use std::{
    collections::{HashMap, HashSet},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use tracer_common::{
    Counters, ErrorKey, Errors, FileKey, PairKey, ProcKey, WaitKey, Waits, slot_flags,
};
use tracer_model::{
    forecast::{Forecast, Outcome},
    sanitize,
    snapshot::{Backend, Held, PathRow, SCHEMA, Snapshot, Volume, WriteErrors, Writer},
};

use crate::{
    attribute::{
        groups::Groups,
        paths::{self, Names},
        process::Processes,
        renames,
        users::Users,
        views::Views,
    },
    clock,
    collect::mounts::{MountedVolume, Space},
    rollup::{self, Sees, Waited},
};

/// What was counted in one window.
#[derive(Default)]
pub struct Window {
    /// By process and file.
    pub pairs: HashMap<PairKey, Counters>,
    /// Failed writes by process and device.
    pub errors: HashMap<ErrorKey, Errors>,
    /// How long processes waited.
    pub waits: HashMap<WaitKey, Waits>,
    /// Files created, by process and directory.
    pub created: HashMap<PairKey, u64>,
    /// Totals without a breakdown.
    pub other: Counters,
}

/// What is known beside the counts.
pub struct Context<'a> {
    /// `uname -n`.
    pub host: &'a str,
    /// End of the window.
    pub taken_at: Timestamp,
    /// Its length, seconds.
    pub interval_s: f64,
    /// The tracer's health; its `unattributed_bytes` is filled in here.
    pub backend: Backend,
    /// All that are mounted.
    pub volumes: Vec<VolumeState>,
    /// Deleted-but-open files.
    pub held: Vec<Held>,
    /// Where names come from.
    pub names: &'a mut Names,
    /// Where processes come from.
    pub processes: &'a mut Processes,
    /// Where users come from.
    pub users: &'a Users,
    /// Where groups come from.
    pub groups: &'a mut Groups,
    /// How containers see files.
    pub views: &'a Views,
    /// Does the kernel tell of renames?
    pub follows_renames: bool,
    /// Are created files seen on every filesystem?
    pub sees_created: bool,
}

/// A volume over one window.
pub struct VolumeState {
    /// What and where.
    pub volume: MountedVolume,
    /// Its space at the start of the window, if it was there.
    pub before: Option<Space>,
    /// Its space at the end of the window.
    pub now: Space,
    /// Are allocated and freed bytes counted here, or only written ones?
    pub space_traced: bool,
    /// When it will be full.
    pub forecast: Forecast,
}

/// Sums of one writer on one volume.
#[derive(Default)]
struct WriterSum {
    counters: Counters,
    files: HashSet<FileKey>,
    errors: WriteErrors,
}

/// Sums of one file.
#[derive(Default)]
struct FileSum {
    counters: Counters,
    writers: Vec<ProcKey>,
}

/// Builds the Snapshot of one window. Counts on devices that are no volumes (memfd, container
/// internals) are left out.
pub fn build(window: &Window, mut context: Context<'_>) -> Snapshot {
    let mut writers: HashMap<(ProcKey, u32), WriterSum> = HashMap::new();
    let mut files: HashMap<FileKey, FileSum> = HashMap::new();
    let devices: HashSet<u32> = context.volumes.iter().map(|state| state.volume.dev).collect();
    for (pair, counters) in &window.pairs {
        if !devices.contains(&pair.dev) {
            continue;
        }
        let writer = writers.entry((pair.process(), pair.dev)).or_default();
        writer.counters.add(counters);
        writer.files.insert(pair.file());
        let file = files.entry(pair.file()).or_default();
        file.counters.add(counters);
        if counters.written > 0 {
            file.writers.push(pair.process());
        }
    }
    for (key, errors) in &window.errors {
        if devices.contains(&key.dev) {
            let proc = ProcKey { start_ns: key.start_ns, tgid: key.tgid, pad: 0 };
            let writer = writers.entry((proc, key.dev)).or_default();
            writer.errors = WriteErrors {
                enospc: errors.enospc,
                edquot: errors.edquot,
                eio: errors.eio,
                other: errors.other,
            };
        }
    }
    let mut waited = rollup::waits(&window.waits, &devices, clock::jiffy_ms());
    for (proc, dev) in waited.keys() {
        if devices.contains(dev) {
            writers.entry((*proc, *dev)).or_default();
        }
    }
    place_unplaced(&mut waited, &writers);
    let mut by_volume: HashMap<u32, Counters> = HashMap::new();
    for ((_, dev), sum) in &writers {
        by_volume.entry(*dev).or_default().add(&sum.counters);
    }
    context.backend.unattributed_bytes = window.other.written;
    let paths = path_rows(&files, &mut context);
    let volumes: Vec<MountedVolume> =
        context.volumes.iter().map(|state| state.volume.clone()).collect();
    let sees = Sees {
        space: paths.iter().any(|(_, row)| row.freed_bytes.is_some()),
        created: context.sees_created,
    };
    let dirs = rollup::directories(
        &paths,
        &window.created,
        &volumes,
        context.names,
        context.interval_s,
        sees,
    );
    let (writer_rows, waiting): (Vec<Writer>, Vec<f64>) =
        writer_rows(&writers, &by_volume, &waited, &mut context).into_iter().unzip();
    Snapshot {
        schema: SCHEMA,
        host: context.host.to_owned(),
        taken_at: context.taken_at,
        interval_s: context.interval_s,
        victims: rollup::victims(&writer_rows, &waiting, context.interval_s),
        volumes: volume_rows(&by_volume, &context),
        writers: writer_rows,
        dirs,
        paths: paths.into_iter().map(|(_, row)| row).collect(),
        held: context.held,
        groups: Vec::new(),
        residents: Vec::new(),
        backend: context.backend,
    }
}

/// Allocated − freed.
fn signed_growth(sum: &Counters) -> i64 {
    sum.allocated.cast_signed().wrapping_sub(sum.freed.cast_signed())
}

/// How much of the change of a volume's used space the counted growth accounts for, 0..1; `None`
/// when it hardly moved: by less than a MiB, statvfs shows the filesystem's own housekeeping.
fn explained(used_delta: i64, growth: i64) -> Option<f64> {
    const HARDLY: u64 = 1 << 20;
    let moved = used_delta.unsigned_abs();
    (moved >= HARDLY)
        .then(|| (1.0 - used_delta.abs_diff(growth) as f64 / moved as f64).clamp(0.0, 1.0))
}

/// Gives waits at an unknown device to the volume that the process wrote most to.
fn place_unplaced(
    waited: &mut HashMap<(ProcKey, u32), Waited>,
    writers: &HashMap<(ProcKey, u32), WriterSum>,
) {
    let unplaced: Vec<ProcKey> =
        waited.keys().filter(|(_, dev)| *dev == 0).map(|(proc, _)| *proc).collect();
    for proc in unplaced {
        let most = writers
            .iter()
            .filter(|((writer, _), _)| *writer == proc)
            .max_by_key(|(_, sum)| sum.counters.written)
            .map(|((_, dev), _)| *dev);
        if let (Some(dev), Some(wait)) = (most, waited.remove(&(proc, 0))) {
            waited.entry((proc, dev)).or_default().waiting_ms += wait.waiting_ms;
        }
    }
}

fn per_second(bytes: f64, interval_s: f64) -> f64 {
    if interval_s > 0.0 { bytes / interval_s } else { 0.0 }
}

fn mount_name(volume: &MountedVolume) -> String {
    lossless(&volume.primary().mount_point)
}

fn lossless(path: &Path) -> String {
    sanitize::lossless(path.as_os_str().as_bytes())
}

fn volume_rows(sums: &HashMap<u32, Counters>, context: &Context<'_>) -> Vec<Volume> {
    let mut rows: Vec<Volume> = context
        .volumes
        .iter()
        .map(|VolumeState { volume, before, now, space_traced, forecast }| {
            let mount_point = mount_name(volume);
            let delta =
                before.map_or(0, |before| now.used.cast_signed() - before.used.cast_signed());
            let sum = sums.get(&volume.dev).copied().unwrap_or_default();
            let growth = signed_growth(&sum);
            let explained = before.filter(|_| *space_traced).and_then(|_| explained(delta, growth));
            let interval = forecast.outcome.interval_s();
            Volume {
                mount_points: volume
                    .mounts
                    .iter()
                    .map(|mount| lossless(&mount.mount_point))
                    .collect(),
                device: sanitize::lossless(volume.source.as_bytes()),
                fs_type: volume.fs_type.clone(),
                total_bytes: now.total,
                used_bytes: now.used,
                avail_bytes: now.avail,
                reserved_bytes: now.reserved,
                inodes_total: now.inodes_total,
                inodes_free: now.inodes_free,
                held_bytes: Some(
                    context.held.iter().filter(|h| h.volume == mount_point).map(|h| h.bytes).sum(),
                ),
                mount_point,
                written_bytes: sum.written,
                allocated_bytes: space_traced.then_some(sum.allocated),
                freed_bytes: space_traced.then_some(sum.freed),
                used_delta_bytes: delta,
                growth_bytes_per_s: per_second(
                    if *space_traced { growth as f64 } else { delta as f64 },
                    context.interval_s,
                ),
                explained,
                full: matches!(forecast.outcome, Outcome::Full { .. }),
                limit: forecast.limit.to_string(),
                eta_s: forecast.outcome.eta_s(),
                eta_lo_s: interval.map(|(earliest, _)| earliest),
                eta_hi_s: interval.map(|(_, latest)| latest),
                refill: forecast.refill,
                read_only: volume.mounts.iter().all(|mount| mount.read_only),
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        // Full first, then what will be full soonest, what grows fastest, what has least left. What
        // shrinks is at rest: it may be the fullest of all.
        let growth = |v: &Volume| v.growth_bytes_per_s.max(0.0);
        let eta = |v: &Volume| v.eta_s.unwrap_or(f64::INFINITY);
        let left = |v: &Volume| v.avail_bytes as f64 / v.total_bytes.max(1) as f64;
        b.full
            .cmp(&a.full)
            .then_with(|| eta(a).total_cmp(&eta(b)))
            .then_with(|| growth(b).total_cmp(&growth(a)))
            .then_with(|| left(a).total_cmp(&left(b)))
            .then_with(|| a.mount_point.cmp(&b.mount_point))
    });
    rows
}

fn writer_rows(
    sums: &HashMap<(ProcKey, u32), WriterSum>,
    by_volume: &HashMap<u32, Counters>,
    waited: &HashMap<(ProcKey, u32), Waited>,
    context: &mut Context<'_>,
) -> Vec<(Writer, f64)> {
    let mut held: HashMap<(u32, &str), u64> = HashMap::new();
    for file in &context.held {
        for holder in &file.holders {
            *held.entry((*holder, file.volume.as_str())).or_default() += file.bytes;
        }
    }
    let mut rows = Vec::with_capacity(sums.len());
    for ((proc, dev), sum) in sums {
        let Some(state) = context.volumes.iter().find(|state| state.volume.dev == *dev) else {
            continue;
        };
        let volume = &state.volume;
        let process = context.processes.get(proc).clone();
        let exe = process.exe_path.clone().or_else(|| {
            let file = process.exe?;
            let within = context.names.within(&file)?;
            let state = context.volumes.iter().find(|state| state.volume.dev == file.dev);
            let path = state.and_then(|state| state.volume.host_path(&within.path));
            Some(lossless(&path.unwrap_or(within.path)))
        });
        let volume_name = mount_name(volume);
        let rate = per_second(sum.counters.written as f64, context.interval_s);
        let total = by_volume.get(dev).copied().unwrap_or_default();
        let traced = state.space_traced;
        // Growth where it is traced, written bytes elsewhere.
        let (part, whole) = if traced {
            (signed_growth(&sum.counters) as f64, signed_growth(&total) as f64)
        } else {
            (sum.counters.written as f64, total.written as f64)
        };
        let waited = waited.get(&(*proc, *dev)).copied().unwrap_or_default();
        let row = Writer {
            pid: proc.tgid,
            start_time: clock::at_boottime(proc.start_ns),
            comm: process.comm,
            exe,
            cmdline: process.cmdline,
            uid: process.uid,
            user: context.users.name(process.uid).map(str::to_owned),
            group: context.groups.member(proc).map(|placed| placed.group.clone()),
            alive: !process.ended,
            held_bytes: Some(held.get(&(proc.tgid, volume_name.as_str())).copied().unwrap_or(0)),
            volume: volume_name,
            written_bytes: sum.counters.written,
            allocated_bytes: traced.then_some(sum.counters.allocated),
            freed_bytes: traced.then_some(sum.counters.freed),
            written_bytes_per_s: rate,
            growth_bytes_per_s: per_second(part, context.interval_s),
            share: if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 },
            files: sum.files.len() as u64,
            errors: sum.errors,
            fsync: waited.fsync,
            parents: context.processes.parents(proc),
        };
        rows.push((row, waited.waiting_ms));
    }
    rows.sort_by(|(a, _), (b, _)| {
        b.growth_bytes_per_s
            .total_cmp(&a.growth_bytes_per_s)
            .then_with(|| b.written_bytes.cmp(&a.written_bytes))
            .then_with(|| b.errors.total().cmp(&a.errors.total()))
            .then_with(|| a.pid.cmp(&b.pid))
    });
    rows
}

/// One row per file with its host path, most written first.
fn path_rows(
    files: &HashMap<FileKey, FileSum>,
    context: &mut Context<'_>,
) -> Vec<(PathBuf, PathRow)> {
    let mut rows = Vec::with_capacity(files.len());
    for (key, sum) in files {
        let Some(state) = context.volumes.iter().find(|state| state.volume.dev == key.dev) else {
            continue;
        };
        let volume = &state.volume;
        let path = file_path(key, sum, volume, context.names);
        let (volume, traced) = (mount_name(volume), state.space_traced);
        let mut writers: Vec<u32> = sum.writers.iter().map(|proc| proc.tgid).collect();
        writers.sort_unstable();
        writers.dedup();
        let row = PathRow {
            path: lossless(&path),
            path_in_container: in_container(key, sum, &path, context),
            volume,
            dev: format!("{}:{}", key.major(), key.minor()),
            ino: key.ino,
            written_bytes: sum.counters.written,
            allocated_bytes: traced.then_some(sum.counters.allocated),
            freed_bytes: traced.then_some(sum.counters.freed),
            deleted: sum.counters.unlinked > 0 || context.names.was_unlinked(key),
            approximate: sum.counters.flags & slot_flags::APPROXIMATE != 0,
            writers,
        };
        rows.push((key, path, row));
    }
    rows.sort_by(|(_, _, a), (_, _, b)| {
        b.written_bytes.cmp(&a.written_bytes).then_with(|| a.path.cmp(&b.path))
    });
    if !context.follows_renames {
        let shown = rows.iter_mut().take(RENAMES_FOLLOWED);
        for (key, path, row) in shown.filter(|(_, _, row)| !row.deleted) {
            if let Some(new) = renames::follow(path, key, &row.writers) {
                row.path = lossless(&new);
                *path = new;
            }
        }
    }
    rows.into_iter().map(|(_, path, row)| (path, row)).collect()
}

/// Files whose names are checked in each window where the kernel tells of no renames.
const RENAMES_FOLLOWED: usize = 200;

/// The path as the file's first writer sees it, where that differs.
fn in_container(
    key: &FileKey,
    sum: &FileSum,
    host: &Path,
    context: &mut Context<'_>,
) -> Option<String> {
    let placed = context.groups.member(sum.writers.first()?)?.clone();
    if !context.groups.sees_otherwise(&placed) {
        return None;
    }
    let within = context.names.within(key).filter(|within| within.complete)?;
    let chroot = placed.group.root.as_deref().map(Path::new);
    let view = (placed.mnt_ns, placed.root);
    let path = context.views.path(view, host, &within.path, key.dev, chroot)?;
    Some(lossless(&path))
}

/// As seen from the host's root. What is not known is shown as `?`: the bytes stay.
fn file_path(key: &FileKey, sum: &FileSum, volume: &MountedVolume, names: &mut Names) -> PathBuf {
    let within = names.within(key);
    if let Some(within) = &within
        && within.complete
        && let Some(path) = volume.host_path(&within.path)
    {
        return path;
    }
    if let Some(path) = sum.writers.iter().find_map(|proc| paths::from_proc(proc.tgid, key)) {
        return path;
    }
    let known = within.map_or_else(|| PathBuf::from(format!("inode {}", key.ino)), |w| w.path);
    let rest = known.strip_prefix("/").map(Path::to_path_buf).unwrap_or(known);
    volume.primary().mount_point.join("?").join(rest)
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
