//! A request to act: the target, the action, and who wants it. It can be sent to another process.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracer_model::action::{Action, Intent};
use tracer_model::snapshot::Group;

use super::target::Reach;

/// How a request names its target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum TargetSpec {
    /// TARGET as given on the command line.
    Word(String),
    /// A process from a Snapshot.
    Process {
        /// Process id.
        pid: u32,
        /// Start time from the Snapshot; `None` if unknown.
        start_time: Option<Timestamp>,
    },
    /// A group from a Snapshot, with the pids and start times of its processes.
    Group(Group, Vec<(u32, Option<Timestamp>)>),
}

/// A requested action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StopRequest {
    /// The target.
    pub spec: TargetSpec,
    /// Which related processes a pid includes.
    pub reach: Reach,
    /// The action.
    pub how: Action,
    /// Rate of a throttle, bytes per second.
    pub rate: Option<u64>,
    /// For a fence: any path on the volume.
    pub volume: Option<PathBuf>,
    /// Time limit of a freeze, throttle or fence, seconds.
    pub for_s: f64,
    /// The file to truncate.
    pub file: Option<String>,
    /// Who decided.
    pub intent: Intent,
    /// Whether to stop before the last system call.
    pub dry_run: bool,
    /// Whether the suspension ends when the requester exits.
    pub ends_with_owner: bool,
    /// The requester, for the audit line.
    pub who: String,
    /// The reason, for the audit line.
    pub reason: String,
    /// An additional file for the audit line.
    pub log: Option<PathBuf>,
}

/// Default time limit of a freeze, throttle or fence, seconds.
pub(crate) const DEFAULT_FOR_S: f64 = 15.0 * 60.0;
