//! The order to a supervisor and its reply: one JSON line each, over a socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::actions::record::Suspension;
use crate::actions::suspend::SuspendReport;

/// The order to suspend a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SuspendOrder {
    /// The target and the method.
    pub suspension: Suspension,
    /// Files through which the supervisor leaves a container's cgroups before it suspends anything.
    pub exit_files: Vec<PathBuf>,
    /// Time limit, seconds.
    pub for_s: f64,
    /// Whether to resume the target as soon as the other end of the socket is closed.
    pub ends_with_owner: bool,
}

/// The reply of a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The target is suspended.
    Suspended(SuspendReport),
    /// A process left the cgroup while it was being frozen; nothing is suspended.
    Escaped(String),
    /// The target could not be suspended; nothing is suspended.
    Failed(String),
}
