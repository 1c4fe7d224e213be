//! The value that a rule's condition evaluates.

use super::rule::Condition;
use super::state::VolumeState;
use crate::snapshot::{Snapshot, Volume};

/// Returns the value of a condition on a whole volume; `None` if it is unknown or the condition is
/// not on a volume.
pub(super) fn volume_value(
    condition: &Condition,
    now: f64,
    volume: &Volume,
    state: &VolumeState,
) -> Option<f64> {
    let ratio = |part: f64, all: f64| (all > 0.0).then(|| part / all);
    // For a rule with `shrinking`, a volume that does not shrink never reaches the threshold.
    let avail = |shrinking: bool, value: f64| {
        if shrinking && !state.shrinks(volume) { f64::INFINITY } else { value }
    };
    match condition {
        Condition::TimeToFull if volume.full || volume.was_full => Some(0.0),
        Condition::TimeToFull => Some(volume.eta_s.unwrap_or(f64::INFINITY)),
        Condition::Full => Some(f64::from(u8::from(volume.full || volume.was_full))),
        Condition::UsedRatio => {
            let used = volume.used_bytes as f64;
            ratio(used, used + volume.avail_bytes as f64)
        }
        Condition::UsedBytes => Some(volume.used_bytes as f64),
        Condition::AvailRatio { shrinking } => {
            let part = ratio(volume.avail_bytes as f64, volume.total_bytes as f64)?;
            Some(avail(*shrinking, part))
        }
        Condition::AvailBytes { shrinking } => Some(avail(*shrinking, volume.avail_bytes as f64)),
        Condition::InodesRatio => {
            let all = volume.inodes_total as f64;
            ratio(all - volume.inodes_free as f64, all)
        }
        Condition::Growth => Some(state.growth_bytes_per_s),
        Condition::Held => volume.held_bytes.map(|bytes| bytes as f64),
        Condition::NoSpaceErrors => Some(state.no_space_errors as f64),
        Condition::WriteErrors => Some(state.write_errors as f64),
        Condition::FsyncWait => Some(state.fsync_s),
        Condition::Refill => Some(state.refilled_in_s(now)),
        Condition::DirSize { .. }
        | Condition::DirGrowth { .. }
        | Condition::Drain { .. }
        | Condition::WriterRate { .. }
        | Condition::GroupRate { .. } => None,
    }
}

/// Bytes written per second by (volume, name) of the processes or groups that a rate rule matches,
/// summed over processes.
pub(super) fn write_rates<'s>(
    condition: &Condition,
    snapshot: &'s Snapshot,
) -> Vec<((&'s str, &'s str), f64)> {
    let mut rates: std::collections::HashMap<(&str, &str), f64> = std::collections::HashMap::new();
    match condition {
        Condition::WriterRate { names } => {
            for row in snapshot.writers.iter().filter(|row| names.matches(&row.comm)) {
                *rates.entry((&row.volume, &row.comm)).or_default() += row.written_bytes_per_s;
            }
        }
        Condition::GroupRate { names } => {
            for row in snapshot.groups.iter().filter(|row| names.matches(&row.group.name)) {
                *rates.entry((&row.volume, &row.group.name)).or_default() +=
                    row.written_bytes_per_s;
            }
        }
        _ => {}
    }
    let mut rates: Vec<_> = rates.into_iter().collect();
    rates.sort_by(|a, b| a.0.cmp(&b.0));
    rates
}
