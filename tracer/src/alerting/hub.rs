//! Where others join a running watch: metrics, the socket's clients, the guard.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracer_model::alert::Event;
use tracer_model::guard::GuardConfig;
use tracer_model::snapshot::Snapshot;

/// Events that a slow listener may be behind before it loses the oldest.
const BEHIND: usize = 256;

/// What can be asked of a running watch.
#[derive(Debug)]
pub enum Control {
    /// No more reminders of these alerts until they get worse or come again.
    Acknowledge {
        /// Of this rule; `None`: of any.
        rule: Option<String>,
        /// On this mount point; `None`: on any.
        volume: Option<String>,
        /// How many it were.
        answer: oneshot::Sender<usize>,
    },
    /// Read the configuration again.
    Reload {
        /// What was wrong with it, if anything.
        answer: oneshot::Sender<Result<(), String>>,
    },
}

/// A watch's loose ends: subscribe to what it sees, hand in what it is asked.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The last Snapshot; `None` until there is one. It is never waited for.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// All events, health and actions included.
    pub events: broadcast::Sender<Arc<Event>>,
    /// Wishes.
    pub control: mpsc::Sender<Control>,
}

impl Hub {
    /// A hub, and where its wishes arrive.
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

/// Who acts on what is seen. It is called with each Snapshot and the events that came of it, and
/// answers with events of its own ([`EventKind::Action`](tracer_model::alert::EventKind::Action)),
/// which are delivered like all others. It must not block.
pub trait Guard {
    /// Takes in one Snapshot.
    fn see(&mut self, snapshot: &Snapshot, events: &[Event]) -> Vec<Event>;

    /// Goes by another configuration from now on.
    ///
    /// # Errors
    /// Why it cannot, in one line.
    fn replace(&mut self, config: &GuardConfig) -> Result<(), String>;
}
