//! Requests to the helper and its responses: one JSON line each, over a socket.

use serde::{Deserialize, Serialize};
use tracer_model::action::protect::Protection;

use crate::actions::request::StopRequest;

/// A request to the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Request number, repeated in the responses.
    pub number: u64,
    /// The command.
    pub command: Command,
}

/// A command for the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Carry out an action.
    Act {
        /// The action and its target.
        request: Box<StopRequest>,
        /// Processes and groups that must not be acted on.
        protection: Protection,
    },
    /// Resume what this id, TARGET or name stands for.
    Resume(String),
}

/// A response of the helper. A request can have two: the result of the action, and later the end of the
/// suspension.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Response {
    /// Number of the request.
    pub number: u64,
    /// The status.
    pub status: Status,
    /// Whether the target is now suspended, as long as the requester runs.
    pub suspended: bool,
    /// The message.
    pub message: String,
}

/// The status of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// The action was carried out. A suspended target stays so until [`Status::Over`].
    Done,
    /// No process of the target is left, after the action or already before it.
    Ended,
    /// The plan refused the action.
    Refused,
    /// The action failed with an error.
    Failed,
    /// The suspension has ended: the time limit was reached, or the target was resumed.
    Over,
}
