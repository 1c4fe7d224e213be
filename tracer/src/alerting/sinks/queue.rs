//! The queue of one sink: bounded, and adding an event never blocks.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracer_model::alert::{Event, EventKind};

use tracer_host::clock;

/// Maximum number of queued events. At a few kilobytes each, that is a few megabytes per sink.
pub(super) const CAPACITY: usize = 256;

#[derive(Default)]
struct State {
    queued: VecDeque<Arc<Event>>,
    current: Option<Attempt>,
    /// Keys of alerts that were queued for the sink and have not been resolved.
    active: HashSet<String>,
    dropped: u64,
    closed: bool,
}

/// The event being delivered.
struct Attempt {
    event: Arc<Event>,
    /// When the attempt began.
    since: Instant,
    /// Whether the attempt was reported as stalled.
    reported: bool,
}

/// The queue; see the module.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

/// The result of waiting for an event.
pub(super) enum Next {
    Event(Arc<Event>),
    /// No event within the given time.
    Idle,
    /// No more events will come.
    Closed,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. A reminder of an alert that is still queued is redundant and dropped. If the
    /// queue is full, the oldest reminder is dropped, or else the oldest event.
    pub(super) fn push(&self, event: Arc<Event>) {
        let mut state = self.state();
        if event.event == EventKind::Repeat {
            let same = |other: &Arc<Event>| other.key == event.key;
            let is_queued = state.queued.iter().any(same);
            if is_queued || state.current.as_ref().is_some_and(|attempt| same(&attempt.event)) {
                return;
            }
        }
        match event.event {
            EventKind::Resolved => {
                state.active.remove(&event.key);
            }
            EventKind::Firing if !state.active.contains(&event.key) => {
                state.active.insert(event.key.clone());
            }
            _ => {}
        }
        if state.queued.len() >= CAPACITY {
            let reminder = state.queued.iter().position(|e| e.event == EventKind::Repeat);
            state.queued.remove(reminder.unwrap_or(0));
            state.dropped += 1;
        }
        state.queued.push_back(event);
        self.changed.notify_all();
    }

    /// Whether the sink got this alert and not yet its end.
    pub(super) fn is_active(&self, key: &str) -> bool {
        self.state().active.contains(key)
    }

    /// Waits for the next event, which counts as being delivered until [`Queue::done`].
    pub(super) fn next(&self, wait: Option<Duration>) -> Next {
        let until = wait.map(|wait| clock::instant() + wait);
        let mut state = self.state();
        loop {
            if let Some(event) = state.queued.pop_front() {
                let since = clock::instant();
                state.current = Some(Attempt { event: Arc::clone(&event), since, reported: false });
                return Next::Event(event);
            }
            if state.closed {
                return Next::Closed;
            }
            state = match until.map(|until| until.saturating_duration_since(clock::instant())) {
                Some(Duration::ZERO) => return Next::Idle,
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Restarts the timer of [`Queue::report_stalled`]: an attempt has failed and another will follow.
    pub(super) fn restart_stall_timer(&self) {
        if let Some(attempt) = &mut self.state().current {
            attempt.since = clock::instant();
        }
    }

    /// Marks the current event as delivered or dropped.
    pub(super) fn done(&self) {
        self.state().current = None;
    }

    /// Waits before the next attempt; returns `false` if the queue was closed meanwhile.
    pub(super) fn pause(&self, length: Duration) -> bool {
        let until = clock::instant() + length;
        let mut state = self.state();
        while !state.closed {
            let left = until.saturating_duration_since(clock::instant());
            if left.is_zero() {
                return true;
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Number of queued events, the current one included.
    pub(super) fn len(&self) -> usize {
        let state = self.state();
        state.queued.len() + usize::from(state.current.is_some())
    }

    /// Number of events dropped because the queue was full, since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.state().dropped)
    }

    /// Number of queued events if the current attempt has taken longer than `timeout`; reported
    /// once per event.
    pub(super) fn report_stalled(&self, now: Instant, timeout: Duration) -> Option<usize> {
        let mut state = self.state();
        let queued = state.queued.len() + 1;
        let attempt = state.current.as_mut()?;
        if attempt.reported || now.saturating_duration_since(attempt.since) < timeout {
            return None;
        }
        attempt.reported = true;
        Some(queued)
    }

    /// Closes the queue: no more events; the queued ones can still be taken.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}
