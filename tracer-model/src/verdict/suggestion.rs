//! The next step: the mildest action that helps, on a target that may be acted on.

use super::protected::{has_database, is_untouchable, serves_a_volume};
use crate::action::protect;
use crate::sanitize;
use crate::snapshot::{
    BehalfKind, Culprit, GroupKind, Held, HeldBy, NoSuggestion, Resource, Snapshot, State,
    Suggestion, Verdict, Volume,
};

/// Held space below this share of the volume does not justify ending the process that holds it.
pub(crate) const SIGNIFICANT_HELD_SHARE: f64 = 0.05;
/// A culprit with less than this share is not worth an action: the volume fills almost as fast
/// without it.
const MIN_SHARE: f64 = 0.25;

/// Returns the next step, or why there is none. What is free is freed first: deleted files whose
/// holder may be ended; then the culprit is frozen, which loses nothing.
pub(super) fn next_step(
    snapshot: &Snapshot,
    volume: &Volume,
    verdict: &Verdict,
) -> Result<Suggestion, NoSuggestion> {
    if !matches!(verdict.state, State::Filling | State::Full) {
        return Err(NoSuggestion::NotNeeded);
    }
    if verdict.resource == Resource::Bytes
        && let Some(step) = end_holder(snapshot, volume, SIGNIFICANT_HELD_SHARE)
    {
        return Ok(step);
    }
    for_culprit(snapshot, volume, verdict)
}

/// Suggests a freeze of the first culprit, or says why not.
pub(crate) fn for_culprit(
    snapshot: &Snapshot,
    volume: &Volume,
    verdict: &Verdict,
) -> Result<Suggestion, NoSuggestion> {
    if verdict.mostly_unexplained {
        return Err(NoSuggestion::Unexplained);
    }
    let first = verdict.culprits.first().ok_or(NoSuggestion::Unexplained)?;
    if first.ended {
        return Err(NoSuggestion::Ended);
    }
    if first.share < MIN_SHARE {
        return Err(NoSuggestion::Spread);
    }
    match &first.on_behalf_of {
        Some(behalf) if behalf.kind == BehalfKind::ContainerLog => {
            let container = behalf.group.as_ref().ok_or(NoSuggestion::OnBehalfOfUnknown)?;
            // It no longer runs if it has no cgroup.
            if container.cgroup.is_none() {
                return Err(NoSuggestion::OnBehalfOfUnknown);
            }
            if has_database(snapshot, &volume.mount_point, container) {
                return Err(NoSuggestion::Database);
            }
            let target = container.target().ok_or(NoSuggestion::NoTarget)?;
            return Ok(action(target, "freeze", 0));
        }
        Some(behalf) if behalf.kind != BehalfKind::VirtualMachine => {
            return for_client(snapshot, behalf);
        }
        _ => {}
    }
    if is_protected(snapshot, first) {
        return Err(NoSuggestion::Protected);
    }
    if is_database(snapshot, volume, first) {
        return Err(NoSuggestion::Database);
    }
    let target = first.target.clone().ok_or(NoSuggestion::NoTarget)?;
    Ok(action(target, "freeze", 0))
}

/// Suggests a freeze of the process that writes through a server. A log daemon's senders name
/// themselves, so nothing is done to them.
fn for_client(
    snapshot: &Snapshot,
    behalf: &crate::snapshot::OnBehalfOf,
) -> Result<Suggestion, NoSuggestion> {
    if !matches!(behalf.kind, BehalfKind::Fuse | BehalfKind::LoopDevice) {
        return Err(NoSuggestion::Protected);
    }
    let client = behalf.processes.first().ok_or(NoSuggestion::OnBehalfOfUnknown)?;
    let row = snapshot
        .writers
        .iter()
        .find(|row| row.pid == client.pid && Some(&row.volume) == behalf.mount_point.as_ref())
        .ok_or(NoSuggestion::OnBehalfOfUnknown)?;
    if !row.alive {
        return Err(NoSuggestion::Ended);
    }
    let database =
        row.group.as_ref().is_some_and(|group| has_database(snapshot, &row.volume, group));
    if database || protect::matching_rule(protect::DATABASES, &row.comm).is_some() {
        return Err(NoSuggestion::Database);
    }
    if protect::is_protected_name(&row.comm, row.cmdline.as_deref())
        || protect::is_kernel_thread(row)
        || serves_a_volume(snapshot, row.pid)
    {
        return Err(NoSuggestion::Protected);
    }
    Ok(action(row.pid.to_string(), "freeze", 0))
}

/// Suggests to end the process that holds the largest deleted file, if it alone holds at least this
/// share of the volume and may be ended.
pub(crate) fn end_holder(
    snapshot: &Snapshot,
    volume: &Volume,
    min_share: f64,
) -> Option<Suggestion> {
    let here = || {
        snapshot
            .held
            .iter()
            .filter(|row| row.volume == volume.mount_point && row.held_by != HeldBy::Unknown)
    };
    let largest = here().max_by_key(|row| row.bytes)?;
    let is_alone = |row: &&Held| row.holders.as_slice() == [largest.pid];
    let frees: u64 = here().filter(is_alone).map(|row| row.bytes).sum();
    let frees = frees.min(volume.used_bytes);
    let is_process = matches!(largest.held_by, HeldBy::Descriptor | HeldBy::Mapping);
    let ended = snapshot.writers.iter().any(|row| row.pid == largest.pid && !row.alive);
    let database = protect::matching_rule(protect::DATABASES, &largest.comm).is_some();
    let allowed = is_process
        && !ended
        && !database
        && frees > 0
        && frees as f64 >= min_share * volume.total_bytes as f64
        && !is_untouchable(snapshot, largest);
    allowed.then(|| action(largest.pid.to_string(), "term", frees))
}

/// The target that `filltop stop` accepts for a culprit; `None` if there is none. `is_for_container`:
/// its group is the container whose log it writes.
pub(super) fn target(culprit: &Culprit, is_for_container: bool) -> Option<String> {
    if culprit.ended {
        return None;
    }
    match &culprit.group {
        Some(group) if culprit.is_group || is_for_container => {
            // A container's monitor is never a target: it owns the container's terminal.
            group.target().filter(|_| group.kind != GroupKind::Monitor)
        }
        _ => culprit.pids.first().map(ToString::to_string),
    }
}

fn action(target: String, how: &str, frees_bytes: u64) -> Suggestion {
    let command = format!("filltop stop {} --how {how}", sanitize::shell_word(&target));
    Suggestion { target, how: how.to_owned(), frees_bytes, command }
}

/// Whether the machine depends on the culprit.
fn is_protected(snapshot: &Snapshot, culprit: &Culprit) -> bool {
    let by_unit = culprit.group.as_ref().is_some_and(|group| {
        group.kind == GroupKind::Monitor || protect::unit_rule(group.kind, &group.name).is_some()
    });
    by_unit || culprit.protected || culprit.pids.iter().any(|pid| serves_a_volume(snapshot, *pid))
}

fn is_database(snapshot: &Snapshot, volume: &Volume, culprit: &Culprit) -> bool {
    culprit.database
        || culprit
            .group
            .as_ref()
            .is_some_and(|group| has_database(snapshot, &volume.mount_point, group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn no_more_is_freed_than_is_used() {
        let mut snapshot = fixtures::busy();
        let mut volume = snapshot.volumes[0].clone();
        snapshot.held.truncate(1);
        snapshot.held[0].comm = "reader".to_owned();
        let held = snapshot.held[0].bytes;
        let frees = |volume: &Volume| {
            end_holder(&snapshot, volume, 0.0).map(|suggestion| suggestion.frees_bytes)
        };
        assert_eq!(frees(&volume), Some(held));
        volume.used_bytes = held / 2;
        assert_eq!(frees(&volume), Some(held / 2));
        volume.used_bytes = 0;
        assert_eq!(frees(&volume), None);
    }
}
