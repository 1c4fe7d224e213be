//! The queue of one sink: bounded, and adding an event never blocks.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracer_model::alert::{Event, EventKind};

use tracer_host::clock;

/// Maximum number of queued events. At a few kilobytes each, that is a few megabytes per sink.
pub(super) const LONGEST: usize = 256;

#[derive(Default)]
struct Inside {
    waiting: VecDeque<Arc<Event>>,
    /// The event being delivered, when the attempt began, and whether it was reported as stalled.
    current: Option<(Arc<Event>, Instant, bool)>,
    /// Keys of alerts that were queued for the sink and have not been resolved.
    known: HashSet<String>,
    dropped: u64,
    closed: bool,
}

/// The queue; see the module.
#[derive(Default)]
pub(super) struct Queue {
    inside: Mutex<Inside>,
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
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. A reminder of an alert that is still queued is redundant and dropped. If the
    /// queue is full, the oldest reminder is dropped, or else the oldest event.
    pub(super) fn push(&self, event: Arc<Event>) {
        let mut inside = self.inside();
        if event.event == EventKind::Repeat {
            let same = |other: &Arc<Event>| other.key == event.key;
            let waits = inside.waiting.iter().any(same);
            if waits || inside.current.as_ref().is_some_and(|(current, ..)| same(current)) {
                return;
            }
        }
        match event.event {
            EventKind::Resolved => {
                inside.known.remove(&event.key);
            }
            EventKind::Firing if !inside.known.contains(&event.key) => {
                inside.known.insert(event.key.clone());
            }
            _ => {}
        }
        if inside.waiting.len() >= LONGEST {
            let reminder = inside.waiting.iter().position(|e| e.event == EventKind::Repeat);
            inside.waiting.remove(reminder.unwrap_or(0));
            inside.dropped += 1;
        }
        inside.waiting.push_back(event);
        self.changed.notify_all();
    }

    /// Whether the sink got this alert and not yet its end.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.inside().known.contains(key)
    }

    /// Waits for the next event, which counts as being delivered until [`Queue::done`].
    pub(super) fn next(&self, wait: Option<Duration>) -> Next {
        let until = wait.map(|wait| clock::instant() + wait);
        let mut inside = self.inside();
        loop {
            if let Some(event) = inside.waiting.pop_front() {
                inside.current = Some((Arc::clone(&event), clock::instant(), false));
                return Next::Event(event);
            }
            if inside.closed {
                return Next::Closed;
            }
            inside = match until.map(|until| until.saturating_duration_since(clock::instant())) {
                Some(Duration::ZERO) => return Next::Idle,
                Some(left) => {
                    self.changed
                        .wait_timeout(inside, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self.changed.wait(inside).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Restarts the stall timer: an attempt has failed and another will follow.
    pub(super) fn tried(&self) {
        if let Some((_, since, _)) = &mut self.inside().current {
            *since = clock::instant();
        }
    }

    /// Marks the current event as delivered or dropped.
    pub(super) fn done(&self) {
        self.inside().current = None;
    }

    /// Waits before the next attempt; returns `false` if the queue was closed meanwhile.
    pub(super) fn pause(&self, length: Duration) -> bool {
        let until = clock::instant() + length;
        let mut inside = self.inside();
        while !inside.closed {
            let left = until.saturating_duration_since(clock::instant());
            if left.is_zero() {
                return true;
            }
            inside =
                self.changed.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Number of queued events, the current one included.
    pub(super) fn len(&self) -> usize {
        let inside = self.inside();
        inside.waiting.len() + usize::from(inside.current.is_some())
    }

    /// Number of events dropped because the queue was full, since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.inside().dropped)
    }

    /// Number of queued events if the current attempt has taken longer than `most`; reported once
    /// per event.
    pub(super) fn stalled(&self, now: Instant, most: Duration) -> Option<usize> {
        let mut inside = self.inside();
        let waiting = inside.waiting.len() + 1;
        let (_, since, reported) = inside.current.as_mut()?;
        if *reported || now.saturating_duration_since(*since) < most {
            return None;
        }
        *reported = true;
        Some(waiting)
    }

    /// Closes the queue: no more events; the queued ones can still be taken.
    pub(super) fn close(&self) {
        self.inside().closed = true;
        self.changed.notify_all();
    }
}
