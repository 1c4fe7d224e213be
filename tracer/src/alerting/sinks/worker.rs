//! The thread of one sink: takes events from the queue, delivers them with retries, and reports
//! failures and recovery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tracer_model::alert::Event;

use super::queue::{Next, Queue};
use super::{Deliver, Failure, SinkReport, SinkState};
use tracer_host::clock;

/// Pause before the second attempt; doubled each time...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A sink that keeps failing is reported again after this time.
const REPORT_AGAIN: Duration = Duration::from_secs(1800);

pub(super) struct Worker {
    pub(super) name: String,
    pub(super) give_up_after: Duration,
    pub(super) queue: Arc<Queue>,
    pub(super) reports: UnboundedSender<SinkReport>,
}

/// When failures began, and when they were last reported.
#[derive(Default)]
struct Failures {
    since: Option<Instant>,
    reported: Option<Instant>,
}

impl Worker {
    /// Delivers events until the queue is closed or the reader has gone away.
    pub(super) fn run(&self, sink: &mut dyn Deliver) {
        let mut failures = Failures::default();
        loop {
            let dropped = self.queue.take_dropped();
            if dropped > 0 {
                let why = "the queue was full".to_owned();
                self.report(SinkState::Dropped { events: dropped, why });
            }
            match self.queue.next(sink.idle_interval()) {
                Next::Closed => return,
                Next::Idle => match sink.idle() {
                    Ok(()) => self.succeeded(&mut failures),
                    Err(Failure::Retry(why) | Failure::Never(why)) => {
                        self.failed(&mut failures, why);
                    }
                    Err(Failure::Closed) => return self.report(SinkState::Closed),
                },
                Next::Event(event) => {
                    let continues = self.deliver(sink, &event, &mut failures);
                    self.queue.done();
                    if !continues {
                        return;
                    }
                }
            }
        }
    }

    /// Delivers one event, with retries. Returns `false` if the worker should stop.
    fn deliver(&self, sink: &mut dyn Deliver, event: &Event, failures: &mut Failures) -> bool {
        let start = clock::instant();
        let mut pause = FIRST_PAUSE;
        loop {
            match sink.deliver(event) {
                Ok(()) => {
                    self.succeeded(failures);
                    return true;
                }
                Err(Failure::Closed) => {
                    self.report(SinkState::Closed);
                    return false;
                }
                Err(Failure::Never(why)) => {
                    self.report(SinkState::Dropped { events: 1, why });
                    return true;
                }
                Err(Failure::Retry(why)) => {
                    self.queue.restart_stall_timer();
                    if start.elapsed() >= self.give_up_after {
                        self.report(SinkState::Dropped { events: 1, why });
                        return true;
                    }
                    // Do not report a single failed attempt: the next one is a second away.
                    if pause > FIRST_PAUSE {
                        self.failed(failures, why);
                    }
                }
            }
            if !self.queue.pause(pause) {
                // The queue is closed: one last attempt, without a retry.
                return sink.deliver(event).is_ok();
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn succeeded(&self, failures: &mut Failures) {
        if let (Some(since), Some(_)) = (failures.since, failures.reported) {
            self.report(SinkState::Recovered { after: since.elapsed() });
        }
        *failures = Failures::default();
    }

    fn failed(&self, failures: &mut Failures, why: String) {
        let now = clock::instant();
        failures.since.get_or_insert(now);
        if failures.reported.is_none_or(|last| now.duration_since(last) >= REPORT_AGAIN) {
            failures.reported = Some(now);
            self.report(SinkState::Failing { why, queued: self.queue.len() });
        }
    }

    fn report(&self, state: SinkState) {
        // Fails only after the watch has ended.
        let _ = self.reports.send(SinkReport { sink: self.name.clone(), state });
    }
}
