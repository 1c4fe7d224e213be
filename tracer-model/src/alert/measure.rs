//! The value that a rule's condition evaluates.

use super::rule::When;
use super::state::VolumeMemory;
use crate::snapshot::{Snapshot, Volume};

/// Returns the value of a condition on a whole volume; `None` if it is unknown or the condition is
/// not on a volume.
pub(super) fn of_volume(
    when: &When,
    now: f64,
    volume: &Volume,
    memory: &VolumeMemory,
) -> Option<f64> {
    let ratio = |part: f64, all: f64| (all > 0.0).then(|| part / all);
    // For a rule with `shrinking`, a volume that does not shrink never reaches the threshold.
    let avail = |shrinking: bool, value: f64| {
        if shrinking && !memory.shrinks(volume) { f64::INFINITY } else { value }
    };
    match when {
        When::TimeToFull if volume.full => Some(0.0),
        When::TimeToFull => Some(volume.eta_s.unwrap_or(f64::INFINITY)),
        When::Full => Some(f64::from(u8::from(volume.full))),
        When::UsedRatio => {
            let used = volume.used_bytes as f64;
            ratio(used, used + volume.avail_bytes as f64)
        }
        When::UsedBytes => Some(volume.used_bytes as f64),
        When::AvailRatio { shrinking } => {
            let part = ratio(volume.avail_bytes as f64, volume.total_bytes as f64)?;
            Some(avail(*shrinking, part))
        }
        When::AvailBytes { shrinking } => Some(avail(*shrinking, volume.avail_bytes as f64)),
        When::InodesRatio => {
            let all = volume.inodes_total as f64;
            ratio(all - volume.inodes_free as f64, all)
        }
        When::Growth => Some(memory.growth),
        When::Held => volume.held_bytes.map(|bytes| bytes as f64),
        When::NoSpaceErrors => Some(memory.errors[0] as f64),
        When::WriteErrors => Some(memory.errors[1] as f64),
        When::FsyncWait => Some(memory.fsync_s),
        When::Refill => Some(memory.refilled_in_s(now)),
        When::DirSize { .. }
        | When::DirGrowth { .. }
        | When::Drain { .. }
        | When::WriterRate { .. }
        | When::GroupRate { .. } => None,
    }
}

/// Bytes written per second by (volume, name) of the processes or groups that a rate rule matches,
/// summed over processes.
pub(super) fn rates<'s>(when: &When, snapshot: &'s Snapshot) -> Vec<((&'s str, &'s str), f64)> {
    let mut rates: std::collections::HashMap<(&str, &str), f64> = std::collections::HashMap::new();
    match when {
        When::WriterRate { who } => {
            for row in snapshot.writers.iter().filter(|row| who.matches(&row.comm)) {
                *rates.entry((&row.volume, &row.comm)).or_default() += row.written_bytes_per_s;
            }
        }
        When::GroupRate { who } => {
            for row in snapshot.groups.iter().filter(|row| who.matches(&row.group.name)) {
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
