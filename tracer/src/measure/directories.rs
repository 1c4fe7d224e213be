//! Rolls the rows of files up to directories.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracer_common::ProcFileKey;
use tracer_model::sanitize;
use tracer_model::snapshot::{Directory, PathRow};
use tracer_model::tree::{Traffic, Tree};

use super::context::{VolumeState, Volumes};
use super::sums::per_second;
use crate::attribute::paths::Names;

/// Maximum number of directories listed per volume.
const MAX_DIRECTORIES: usize = 1_000;

/// What the backend traces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traced {
    /// Whether allocated and freed space is known.
    pub(super) space: bool,
    /// Whether created and removed files are traced on every filesystem, not only on ext4.
    pub(super) files: bool,
}

/// Returns the traffic of each directory and volume, rolled up. `paths` are the files of the
/// interval with their paths. `created` is the number of files created, keyed by process and
/// directory.
pub(super) fn directories(
    paths: &[(PathBuf, PathRow)],
    created: &HashMap<ProcFileKey, u64>,
    volumes: &Volumes<'_>,
    names: &mut Names,
    interval_s: f64,
    traced: Traced,
) -> Vec<Directory> {
    let by_name: HashMap<&str, &VolumeState<'_>> =
        volumes.iter().map(|state| (&*state.name, state)).collect();
    let mut trees: HashMap<&str, Tree> = HashMap::new();
    for ((volume, dir), traffic) in sums(paths) {
        let Some(state) = by_name.get(volume) else { continue };
        trees.entry(&state.name).or_default().add(&below(dir, &state.name), &traffic);
    }
    for (key, count) in created {
        let Some(VolumeState { volume, name, .. }) = volumes.get(key.dev) else { continue };
        let path = names
            .path(&key.file())
            .filter(|path| path.complete)
            .and_then(|path| volume.host_path(&path.path))
            .unwrap_or_else(|| volume.primary().mount_point.clone());
        let traffic = Traffic { created: *count, ..Traffic::default() };
        trees.entry(name).or_default().add(&below(&path, name), &traffic);
    }
    let mut directories = Vec::new();
    for (name, tree) in trees {
        let is_ext4 = by_name.get(name).is_some_and(|state| state.volume.fs_type == "ext4");
        let traced = Traced { files: traced.files || is_ext4, ..traced };
        directories.extend(rows(name, &tree, interval_s, traced));
    }
    directories.sort_by(|a, b| {
        let traffic = |row: &Directory| row.inflow_bytes_per_s + row.outflow_bytes_per_s;
        b.hot
            .cmp(&a.hot)
            .then(traffic(b).total_cmp(&traffic(a)))
            .then_with(|| a.path.len().cmp(&b.path.len()))
            .then_with(|| a.path.cmp(&b.path))
    });
    directories
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

/// The rows of one volume.
fn rows(
    volume: &str,
    tree: &Tree,
    interval_s: f64,
    traced: Traced,
) -> impl Iterator<Item = Directory> {
    tree.rows(MAX_DIRECTORIES).into_iter().map(move |row| {
        let mut path = volume.trim_end_matches('/').to_owned();
        if !row.path.is_empty() || path.is_empty() {
            path.push('/');
            path.push_str(&sanitize::lossless(&row.path));
        }
        let Traffic { inflow, outflow, created, removed } = row.traffic;
        Directory {
            path,
            volume: volume.to_owned(),
            inflow_bytes_per_s: per_second(inflow as f64, interval_s),
            outflow_bytes_per_s: per_second(outflow as f64, interval_s),
            drain: (inflow > 0 && traced.space).then(|| outflow as f64 / inflow as f64),
            files_created: (traced.files || created > 0).then_some(created),
            files_removed: (traced.files || removed > 0).then_some(removed),
            hot: row.hot,
        }
    })
}

/// A host path relative to the volume's mount point. A path that is not below it (another mount of
/// the same volume) is returned whole.
fn below(path: &Path, mount: &str) -> Vec<u8> {
    path.strip_prefix(mount).unwrap_or(path).as_os_str().as_bytes().to_vec()
}
