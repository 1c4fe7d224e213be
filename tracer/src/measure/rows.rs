//! Builds the rows of each table of a Snapshot.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tracer_common::{Counters, FileKey, ProcKey, slot_flags};
use tracer_model::forecast::Outcome;
use tracer_model::sanitize;
use tracer_model::snapshot::{Blind, Group, OnBehalf, PathRow, Volume, Writer};

use super::build::{
    Context, FileSum, VolumeState, WriterSum, explained, lossless, mount_name, per_second,
    signed_growth,
};
use crate::attribute::groups::logs;
use crate::attribute::paths::Names;
use crate::attribute::renames;
use crate::attribute::renames::Sought;
use crate::measure::rollup::Waited;
use tracer_host::clock;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::descriptors;

pub(super) fn volume_rows(
    sums: &HashMap<u32, Counters>,
    blind: &HashMap<u32, Blind>,
    context: &Context<'_>,
) -> Vec<Volume> {
    let mut rows: Vec<Volume> = context
        .volumes
        .iter()
        .map(|state| {
            let VolumeState { volume, before, now, space_known, forecast, owner, .. } = state;
            let mount_point = mount_name(volume);
            let delta = state.used_delta();
            let blind = blind.get(&volume.dev).copied();
            let sum = sums.get(&volume.dev).copied().unwrap_or_default();
            let growth = signed_growth(&sum);
            let explained = before.filter(|_| *space_known).and_then(|_| explained(delta, growth));
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
                allocated_bytes: space_known.then_some(sum.allocated),
                freed_bytes: space_known.then_some(sum.freed),
                used_delta_bytes: delta,
                growth_bytes_per_s: per_second(
                    if *space_known && blind.is_none() { growth as f64 } else { delta as f64 },
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
                container: owner.container.clone(),
                persistent_volume: owner.persistent_volume.clone(),
                label: owner.label.clone(),
                counted_by: state.counted_by,
                gap: state.gap,
                blind,
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        // Full first, then by time to full, growth, and least space left. A shrinking volume
        // counts as not growing: it may be the fullest of all.
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

pub(super) fn writer_rows(
    sums: &HashMap<(ProcKey, u32), WriterSum>,
    by_volume: &HashMap<u32, Counters>,
    blind: &HashMap<u32, Blind>,
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
        let traced = state.space_known;
        // Growth if it is traced, written bytes otherwise.
        let (part, seen) = if traced {
            (signed_growth(&sum.counters) as f64, signed_growth(&total) as f64)
        } else {
            (sum.counters.written as f64, total.written as f64)
        };
        // On a blind volume, shares are of the whole change: a visible writer must not be charged
        // with growth that was not traced.
        let whole = match blind.get(dev) {
            Some(_) => seen.max(state.used_delta() as f64),
            None => seen,
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
            on_behalf_of: Vec::new(),
        };
        let row = Writer { on_behalf_of: on_behalf(&row, sum, traced, context.interval_s), ..row };
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

/// The containers whose logs the writer wrote. `traced`: growth is known, not only written bytes.
fn on_behalf(row: &Writer, sum: &WriterSum, traced: bool, interval_s: f64) -> Vec<OnBehalf> {
    let mut rows: Vec<OnBehalf> = sum
        .logs
        .iter()
        .filter(|(container, _)| {
            logs::is_log_driver(&row.comm, row.uid, row.group.as_ref(), container)
        })
        .map(|(container, counters)| {
            let written = counters.written as f64;
            let growth = if traced { signed_growth(counters) as f64 } else { written };
            OnBehalf {
                group: container.clone(),
                written_bytes: counters.written,
                written_bytes_per_s: per_second(written, interval_s),
                growth_bytes_per_s: per_second(growth, interval_s),
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        b.growth_bytes_per_s
            .total_cmp(&a.growth_bytes_per_s)
            .then_with(|| b.written_bytes.cmp(&a.written_bytes))
            .then_with(|| a.group.cmp(&b.group))
    });
    rows
}

/// Returns one row per file with its host path, most written first, and the container of each file
/// that is a container's log.
pub(super) fn path_rows(
    files: &HashMap<FileKey, FileSum>,
    context: &mut Context<'_>,
) -> (Vec<(PathBuf, PathRow)>, HashMap<FileKey, Group>) {
    let mut rows = Vec::with_capacity(files.len());
    for (key, sum) in files {
        let Some(state) = context.volumes.iter().find(|state| state.volume.dev == key.dev) else {
            continue;
        };
        let volume = &state.volume;
        let path = file_path(key, sum, volume, context.names);
        let (volume, traced) = (mount_name(volume), state.space_known);
        let mut writers: Vec<u32> = sum.writers.iter().map(|proc| proc.tgid).collect();
        writers.sort_unstable();
        writers.dedup();
        let path_text = lossless(&path);
        let (path_in_container, container) = in_container(key, sum, &path, context).unzip();
        let log_of = log_of(&path_text, sum, context);
        let row = PathRow {
            path: path_text,
            path_in_container,
            container: container.flatten(),
            log_of,
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
        let shown = rows.iter().take(RENAMES_FOLLOWED).filter(|(_, _, row)| !row.deleted);
        let sought: Vec<Sought<'_>> = shown
            .map(|(key, path, row)| Sought { path, file: **key, writers: &row.writers })
            .collect();
        let found = renames::follow(&sought);
        let shown = rows.iter_mut().take(RENAMES_FOLLOWED).filter(|(_, _, row)| !row.deleted);
        for ((_, path, row), new) in shown.zip(found) {
            if let Some(new) = new {
                row.path = lossless(&new);
                *path = new;
            }
        }
    }
    let logs = rows.iter().filter_map(|(key, _, row)| Some((**key, row.log_of.clone()?))).collect();
    (rows.into_iter().map(|(_, path, row)| (path, row)).collect(), logs)
}

/// Maximum number of files whose names are checked per interval if renames are not traced.
const RENAMES_FOLLOWED: usize = 200;

/// The path as the file's first writer sees it, if it differs, and the name of the container whose
/// root filesystem the file is on.
fn in_container(
    key: &FileKey,
    sum: &FileSum,
    host: &Path,
    context: &mut Context<'_>,
) -> Option<(String, Option<String>)> {
    let placed = context.groups.member(sum.writers.first()?)?.clone();
    if !context.groups.sees_otherwise(&placed) {
        return None;
    }
    let within = context.names.within(key).filter(|within| within.complete)?;
    let chroot = placed.group.root.as_deref().map(Path::new);
    let view = (placed.mnt_ns, placed.root);
    let seen = context.views.path(view, host, &within.path, key.dev, chroot)?;
    let named = seen.in_root && placed.group.is_container();
    Some((lossless(&seen.path), named.then_some(placed.group.name)))
}

/// The container that the file is a log of, if one of the file's writers is a log driver.
fn log_of(path: &str, sum: &FileSum, context: &mut Context<'_>) -> Option<Group> {
    let log = logs::log_of(path)?;
    let container = context.groups.container_of(&log)?;
    sum.writers
        .iter()
        .any(|proc| {
            let process = context.processes.get(proc).clone();
            let group = context.groups.member(proc).map(|placed| &placed.group);
            logs::is_log_driver(&process.comm, process.uid, group, &container)
        })
        .then_some(container)
}

/// The path as seen from the host's root. Unknown parts are shown as `?`, so that the bytes still
/// have a row.
fn file_path(key: &FileKey, sum: &FileSum, volume: &MountedVolume, names: &mut Names) -> PathBuf {
    let within = names.within(key);
    if let Some(within) = &within
        && within.complete
        && let Some(path) = volume.host_path(&within.path)
    {
        return path;
    }
    if let Some(path) = sum.writers.iter().find_map(|proc| descriptors::path_of(proc.tgid, key)) {
        return path;
    }
    let known = within.map_or_else(|| PathBuf::from(format!("inode {}", key.ino)), |w| w.path);
    let rest = known.strip_prefix("/").map(Path::to_path_buf).unwrap_or(known);
    volume.primary().mount_point.join("?").join(rest)
}
