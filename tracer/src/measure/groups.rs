//! Rolls writers up to groups.

use std::collections::HashMap;

use tracer_common::ProcKey;
use tracer_model::snapshot::Snapshot;

use super::context::Volumes;
use super::interval::IntervalCounts;
use crate::attribute::groups::history::{ActiveProcess, GroupHistory};
use crate::attribute::groups::{Groups, Membership};

/// Adds this interval to the history of groups, and the resulting rows to the Snapshot.
pub(super) fn add_groups(
    snapshot: &mut Snapshot,
    counts: &IntervalCounts,
    volumes: &Volumes<'_>,
    groups: &mut Groups,
    history: &mut GroupHistory,
) {
    let mut created: HashMap<(ProcKey, u32), u64> = HashMap::new();
    for pair in counts.pairs().keys() {
        created.entry((pair.process(), pair.dev)).or_default();
    }
    for (key, count) in &counts.created {
        *created.entry((key.process(), key.dev)).or_default() += count;
    }
    let members: Vec<(ProcKey, &str, Membership, u64)> = created
        .into_iter()
        .filter_map(|((proc, dev), count)| {
            Some((proc, &*volumes.get(dev)?.name, groups.member(&proc)?.clone(), count))
        })
        .collect();
    let active: Vec<ActiveProcess<'_>> = members
        .iter()
        .map(|(proc, volume, member, created)| ActiveProcess {
            proc: *proc,
            volume,
            member,
            created: *created,
        })
        .collect();
    history.update(snapshot, &active);
    name_directories(history, snapshot);
}

/// Sets the hottest directory of each group: the one that its processes wrote most to.
fn name_directories(history: &mut GroupHistory, snapshot: &mut Snapshot) {
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
