//! The directory that a culprit fills.

use std::collections::HashMap;

use super::ledger::Member;
use super::window::MemberId;
use crate::snapshot::{PathRow, Resource, Snapshot, Volume, is_below};

/// A directory in which this share of the files were created is as good as its parent.
const NEARLY_ALL: f64 = 0.8;

/// The directory at a useful level that received most of what these processes took in this Snapshot;
/// `None` if they took nothing in it, or no path is known.
pub(super) fn of(
    snapshot: &Snapshot,
    volume: &Volume,
    members: &[(MemberId, &Member, f64)],
    resource: Resource,
) -> Option<String> {
    let hot = || snapshot.dirs.iter().filter(|dir| dir.volume == volume.mount_point && dir.hot);
    if resource == Resource::Inodes {
        // Which process created which file is not in a Snapshot; of two directories, the one that is
        // created in is meant.
        let net = |created: Option<u64>, removed: Option<u64>| {
            created.unwrap_or(0).saturating_sub(removed.unwrap_or(0))
        };
        let here = || snapshot.dirs.iter().filter(|dir| dir.volume == volume.mount_point);
        let most = here()
            .map(|dir| net(dir.files_created, dir.files_removed))
            .max()
            .filter(|net| *net > 0)?;
        // The deepest directory that has nearly all of them.
        let nearly = |net: u64| net as f64 >= NEARLY_ALL * most as f64;
        return here()
            .filter(|dir| nearly(net(dir.files_created, dir.files_removed)))
            .max_by(|a, b| a.path.len().cmp(&b.path.len()).then_with(|| b.path.cmp(&a.path)))
            .map(|dir| dir.path.clone());
    }
    let is_theirs = |row: &&PathRow| {
        row.volume == volume.mount_point
            && row.growth_of() > 0.0
            && row.writers.iter().any(|pid| members.iter().any(|(_, one, _)| one.row.pid == *pid))
    };
    let mut sums: HashMap<String, f64> = HashMap::new();
    for row in snapshot.paths.iter().filter(is_theirs) {
        let level = hot()
            .filter(|dir| is_below(&row.path, &dir.path) && row.path != dir.path)
            .max_by_key(|dir| dir.path.len())
            .map(|dir| dir.path.clone())
            .or_else(|| row.path.rsplit_once('/').map(|(parent, _)| parent.to_owned()))?;
        let level = if level.is_empty() { "/".to_owned() } else { level };
        *sums.entry(level).or_default() += row.growth_of();
    }
    let most = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.cmp(&a.0)));
    most.map(|(path, _)| path)
}
