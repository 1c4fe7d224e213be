//! The state that scrapes are answered from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracer_model::snapshot::Snapshot;

use super::exposition::Format;
use super::families::{ProcessStats, render};
use super::totals::Totals;

/// The sums and the newest Snapshot, shared by the measuring thread and the HTTP server.
pub struct Metrics {
    state: Mutex<(Totals, Option<Arc<Snapshot>>)>,
}

impl Metrics {
    /// Creates the state before the first Snapshot.
    #[must_use]
    pub const fn new(totals: Totals) -> Self {
        Self { state: Mutex::new((totals, None)) }
    }

    /// Adds a Snapshot. Every Snapshot must be added, or its bytes are missing in the counters.
    pub fn add(&self, snapshot: Arc<Snapshot>) {
        let (totals, newest) = &mut *self.state();
        totals.add(&snapshot);
        *newest = Some(snapshot);
    }

    /// The text of a scrape; `None` before the first Snapshot.
    #[must_use]
    pub fn text(&self, stats: &ProcessStats, format: Format) -> Option<String> {
        let (totals, newest) = &*self.state();
        Some(render(newest.as_ref()?, totals, stats, format))
    }

    /// Locks the state. After a panic of another thread, the sums lack at most one Snapshot.
    fn state(&self) -> MutexGuard<'_, (Totals, Option<Arc<Snapshot>>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
