//! The result of an action: the last line of `filltop stop --json`.

use jiff::Timestamp;
use serde::Serialize;
use tracer_model::action::Action;
use tracer_model::action::event::StopEvent;
use tracer_model::snapshot::SCHEMA;

use super::supervisor::client::SupervisorHandle;
use super::suspend::SuspendReport;
use super::terminate::TerminateReport;

/// The result of an action.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// Version of the JSON form.
    pub schema: u32,
    /// [`StopEvent::Done`].
    pub event: StopEvent,
    /// The action.
    pub how: Action,
    /// Id for `filltop resume`.
    pub id: Option<String>,
    /// Result of a freeze, throttle or fence.
    #[serde(rename = "halted")]
    pub suspended: Option<SuspendReport>,
    /// Result of `term`, `kill` and `unit`.
    #[serde(rename = "ended")]
    pub terminated: Option<TerminateReport>,
    /// Space freed by a truncate, bytes.
    pub freed_bytes: Option<u64>,
    /// When the time limit is reached.
    pub until: Option<Timestamp>,
    /// System calls that a dry run left out, one line each.
    pub would: Vec<String>,
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// The supervisor, for the process that owns it.
    #[serde(skip)]
    pub supervisor: Option<SupervisorHandle>,
}

impl Outcome {
    /// Creates the outcome of an action that has not had any effect yet.
    pub(super) fn new(how: Action, dry_run: bool) -> Self {
        Self {
            schema: SCHEMA,
            event: StopEvent::Done,
            how,
            id: None,
            suspended: None,
            terminated: None,
            freed_bytes: None,
            until: None,
            would: Vec::new(),
            dry_run,
            supervisor: None,
        }
    }
}
