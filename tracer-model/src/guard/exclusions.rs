//! Groups that the guard does not act on, and why.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::config::GuardConfig;
use super::decision::Excluded;
use super::shares::Candidate;
use super::state::{Moment, VolumeState};
use super::{message, shares};
use crate::action::protect;
use crate::snapshot::{BehalfKind, Group, GroupKind, Snapshot, Volume};

/// Returns why the guard must not act on the culprit; `None` if it may.
pub(super) fn forbidden(
    config: &GuardConfig,
    at: Moment<'_>,
    state: &VolumeState,
    culprit: &Candidate,
) -> Option<String> {
    let Moment { now_s, snapshot, volume } = at;
    let group = &culprit.group;
    let victim = state.victims.get(&culprit.key()).is_some_and(|until| *until > now_s);
    protected(snapshot, group, config)
        .or_else(|| not_in_verdict(volume, group))
        .or_else(|| victim.then(|| "it is a victim: other groups had filled the volume".to_owned()))
        .or_else(|| {
            (group.kind == GroupKind::Unit && group.name.ends_with(".slice"))
                .then(|| "a slice contains many services".to_owned())
        })
        .or_else(|| {
            volume.mount_point.is_empty().then(|| "the volume has no mount point".to_owned())
        })
}

/// Returns all other groups that grew on the volume or have files open there, and why they were
/// not chosen.
pub(super) fn excluded(
    config: &GuardConfig,
    at: Moment<'_>,
    state: &VolumeState,
    culprit: &Candidate,
) -> Vec<Excluded> {
    let Moment { snapshot, volume, .. } = at;
    let mut excluded = BTreeMap::new();
    for candidate in state.shares.candidates() {
        if candidate.key() == culprit.key() {
            continue;
        }
        let reason = forbidden(config, at, state, &candidate)
            .unwrap_or_else(|| format!("only {:.0} % of the growth", candidate.share * 100.0));
        excluded.insert(message::group(&candidate.group), reason);
    }
    for resident in snapshot.residents.iter().filter(|row| row.volume == volume.mount_point) {
        let name = message::group(&resident.group);
        if name != message::group(&culprit.group)
            && let Some(reason) = protected(snapshot, &resident.group, config)
        {
            excluded.entry(name).or_insert(reason);
        }
    }
    excluded.into_iter().map(|(group, reason)| Excluded { group, reason }).collect()
}

/// Returns why the verdict on the volume does not allow to act on a group: it is not the cause, or
/// writes for somebody else.
fn not_in_verdict(volume: &Volume, group: &Group) -> Option<String> {
    let verdict = volume.verdict.as_ref()?;
    let key = shares::key(group);
    let is_group = |other: Option<&Group>| other.is_some_and(|other| shares::key(other) == key);
    let Some(culprit) = verdict.culprits.iter().find(|one| is_group(one.group.as_ref())) else {
        return Some("the verdict names others as the cause".to_owned());
    };
    match &culprit.on_behalf_of {
        // The container's own group is charged with its log.
        Some(behalf) if behalf.kind == BehalfKind::ContainerLog => None,
        Some(behalf) if behalf.kind == BehalfKind::VirtualMachine => None,
        Some(behalf) => Some(format!("it writes on behalf of {}", behalf.name)),
        None => None,
    }
}

/// Returns why the guard must not act on a group, as far as the Snapshot shows.
fn protected(snapshot: &Snapshot, group: &Group, config: &GuardConfig) -> Option<String> {
    if let Some(rule) = protect::unit_rule(group.kind, &group.name) {
        return Some(format!("protected ({rule})"));
    }
    if let Some(pattern) = config.avoid.iter().find(|pattern| pattern.matches(&group.name)) {
        return Some(format!("avoid = {:?}", pattern.text()));
    }
    let same = |other: &Group| shares::key(other) == shares::key(group);
    let writers = snapshot.writers.iter().filter(|row| row.group.as_ref().is_some_and(same));
    for writer in writers {
        if let Some(pattern) = config.avoid.iter().find(|pattern| pattern.matches(&writer.comm)) {
            return Some(format!("avoid = {:?}", pattern.text()));
        }
        let names = [protect::PROTECTED_NAMES, protect::LOG_DAEMONS, protect::DATABASES];
        let serves = |volume: &Volume| {
            volume.served_by.as_ref().is_some_and(|server| server.pid == writer.pid)
        };
        if let Some(served) = snapshot.volumes.iter().find(|volume| serves(volume)) {
            return Some(format!("protected (it serves {})", served.mount_point));
        }
        let program = protect::program(&writer.comm, writer.cmdline.as_deref());
        if let Some(rule) = names.iter().find_map(|rules| protect::matching_rule(rules, program)) {
            return Some(format!("protected ({rule})"));
        }
    }
    let residents = snapshot.residents.iter().filter(|row| same(&row.group));
    let database = residents.flat_map(|row| &row.databases).next()?;
    Some(format!("protected (it is a database: {database})"))
}

/// Returns the running processes of a group and the process that spawns them, with their start times
/// if known.
pub(super) fn members(snapshot: &Snapshot, group: &Group) -> Vec<(u32, Option<Timestamp>)> {
    let key = shares::key(group);
    let same = |other: &Group| shares::key(other) == key;
    let mut found: BTreeMap<u32, Option<Timestamp>> = BTreeMap::new();
    for row in snapshot.groups.iter().filter(|row| same(&row.group)) {
        if let Some(spawner) = &row.spawner {
            found.insert(spawner.pid, None);
        }
    }
    for writer in snapshot.writers.iter().filter(|writer| writer.alive) {
        if writer.group.as_ref().is_some_and(same) {
            found.insert(writer.pid, Some(writer.start_time));
        }
    }
    found.into_iter().collect()
}
