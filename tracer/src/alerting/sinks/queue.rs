//! What waits for one sink: bounded, and never blocking for who puts something in.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracer_model::alert::{Event, EventKind};

use tracer_host::clock;

/// Events that may wait. At some kilobytes each that is at most some megabytes a sink.
pub(super) const LONGEST: usize = 256;

#[derive(Default)]
struct Inside {
    waiting: VecDeque<Arc<Event>>,
    /// The one that is being delivered, since when, and whether that was reported as too long.
    current: Option<(Arc<Event>, Instant, bool)>,
    /// Keys of alerts that the sink was told of and that are not over.
    known: HashSet<String>,
    dropped: u64,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    inside: Mutex<Inside>,
    changed: Condvar,
}

/// What a sink finds in its queue.
pub(super) enum Next {
    Event(Arc<Event>),
    /// Nothing came for as long as it wanted to wait.
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl Queue {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. A reminder of something that still waits says nothing new; where there is no
    /// room, reminders go first, then the oldest.
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

    /// Was it told of this alert?
    pub(super) fn knows(&self, key: &str) -> bool {
        self.inside().known.contains(key)
    }

    /// Waits for an event; it counts as being delivered until [`Queue::done`].
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

    /// An attempt failed and another one follows: it is not stuck.
    pub(super) fn tried(&self) {
        if let Some((_, since, _)) = &mut self.inside().current {
            *since = clock::instant();
        }
    }

    /// The event is delivered, or given up.
    pub(super) fn done(&self) {
        self.inside().current = None;
    }

    /// Waits before the next attempt. Is there to be one?
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

    /// Events that wait, the current one included.
    pub(super) fn len(&self) -> usize {
        let inside = self.inside();
        inside.waiting.len() + usize::from(inside.current.is_some())
    }

    /// Events that found no room since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.inside().dropped)
    }

    /// How many wait, if one attempt has taken longer than `most`; once for each event.
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

    /// Nothing comes any more; what waits may still be taken.
    pub(super) fn close(&self) {
        self.inside().closed = true;
        self.changed.notify_all();
    }
}
