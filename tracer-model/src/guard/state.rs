//! The guard's state of one volume: each group's share of its growth, its episode of danger, its
//! victims, and the escalations.

use std::collections::{BTreeMap, BTreeSet};

use super::shares;
use super::shares::{Key, Shares};
use crate::snapshot::{Group, Snapshot, Volume};

/// How long a group counts as a victim on a volume after a write there failed for lack of space,
/// seconds.
const VICTIM_S: f64 = 600.0;

/// A volume in a Snapshot, and the time of the evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    /// Seconds, monotonic clock.
    pub(super) now_s: f64,
    pub(super) snapshot: &'a Snapshot,
    pub(super) volume: &'a Volume,
}

/// The escalation against one culprit: how far along the ladder it is.
#[derive(Debug, Clone)]
pub(super) struct Escalation {
    pub(super) group: Group,
    /// Index of the ladder's next step.
    pub(super) next: usize,
    /// Id of the decision that took the last step.
    pub(super) id: u64,
    /// Whether the last step can be undone (freeze, throttle or fence) and is still in force.
    pub(super) in_force: bool,
    /// When the last step was taken, seconds.
    pub(super) since_s: f64,
    /// Number of the episode in which the group was the culprit.
    pub(super) episode: u64,
    /// Whether the escalation is over for this episode: the action was refused, or its suspension
    /// ended (resumed by an operator, or the time limit was reached).
    pub(super) over: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct VolumeState {
    pub(super) shares: Shares,
    /// Number of the current or most recent episode of danger.
    pub(super) episode: u64,
    /// Since when the volume is in danger, seconds; `None` while it is not.
    pub(super) since_s: Option<f64>,
    /// When the volume was last in danger, seconds.
    pub(super) endangered_s: Option<f64>,
    /// Groups whose writes failed for lack of space, and until when they count as victims.
    pub(super) victims: BTreeMap<Key, f64>,
    pub(super) escalations: BTreeMap<Key, Escalation>,
    /// The reasons for inaction that were already reported in this episode.
    pub(super) reported: BTreeSet<Restraint>,
}

/// Why nothing is done. Each reason is reported once per episode, even if the numbers in its message
/// change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Restraint {
    /// Most of the growth is not explained.
    Blind,
    /// `max_per_hour` is reached.
    HourlyLimit,
    /// The last action was less than `cool_down` ago.
    CoolDown,
    /// This group must not be acted on, for this reason.
    Forbidden(Key, String),
}

impl VolumeState {
    /// Tracks whether the volume is in danger. A danger that begins after more than `rest_s` without
    /// one is a new episode.
    pub(super) fn track_episode(&mut self, now_s: f64, endangered: bool, rest_s: f64) {
        if endangered {
            let rested = self.endangered_s.is_none_or(|last| now_s - last > rest_s);
            if self.since_s.is_none() && rested {
                self.episode += 1;
                self.reported.clear();
            }
            self.endangered_s = Some(now_s);
            self.since_s.get_or_insert(now_s);
        } else {
            self.since_s = None;
        }
    }

    /// Records victims: a group whose writes fail, but that does not fill the volume, counts as a
    /// victim for [`VICTIM_S`], whatever it writes once there is space again.
    pub(super) fn note_victims(&mut self, at: Moment<'_>, share: f64) {
        let Moment { now_s, snapshot, volume } = at;
        self.victims.retain(|_, until| *until > now_s);
        for victim in snapshot.victims.iter().filter(|row| row.volume == volume.mount_point) {
            let writer = snapshot.writers.iter().find(|writer| writer.pid == victim.pid);
            let Some(group) = writer.and_then(|writer| writer.group.as_ref()) else { continue };
            let key = shares::key(group);
            let fills = self.shares.of(&key).is_some_and(|candidate| candidate.share >= share);
            // A culprit does not become a victim because the volume that it filled is full.
            if !fills && !self.escalations.contains_key(&key) {
                self.victims.insert(key, now_s + VICTIM_S);
            }
        }
    }
}
