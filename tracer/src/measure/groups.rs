//! Rolls writers up to groups.

use std::collections::{HashMap, HashSet};

use tracer_common::ProcKey;
use tracer_model::snapshot::{PathRow, Snapshot};
use tracer_model::tree::{Traffic, Tree};

use super::context::Volumes;
use super::sums::{Sums, WriterSum};
use crate::attribute::groups::history::{ActiveProcess, GroupHistory};
use crate::attribute::groups::{Groups, Membership};

/// Adds this interval to the history of groups, and the resulting rows to the Snapshot. `passing` are
/// the directories that come and go.
pub(super) fn add_groups(
    snapshot: &mut Snapshot,
    sums: &Sums,
    volumes: &Volumes<'_>,
    passing: &HashSet<String>,
    groups: &mut Groups,
    history: &mut GroupHistory,
) {
    let members: Vec<(ProcKey, &str, Membership, &WriterSum)> = sums
        .writers
        .iter()
        .filter(|(_, sum)| sum.is_active())
        .filter_map(|((proc, dev), sum)| {
            Some((*proc, &*volumes.get(*dev)?.name, groups.member(proc)?.clone(), sum))
        })
        .collect();
    let active: Vec<ActiveProcess<'_>> = members
        .iter()
        .map(|(proc, volume, member, sum)| ActiveProcess {
            proc: *proc,
            volume,
            member,
            created: sum.created,
            removed: sum.removed.unwrap_or(0),
        })
        .collect();
    history.update(snapshot, &active);
    name_directories(history, snapshot, passing);
}

/// Number of files that are rolled up for the directories of groups: those with most growth.
const MAX_FILES: usize = 20_000;

/// What a group did in each directory.
#[derive(Default)]
struct GroupTree {
    growth: Tree,
    written: Tree,
}

/// Sets the directory of each group that its processes grow most, at a useful level; if nothing
/// grows, the one that they write most to.
fn name_directories(
    history: &mut GroupHistory,
    snapshot: &mut Snapshot,
    passing: &HashSet<String>,
) {
    let group_of: HashMap<(u32, &str), _> = snapshot
        .writers
        .iter()
        .filter_map(|writer| Some(((writer.pid, writer.volume.as_str()), writer.group.as_ref()?)))
        .collect();
    let mut trees: HashMap<(_, &str), GroupTree> = HashMap::new();
    let changed = snapshot.paths.iter().filter(|row| row.written_bytes > 0 || grown(row) > 0);
    for row in changed.take(MAX_FILES) {
        let Some((directory, _)) = row.path.rsplit_once('/') else { continue };
        let Some(pid) = row.writers.first() else { continue };
        if let Some(group) = group_of.get(&(*pid, row.volume.as_str())) {
            let tree = trees.entry((*group, &row.volume)).or_default();
            let add = |tree: &mut Tree, inflow| {
                tree.add(directory.as_bytes(), &Traffic { inflow, ..Traffic::default() });
            };
            add(&mut tree.growth, grown(row));
            add(&mut tree.written, row.written_bytes);
        }
    }
    for ((group, volume), GroupTree { growth, written }) in trees {
        let tree = if growth.is_empty() { written } else { growth };
        let passes = |path: &[u8]| {
            str::from_utf8(path).is_ok_and(|path| passing.contains(&format!("/{path}")))
        };
        let Some(hottest) = tree.rows(1, passes).pop().filter(|row| row.hot) else { continue };
        let directory = format!("/{}", String::from_utf8_lossy(&hottest.path));
        history.set_directory(group, volume, directory.clone());
        let row =
            snapshot.groups.iter_mut().find(|row| row.group == *group && row.volume == volume);
        if let Some(row) = row {
            row.directory = Some(directory);
        }
    }
}

/// The growth of a file in the interval, bytes; 0 if it is unknown or has shrunk.
fn grown(row: &PathRow) -> u64 {
    let (allocated, freed) = (row.allocated_bytes.unwrap_or(0), row.freed_bytes.unwrap_or(0));
    allocated.saturating_sub(freed)
}
