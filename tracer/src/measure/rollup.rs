//! Rolls the rows of processes and files up to groups, directories and victims.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracer_common::{ProcFileKey, ProcKey, WaitKey, WaitKind, Waits};
use tracer_model::sanitize;
use tracer_model::snapshot::{Directory, Fsync, PathRow, Snapshot, Victim, WriteErrors, Writer};
use tracer_model::tree::{Traffic, Tree};

use crate::attribute::groups::Groups;
use crate::attribute::groups::history::{History, Seen};
use crate::attribute::paths::Names;
use crate::measure::interval::Window;
use tracer_host::mounts::MountedVolume;

/// Maximum number of directories listed per volume.
const MAX_DIRECTORIES: usize = 1_000;

/// Returns the traffic of each directory and volume, rolled up. `paths` are the files of the
/// interval with their paths. `created` is the number of files created, keyed by process and
/// directory.
#[must_use]
pub fn directories(
    paths: &[(PathBuf, PathRow)],
    created: &HashMap<ProcFileKey, u64>,
    volumes: &[MountedVolume],
    names: &mut Names,
    interval_s: f64,
    sees: Sees,
) -> Vec<Directory> {
    let mut trees: HashMap<&str, Tree> = HashMap::new();
    let mounts: Vec<(String, &MountedVolume)> =
        volumes.iter().map(|volume| (lossless(&volume.primary().mount_point), volume)).collect();
    // Files of one directory are often adjacent, but not always: they are summed up first.
    let mut sums: HashMap<(&str, &Path), Traffic> = HashMap::new();
    for (path, row) in paths {
        let sum = sums.entry((&row.volume, path.parent().unwrap_or(path))).or_default();
        sum.add(&Traffic {
            inflow: row.allocated_bytes.unwrap_or(row.written_bytes),
            outflow: row.freed_bytes.unwrap_or(0),
            created: 0,
            removed: u64::from(row.deleted),
        });
    }
    for ((volume, dir), traffic) in sums {
        let Some((mount, _)) = mounts.iter().find(|(mount, _)| mount == volume) else { continue };
        trees.entry(mount).or_default().add(&below(dir, mount), &traffic);
    }
    for (key, count) in created {
        let Some((mount, volume)) = mounts.iter().find(|(_, volume)| volume.dev == key.dev) else {
            continue;
        };
        let path = names
            .within(&key.file())
            .filter(|within| within.complete)
            .and_then(|within| volume.host_path(&within.path))
            .unwrap_or_else(|| volume.primary().mount_point.clone());
        let traffic = Traffic { created: *count, ..Traffic::default() };
        trees.entry(mount).or_default().add(&below(&path, mount), &traffic);
    }
    let mut rows = Vec::new();
    for (volume, tree) in trees {
        let is_ext4 =
            |(mount, found): &(String, &MountedVolume)| mount == volume && found.fs_type == "ext4";
        let sees_files = sees.files || mounts.iter().any(is_ext4);
        for row in tree.rows(MAX_DIRECTORIES) {
            let mut path = volume.trim_end_matches('/').to_owned();
            if !row.path.is_empty() || path.is_empty() {
                path.push('/');
                path.push_str(&sanitize::lossless(&row.path));
            }
            let Traffic { inflow, outflow, created, removed } = row.traffic;
            rows.push(Directory {
                path,
                volume: volume.to_owned(),
                inflow_bytes_per_s: per_second(inflow, interval_s),
                outflow_bytes_per_s: per_second(outflow, interval_s),
                drain: (inflow > 0 && sees.space).then(|| outflow as f64 / inflow as f64),
                files_created: (sees_files || created > 0).then_some(created),
                files_removed: (sees_files || removed > 0).then_some(removed),
                hot: row.hot,
            });
        }
    }
    rows.sort_by(|a, b| {
        let traffic = |row: &Directory| row.inflow_bytes_per_s + row.outflow_bytes_per_s;
        b.hot
            .cmp(&a.hot)
            .then(traffic(b).total_cmp(&traffic(a)))
            .then_with(|| a.path.len().cmp(&b.path.len()))
            .then_with(|| a.path.cmp(&b.path))
    });
    rows
}

/// What the backend traces.
#[derive(Debug, Clone, Copy)]
pub struct Sees {
    /// Whether allocated and freed space is known.
    pub space: bool,
    /// Whether created and removed files are traced on every filesystem, not only on ext4.
    pub files: bool,
}

fn per_second(n: u64, interval_s: f64) -> f64 {
    if interval_s > 0.0 { n as f64 / interval_s } else { 0.0 }
}

/// A host path relative to the volume's mount point. A path that is not below it (another mount of
/// the same volume) is returned whole.
fn below(path: &Path, mount: &str) -> Vec<u8> {
    path.strip_prefix(mount).unwrap_or(path).as_os_str().as_bytes().to_vec()
}

fn lossless(path: &Path) -> String {
    sanitize::lossless(path.as_os_str().as_bytes())
}

/// Time that one process spent in fsync and throttled writes on one volume.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waited {
    /// fsync calls; `None` if there were none.
    pub fsync: Option<Fsync>,
    /// fsync and throttled writes together, milliseconds.
    pub waiting_ms: f64,
}

/// Rolls waits up by process and device. A throttled writer whose device is not a volume (the
/// kernel reports none for btrfs and network filesystems) is listed under device 0.
#[must_use]
pub fn waits(
    window: &HashMap<WaitKey, Waits>,
    devices: &HashSet<u32>,
    jiffy_ms: f64,
) -> HashMap<(ProcKey, u32), Waited> {
    let mut rows: HashMap<(ProcKey, u32), Waited> = HashMap::new();
    for (key, waits) in window {
        let proc = ProcKey { start_ns: key.start_ns, tgid: key.tgid, pad: 0 };
        let is_fsync = key.kind == WaitKind::Fsync as u32;
        let dev = if is_fsync || devices.contains(&key.dev) { key.dev } else { 0 };
        let row = rows.entry((proc, dev)).or_default();
        if is_fsync {
            let ms = |ns: u64| ns as f64 / 1e6;
            row.fsync =
                Some(Fsync { count: waits.count, max_ms: ms(waits.max), p99_ms: ms(waits.p99()) });
            row.waiting_ms += ms(waits.total);
        } else {
            row.waiting_ms += waits.total as f64 * jiffy_ms;
        }
    }
    rows
}

/// Share of the interval from which on waiting makes a process a victim.
const WAITS_LONG: f64 = 0.1;

/// Returns the processes whose writes failed for lack of space or with EIO, or that waited for a
/// large part of the interval. `waited` has the milliseconds of each writer, in the same order.
#[must_use]
pub fn victims(writers: &[Writer], waited: &[f64], interval_s: f64) -> Vec<Victim> {
    let mut rows: Vec<Victim> = writers
        .iter()
        .zip(waited)
        .filter(|(writer, waited)| {
            let failed = writer.errors.no_space() + writer.errors.eio > 0;
            failed || (interval_s > 0.0 && **waited >= WAITS_LONG * interval_s * 1e3)
        })
        .map(|(writer, waited)| Victim {
            pid: writer.pid,
            comm: writer.comm.clone(),
            volume: writer.volume.clone(),
            errors: writer.errors,
            waiting_ms: Some(*waited),
        })
        .collect();
    rows.sort_by(|a, b| {
        let failed = |errors: &WriteErrors| errors.no_space() + errors.eio;
        failed(&b.errors)
            .cmp(&failed(&a.errors))
            .then(b.waiting_ms.unwrap_or(0.0).total_cmp(&a.waiting_ms.unwrap_or(0.0)))
            .then(a.pid.cmp(&b.pid))
    });
    rows
}

/// Adds this interval to the history of groups, and the resulting rows to the Snapshot.
pub fn groups(
    history: &mut History,
    snapshot: &mut Snapshot,
    window: &Window,
    groups: &mut Groups,
    volumes: &[MountedVolume],
) {
    let mounts: HashMap<u32, String> = volumes
        .iter()
        .map(|volume| (volume.dev, lossless(&volume.primary().mount_point)))
        .collect();
    let mut created: HashMap<(ProcKey, u32), u64> = HashMap::new();
    for pair in window.pairs().keys() {
        created.entry((pair.process(), pair.dev)).or_default();
    }
    for (key, count) in &window.created {
        *created.entry((key.process(), key.dev)).or_default() += count;
    }
    let placed: Vec<_> = created
        .into_iter()
        .filter_map(|((proc, dev), count)| {
            Some((proc, mounts.get(&dev)?.clone(), groups.member(&proc)?.clone(), count))
        })
        .collect();
    let seen: Vec<Seen<'_>> = placed
        .iter()
        .map(|(proc, volume, placed, created)| Seen {
            proc: *proc,
            volume: volume.clone(),
            placed,
            created: *created,
        })
        .collect();
    history.update(snapshot, &seen);
    name_directories(history, snapshot);
}

/// Sets the hottest directory of each group: the one that its processes wrote most to.
fn name_directories(history: &mut History, snapshot: &mut Snapshot) {
    let group_of: HashMap<(u32, &str), _> = snapshot
        .writers
        .iter()
        .filter_map(|writer| Some(((writer.pid, writer.volume.as_str()), writer.group.as_ref()?)))
        .collect();
    let mut sums: HashMap<(_, &str), HashMap<&str, u64>> = HashMap::new();
    for row in snapshot.paths.iter().filter(|row| row.written_bytes > 0) {
        let Some((directory, _)) = row.path.rsplit_once('/') else { continue };
        for pid in row.writers.iter().take(1) {
            if let Some(group) = group_of.get(&(*pid, row.volume.as_str())) {
                let sum = sums.entry((*group, &row.volume)).or_default();
                *sum.entry(directory).or_default() += row.written_bytes;
            }
        }
    }
    for ((group, volume), directories) in sums {
        if let Some((directory, _)) = directories.into_iter().max_by_key(|(_, bytes)| *bytes) {
            let directory = if directory.is_empty() { "/" } else { directory }.to_owned();
            history.set_directory(group, volume, directory.clone());
            let row =
                snapshot.groups.iter_mut().find(|row| row.group == *group && row.volume == volume);
            if let Some(row) = row {
                row.directory = Some(directory);
            }
        }
    }
}
