//! The kinds of lines that `filltop stop --json` prints.

use serde::{Deserialize, Serialize};

/// The kind of a line of `filltop stop --json`, in the order in which they are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopEvent {
    /// What the action would do.
    Plan,
    /// The audit line, written before the action is carried out.
    Action,
    /// The result.
    Done,
}
