//! The guard's decisions and their results.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::snapshot::Group;

/// A group that was not chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Kind and name of the group.
    pub group: String,
    /// Why it was not chosen.
    pub reason: String,
}

/// What is to be done, or would be done in a dry run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Number of the decision, for [`Policy::record_result`](super::Policy::record_result).
    pub id: u64,
    /// Mount point of the volume.
    pub volume: String,
    /// The group that fills the volume.
    pub group: Group,
    /// The action; `None` if nothing may be done, for the reason in `explanation`.
    pub step: Option<Action>,
    /// Whether the decision is only reported and not carried out.
    pub dry_run: bool,
    /// Rate of a throttle, bytes per second.
    pub rate: Option<u64>,
    /// Time limit of a freeze, throttle or fence, seconds.
    pub for_s: f64,
    /// Pids of the group's known running processes, with their start times if known.
    pub members: Vec<(u32, Option<Timestamp>)>,
    /// The group's share of the volume's growth, 0..1.
    pub share: f64,
    /// The group's growth, bytes per second.
    pub growth_bytes_per_s: f64,
    /// Other groups on this volume, and why they were not chosen.
    pub excluded: Vec<Excluded>,
    /// The decision in words: chosen because …; not X because ….
    pub explanation: String,
}

/// The result of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionResult {
    /// The action was carried out.
    Done,
    /// The action was carried out, and no process of the group is left.
    Ended,
    /// The final check of the processes refused the action, or no process was left.
    Refused(String),
    /// The action failed with a system error.
    Failed(String),
}
