//! Rolls the rows of files up to directories.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracer_common::{Entries, ProcFileKey};
use tracer_model::sanitize;
use tracer_model::sanitize::lossless_path;
use tracer_model::snapshot::{Directory, PathRow};
use tracer_model::tree::{Traffic, Tree};

use super::context::{VolumeState, Volumes};
use super::sums::per_second;
use super::turnovers::Turnovers;
use crate::attribute::paths::Names;

/// Maximum number of directories listed per volume.
const MAX_DIRECTORIES: usize = 1_000;

/// What the backend traces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traced {
    /// Whether allocated and freed space is known.
    pub(super) space: bool,
    /// Whether the removal of a regular file is part of its counters; else of the entries of its directory.
    pub(super) unlinks: bool,
}

/// The directories of all volumes.
pub(super) struct Directories {
    /// Their rows, hottest first.
    pub(super) rows: Vec<Directory>,
    /// Paths of those that come and go, whose parents are the useful level.
    pub(super) passing: HashSet<String>,
}

/// Returns the traffic of each directory and volume, rolled up. `paths` are the files of the
/// interval with their paths. `created` has the inodes created and removed, keyed by process and
/// directory.
pub(super) fn directories(
    paths: &[(PathBuf, PathRow)],
    created: &HashMap<ProcFileKey, Entries>,
    volumes: &Volumes<'_>,
    names: &mut Names,
    turnovers: &mut Turnovers,
    interval_s: f64,
    traced: Traced,
) -> Directories {
    let by_name: HashMap<&str, &VolumeState<'_>> =
        volumes.iter().map(|state| (&*state.name, state)).collect();
    let mut trees: HashMap<&str, Tree> = HashMap::new();
    for ((volume, dir), traffic) in sums(paths) {
        let Some(state) = by_name.get(volume) else { continue };
        let relative = below(dir, &state.volume.primary().mount_point);
        trees.entry(&state.name).or_default().add(&relative, &traffic);
    }
    for (key, entries) in created {
        let Some(VolumeState { volume, name, .. }) = volumes.get(key.dev) else { continue };
        // There, a file that was removed is known by its own row, too, and the directory is not known.
        let elsewhere = !traced.unlinks && volume.fs_type == "ext4";
        let removed = if elsewhere { 0 } else { entries.removed };
        let (created, removed) = (entries.created, removed);
        if created + removed == 0 {
            continue;
        }
        let path = names
            .path(&key.file())
            .filter(|path| path.complete)
            .and_then(|path| volume.host_path(&path.path))
            .unwrap_or_else(|| volume.primary().mount_point.clone());
        let traffic = Traffic { created, removed, ..Traffic::default() };
        let relative = below(&path, &volume.primary().mount_point);
        trees.entry(name).or_default().add(&relative, &traffic);
    }
    turnovers.watch(&volumes.iter().map(|state| state.volume.dev).collect(), interval_s);
    let (mut directories, mut all_passing) = (Vec::new(), HashSet::new());
    for (name, tree) in trees {
        let Some(state) = by_name.get(name) else { continue };
        let passing = turnovers.passing(state.volume, &tree, interval_s);
        directories.extend(rows(state, &tree, &passing, interval_s, traced.space));
        let base = lossless_path(&state.volume.primary().mount_point);
        all_passing.extend(passing.iter().map(|path| joined(&base, path)));
    }
    directories.sort_by(|a, b| {
        let traffic = |row: &Directory| row.inflow_bytes_per_s + row.outflow_bytes_per_s;
        b.hot
            .cmp(&a.hot)
            .then(traffic(b).total_cmp(&traffic(a)))
            .then_with(|| a.path.len().cmp(&b.path.len()))
            .then_with(|| a.path.cmp(&b.path))
    });
    Directories { rows: directories, passing: all_passing }
}

/// Sums files up by volume and directory. Files of one directory are often adjacent, but not
/// always.
fn sums(paths: &[(PathBuf, PathRow)]) -> HashMap<(&str, &Path), Traffic> {
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
    sums
}

/// The rows of one volume. `space`: whether freed space is traced.
fn rows(
    state: &VolumeState<'_>,
    tree: &Tree,
    passing: &HashSet<Vec<u8>>,
    interval_s: f64,
    space: bool,
) -> impl Iterator<Item = Directory> {
    let base = lossless_path(&state.volume.primary().mount_point);
    let files = state.inodes_traced;
    tree.rows(MAX_DIRECTORIES, |path| passing.contains(path)).into_iter().map(move |row| {
        let path = joined(&base, &row.path);
        let Traffic { inflow, outflow, created, removed } = row.traffic;
        Directory {
            path,
            volume: state.name.clone(),
            inflow_bytes_per_s: per_second(inflow as f64, interval_s),
            outflow_bytes_per_s: per_second(outflow as f64, interval_s),
            drain: (inflow > 0 && space).then(|| outflow as f64 / inflow as f64),
            files_created: (files || created > 0).then_some(created),
            files_removed: (files || removed > 0).then_some(removed),
            hot: row.hot,
        }
    })
}

/// The path of a directory, from the mount point and a path relative to it.
fn joined(mount_point: &str, relative: &[u8]) -> String {
    let mut path = mount_point.trim_end_matches('/').to_owned();
    if !relative.is_empty() || path.is_empty() {
        path.push('/');
        path.push_str(&sanitize::lossless(relative));
    }
    path
}

/// A host path relative to the volume's mount point. A path that is not below it (another mount of
/// the same volume) is returned whole.
fn below(path: &Path, mount: &Path) -> Vec<u8> {
    path.strip_prefix(mount).unwrap_or(path).as_os_str().as_bytes().to_vec()
}
