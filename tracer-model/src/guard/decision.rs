//! What the guard decides, and what becomes of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::snapshot::Group;

/// Somebody who was not chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spared {
    /// Kind and name of the group.
    pub group: String,
    /// Why not.
    pub reason: String,
}

/// What is to be done, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its number, for [`Policy::done`](super::Policy::done).
    pub id: u64,
    /// Mount point.
    pub volume: String,
    /// Who fills it.
    pub group: Group,
    /// The step; `None` where nothing may be done: `explanation` says why.
    pub step: Option<Action>,
    /// Is it only said?
    pub dry_run: bool,
    /// Of a throttle, bytes per second.
    pub rate: Option<u64>,
    /// When a freeze or throttle ends by itself, seconds.
    pub for_s: f64,
    /// Processes of the group that are known to run, with their starts where known.
    pub members: Vec<(u32, Option<Timestamp>)>,
    /// Its share of the volume's growth, 0..1.
    pub share: f64,
    /// Its growth, bytes per second.
    pub growth_bytes_per_s: f64,
    /// Others on this volume, and why they are not chosen.
    pub spared: Vec<Spared>,
    /// All of it in words: chosen because …; not X because ….
    pub explanation: String,
}

/// How a decision ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Did {
    /// It was done.
    Done,
    /// It was done, and nothing of it is left.
    Ended,
    /// The last look at its processes forbade it, or nothing of it was left.
    Refused(String),
    /// The kernel would not.
    Failed(String),
}
