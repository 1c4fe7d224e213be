//! Interfaces of a running watch for other parts of the program.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracer_model::alert::Event;
use tracer_model::guard::GuardConfig;
use tracer_model::snapshot::Snapshot;

/// Number of events that a slow subscriber may lag behind before it loses the oldest.
const BEHIND: usize = 256;

/// Requests to a running watch.
#[derive(Debug)]
pub enum Control {
    /// Acknowledge alerts: no reminders until they get worse or fire again.
    Acknowledge {
        /// Only of this rule; `None`: of any.
        rule: Option<String>,
        /// Only on this mount point; `None`: on any.
        volume: Option<String>,
        /// Number of alerts acknowledged.
        answer: oneshot::Sender<usize>,
    },
    /// Reload the configuration.
    Reload {
        /// The error, if the configuration is invalid.
        answer: oneshot::Sender<Result<(), String>>,
    },
}

/// Channels of a running watch: subscribe to its Snapshots and events, send it requests.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The last Snapshot; `None` until there is one. Sending never waits.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// All events, health and actions included.
    pub events: broadcast::Sender<Arc<Event>>,
    /// Requests.
    pub control: mpsc::Sender<Control>,
}

impl Hub {
    /// Creates a hub, with the receiver of its requests.
    pub(super) fn new() -> (Self, mpsc::Receiver<Control>) {
        let (control, wishes) = mpsc::channel(16);
        let hub = Self {
            snapshots: watch::Sender::new(None),
            events: broadcast::Sender::new(BEHIND),
            control,
        };
        (hub, wishes)
    }
}

/// Interface of the guard. It is called with each Snapshot and the resulting events, and returns
/// events of its own ([`EventKind::Action`](tracer_model::alert::EventKind::Action)), which are
/// delivered like all others. It must not block.
pub trait Guard {
    /// Evaluates one Snapshot; may start an action.
    fn see(&mut self, snapshot: &Snapshot, events: &[Event]) -> Vec<Event>;

    /// Replaces the configuration.
    ///
    /// # Errors
    /// The reason why it cannot, in one line.
    fn replace(&mut self, config: &GuardConfig) -> Result<(), String>;
}
