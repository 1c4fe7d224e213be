//! Builds the rows of each table of a Snapshot.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tracer_common::{FileKey, slot_flags};
use tracer_model::forecast::Outcome;
use tracer_model::sanitize;
use tracer_model::sanitize::lossless_path;
use tracer_model::snapshot::{
    Blind, Group, OnBehalf, PathRow, Volume, Writer, share_base, space_is_late,
};

use super::attribution::Attribution;
use super::context::{Context, VolumeState, Volumes};
use super::shown_files;
use super::sums::{FileSum, Sums, WriterKey, WriterSum, explained, per_second, signed_growth};
use super::suspects;
use crate::attribute::groups::logs;
use crate::attribute::paths::Names;
use crate::attribute::process::Process;
use crate::attribute::renames;
use crate::attribute::renames::Candidate;
use tracer_host::clock;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::descriptors;

/// Growth of used space beyond what is attributed that a filesystem needs for itself, bytes.
const MIN_UNATTRIBUTED_BYTES: i64 = 1 << 20;

/// Returns one row per volume, most endangered first.
pub(super) fn volume_rows(
    sums: &Sums,
    blind: &HashMap<u32, Blind>,
    context: &Context<'_>,
) -> Vec<Volume> {
    let row = |state| volume_row(state, sums, blind, context);
    let mut rows: Vec<Volume> = context.volumes.iter().map(row).collect();
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

fn volume_row(
    state: &VolumeState<'_>,
    sums: &Sums,
    blind: &HashMap<u32, Blind>,
    context: &Context<'_>,
) -> Volume {
    let VolumeState { volume, name, before, now, space_known, forecast, owner, .. } = state;
    let delta = state.used_delta();
    let blind = blind.get(&volume.dev).copied();
    let sum = sums.volume(volume.dev);
    let growth = signed_growth(&sum);
    let explained = before.filter(|_| *space_known).and_then(|_| explained(delta, growth));
    // The growth that is shown and the time to full must agree.
    let is_more_than_attributed = blind.is_some()
        || (!space_is_late(&volume.fs_type)
            && delta.saturating_sub(growth) > (delta / 10).max(MIN_UNATTRIBUTED_BYTES));
    let interval = forecast.outcome.interval_s();
    let mut row = Volume {
        mount_point: name.clone(),
        mount_points: volume.mounts.iter().map(|mount| lossless_path(&mount.mount_point)).collect(),
        device: sanitize::lossless(volume.source.as_bytes()),
        fs_type: volume.fs_type.clone(),
        total_bytes: now.total,
        used_bytes: now.used,
        avail_bytes: now.avail,
        reserved_bytes: now.reserved,
        inodes_total: now.inodes_total,
        inodes_free: now.inodes_free,
        // The blocks of compressed files may be more than what they take.
        held_bytes: context.held.bytes_on(volume.dev).map(|bytes| bytes.min(now.used)),
        written_bytes: sum.written,
        allocated_bytes: space_known.then_some(sum.allocated),
        freed_bytes: space_known.then_some(sum.freed),
        used_delta_bytes: delta,
        growth_bytes_per_s: per_second(
            if *space_known && !is_more_than_attributed { growth as f64 } else { delta as f64 },
            context.interval_s,
        ),
        explained,
        full: matches!(forecast.outcome, Outcome::Full { .. }),
        limit: forecast.limit.kind(),
        eta_s: forecast.outcome.eta_s(),
        eta_lo_s: interval.map(|(earliest, _)| earliest),
        eta_hi_s: interval.map(|(_, latest)| latest),
        pace_s: forecast.pace.map(|pace| pace.eta_s),
        pace_lo_s: forecast.pace.map(|pace| pace.lo_s),
        pace_hi_s: forecast.pace.map(|pace| pace.hi_s),
        refill: forecast.refill,
        read_only: volume.mounts.iter().all(|mount| mount.read_only),
        container: owner.container.clone(),
        persistent_volume: owner.persistent_volume.clone(),
        label: owner.label.clone(),
        counted_by: state.counted_by,
        gap: state.gap,
        blind,
        verdict: None,
        btrfs: state.btrfs,
        quotas: state.quotas.clone(),
        held_unknown_bytes: context
            .held
            .unknown_holder_bytes_on(volume.dev)
            .map(|bytes| bytes.min(now.used)),
        inodes_delta: state.inodes_delta(),
        was_full: state.was_full,
        served_by: state.served_by.clone(),
        backing_file: state.backing_file.clone(),
        suspects: Vec::new(),
        no_eta: match forecast.outcome {
            Outcome::DoesNotFill { reason } => Some(reason),
            Outcome::Full { .. } | Outcome::Fills { .. } => None,
        },
        hidden: volume.is_hidden(),
    };
    if suspects::are_wanted(&row) {
        row.suspects = context.suspects.get(&volume.dev).cloned().unwrap_or_default();
    }
    row
}

/// Returns one row per writer, largest growth first, each with the milliseconds that it waited.
pub(super) fn writer_rows(
    sums: &Sums,
    blind: &HashMap<u32, Blind>,
    context: &mut Context<'_>,
) -> Vec<(Writer, f64)> {
    let mut rows: Vec<(Writer, f64)> = Vec::with_capacity(sums.writers.len());
    let taken = taken(sums, blind, &context.volumes);
    for (key, sum) in &sums.writers {
        if let Some(row) = writer_row(key, sum, &taken, context) {
            rows.push((row, sum.waited.waiting_ms));
        }
    }
    let mut held: HashMap<(u32, &str), u64> = HashMap::new();
    for file in &context.held.files {
        for holder in &file.holders {
            *held.entry((*holder, file.volume.as_str())).or_default() += file.bytes;
        }
    }
    for (row, _) in &mut rows {
        let sum = held.get(&(row.pid, row.volume.as_str())).copied();
        // A process without any may be one that could not be inspected.
        row.held_bytes = sum.or((context.held.unreadable == 0).then_some(0));
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

/// Growth of a writer, bytes; the written bytes if space is not traced.
fn growth_of(sum: &WriterSum, traced: bool) -> f64 {
    if traced { signed_growth(&sum.counters) as f64 } else { sum.counters.written as f64 }
}

/// What was taken on each volume, bytes, keyed by device: what shares are shares of.
fn taken(sums: &Sums, blind: &HashMap<u32, Blind>, volumes: &Volumes<'_>) -> HashMap<u32, f64> {
    let mut growths: HashMap<u32, Vec<f64>> = HashMap::new();
    for ((_, dev), sum) in &sums.writers {
        let traced = volumes.get(*dev).is_some_and(|state| state.space_known);
        growths.entry(*dev).or_default().push(growth_of(sum, traced));
    }
    let all = growths.into_iter().map(|(dev, growths)| {
        let state = volumes.get(dev);
        let used = state.map_or(0, VolumeState::used_delta) as f64;
        let is_late = state.is_none_or(|state| space_is_late(&state.volume.fs_type));
        let prompt = if is_late && !blind.contains_key(&dev) { 0.0 } else { used };
        (dev, share_base(growths.into_iter(), prompt))
    });
    all.collect()
}

/// The row of one writer, without the space that it holds; `None` if its volume is not mounted.
fn writer_row(
    (proc, dev): &WriterKey,
    sum: &WriterSum,
    taken: &HashMap<u32, f64>,
    context: &mut Context<'_>,
) -> Option<Writer> {
    let Context { volumes, attribution, interval_s, .. } = context;
    let state = volumes.get(*dev)?;
    let process = attribution.processes.get(proc).clone();
    let traced = state.space_known;
    let part = growth_of(sum, traced);
    // A visible writer must not be charged with growth that was not traced.
    let whole = taken.get(dev).copied().unwrap_or(0.0);
    let row = Writer {
        pid: proc.tgid,
        start_time: clock::at_boottime(proc.start_ns),
        exe: executable(&process, volumes, &mut attribution.names),
        thread: process.thread().map(str::to_owned),
        comm: process.comm,
        cmdline: process.cmdline,
        uid: process.uid,
        user: attribution.users.name(process.uid).map(str::to_owned),
        group: attribution.groups.member(proc).map(|member| member.group.clone()),
        alive: !process.ended,
        held_bytes: None,
        volume: state.name.clone(),
        written_bytes: sum.counters.written,
        allocated_bytes: traced.then_some(sum.counters.allocated),
        freed_bytes: traced.then_some(sum.counters.freed),
        written_bytes_per_s: per_second(sum.counters.written as f64, *interval_s),
        growth_bytes_per_s: per_second(part, *interval_s),
        share: if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 },
        files: sum.files.len() as u64,
        inodes_created: state.inodes_traced.then_some(sum.created),
        inodes_removed: sum.removed.filter(|_| state.inodes_traced),
        errors: sum.errors,
        fsync: sum.waited.fsync,
        parents: attribution.processes.parents(proc),
        on_behalf_of: Vec::new(),
        log_senders: Vec::new(),
    };
    Some(Writer { on_behalf_of: on_behalf(&row, sum, traced, *interval_s), ..row })
}

/// The path of a process's executable, if known.
fn executable(process: &Process, volumes: &Volumes<'_>, names: &mut Names) -> Option<String> {
    process.exe_path.clone().or_else(|| {
        let file = process.exe?;
        let found = names.path(&file)?;
        let path = volumes.get(file.dev).and_then(|state| state.volume.host_path(&found.path));
        Some(lossless_path(&path.unwrap_or(found.path)))
    })
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

/// Returns one row per file with its host path, largest growth first, and the container of each file
/// that is a container's log.
pub(super) fn path_rows(
    files: &HashMap<FileKey, FileSum>,
    context: &mut Context<'_>,
) -> (Vec<(PathBuf, PathRow)>, HashMap<FileKey, Group>) {
    let mut rows = Vec::with_capacity(files.len());
    for (key, sum) in files {
        let Some(state) = context.volumes.get(key.dev) else { continue };
        let path = file_path(key, sum, state.volume, &mut context.attribution.names);
        let (volume, traced) = (state.name.clone(), state.space_known);
        let mut writers: Vec<u32> = sum.writers.iter().map(|proc| proc.tgid).collect();
        writers.sort_unstable();
        writers.dedup();
        let path_text = lossless_path(&path);
        let (path_in_container, container) = in_container(key, sum, &path, context).unzip();
        let log_of = log_of(&path_text, sum, context);
        let sum_growth =
            if traced { signed_growth(&sum.counters) as f64 } else { sum.counters.written as f64 };
        let row = PathRow {
            size_bytes: None,
            space_bytes: None,
            growth_bytes_per_s: per_second(sum_growth, context.interval_s),
            hidden: false,
            hidden_by: None,
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
            deleted: sum.counters.unlinked > 0 || context.attribution.names.was_unlinked(key),
            approximate: sum.counters.flags & slot_flags::APPROXIMATE != 0,
            writers,
        };
        rows.push((key, path, row));
    }
    rows.sort_by(|(_, _, a), (_, _, b)| PathRow::by_growth(a, b));
    if !context.traces_renames {
        follow_renames(&mut rows);
    }
    shown_files::complete(&mut rows, &context.volumes);
    let logs = rows.iter().filter_map(|(key, _, row)| Some((**key, row.log_of.clone()?))).collect();
    (rows.into_iter().map(|(_, path, row)| (path, row)).collect(), logs)
}

/// Maximum number of files whose names are checked per interval if renames are not traced.
const MAX_RENAMES_FOLLOWED: usize = 200;

/// Replaces the paths of files that were renamed.
fn follow_renames(rows: &mut [(&FileKey, PathBuf, PathRow)]) {
    let shown = rows.iter().take(MAX_RENAMES_FOLLOWED).filter(|(_, _, row)| !row.deleted);
    let candidates: Vec<Candidate<'_>> = shown
        .map(|(key, path, row)| Candidate { path, file: **key, writers: &row.writers })
        .collect();
    let found = renames::follow(&candidates);
    let shown = rows.iter_mut().take(MAX_RENAMES_FOLLOWED).filter(|(_, _, row)| !row.deleted);
    for ((_, path, row), new) in shown.zip(found) {
        if let Some(new) = new {
            row.path = lossless_path(&new);
            *path = new;
        }
    }
}

/// The path as the file's first writer sees it, if it differs, and the name of the container whose
/// root filesystem the file is on.
fn in_container(
    key: &FileKey,
    sum: &FileSum,
    host: &Path,
    context: &mut Context<'_>,
) -> Option<(String, Option<String>)> {
    let Attribution { groups, names, views, .. } = &mut *context.attribution;
    let member = groups.member(sum.writers.first()?)?.clone();
    if !groups.has_private_root(&member) {
        return None;
    }
    let in_fs = names.path(key).filter(|path| path.complete)?;
    let chroot = member.group.root.as_deref().map(Path::new);
    let view = (member.mnt_ns, member.root);
    let seen = views.path(view, host, &in_fs.path, key.dev, chroot)?;
    let is_named = seen.in_root && member.group.is_container();
    Some((lossless_path(&seen.path), is_named.then_some(member.group.name)))
}

/// The container that the file is a log of, if one of the file's writers is a log driver.
fn log_of(path: &str, sum: &FileSum, context: &mut Context<'_>) -> Option<Group> {
    let Attribution { groups, processes, .. } = &mut *context.attribution;
    let container = groups.container_of(&logs::owner(path)?)?;
    sum.writers
        .iter()
        .any(|proc| {
            let process = processes.get(proc);
            let group = groups.member(proc).map(|member| &member.group);
            logs::is_log_driver(&process.comm, process.uid, group, &container)
        })
        .then_some(container)
}

/// The path as seen from the host's root. Unknown parts are shown as `?`, so that the bytes still
/// have a row.
fn file_path(key: &FileKey, sum: &FileSum, volume: &MountedVolume, names: &mut Names) -> PathBuf {
    let in_fs = names.path(key);
    if let Some(in_fs) = &in_fs
        && in_fs.complete
        && let Some(path) = volume.host_path(&in_fs.path)
    {
        return path;
    }
    if let Some(path) = sum.writers.iter().find_map(|proc| descriptors::path_of(proc.tgid, key)) {
        return path;
    }
    let known = in_fs.map_or_else(|| PathBuf::from(format!("inode {}", key.ino)), |it| it.path);
    let rest = known.strip_prefix("/").map(Path::to_path_buf).unwrap_or(known);
    volume.primary().mount_point.join("?").join(rest)
}
