//! The thread of one sink: takes events from the queue, delivers them with retries, and reports
//! failures and recovery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tracer_model::alert::Event;

use super::queue::{Next, Queue};
use super::{Deliver, Failure, Report, State};
use tracer_host::clock;

/// Pause before the second attempt; doubled each time...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A sink that keeps failing is reported again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(1800);

pub(super) struct Worker {
    pub(super) name: String,
    pub(super) give_up: Duration,
    pub(super) queue: Arc<Queue>,
    pub(super) reports: UnboundedSender<Report>,
}

/// When failures began, and when they were last reported.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Worker {
    /// Delivers events until the queue is closed or the reader has gone away.
    pub(super) fn run(&self, sink: &mut dyn Deliver) {
        let mut trouble = Trouble::default();
        loop {
            let dropped = self.queue.take_dropped();
            if dropped > 0 {
                let why = "the queue was full".to_owned();
                self.say(State::GaveUp { events: dropped, why });
            }
            match self.queue.next(sink.every()) {
                Next::Closed => return,
                Next::Idle => match sink.idle() {
                    Ok(()) => self.works(&mut trouble),
                    Err(Failure::Retry(why) | Failure::Never(why)) => {
                        self.fails(&mut trouble, why);
                    }
                    Err(Failure::Closed) => return self.say(State::Closed),
                },
                Next::Event(event) => {
                    let goes_on = self.deliver(sink, &event, &mut trouble);
                    self.queue.done();
                    if !goes_on {
                        return;
                    }
                }
            }
        }
    }

    /// Delivers one event, with retries. Returns `false` if the worker should stop.
    fn deliver(&self, sink: &mut dyn Deliver, event: &Event, trouble: &mut Trouble) -> bool {
        let start = clock::instant();
        let mut pause = FIRST_PAUSE;
        loop {
            match sink.deliver(event) {
                Ok(()) => {
                    self.works(trouble);
                    return true;
                }
                Err(Failure::Closed) => {
                    self.say(State::Closed);
                    return false;
                }
                Err(Failure::Never(why)) => {
                    self.say(State::GaveUp { events: 1, why });
                    return true;
                }
                Err(Failure::Retry(why)) => {
                    self.queue.tried();
                    if start.elapsed() >= self.give_up {
                        self.say(State::GaveUp { events: 1, why });
                        return true;
                    }
                    // Do not report a single failed attempt: the next one is a second away.
                    if pause > FIRST_PAUSE {
                        self.fails(trouble, why);
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

    fn works(&self, trouble: &mut Trouble) {
        let said = trouble.said.is_some();
        if let (Some(since), true) = (trouble.since, said) {
            self.say(State::Recovered { after: since.elapsed() });
        }
        *trouble = Trouble::default();
    }

    fn fails(&self, trouble: &mut Trouble, why: String) {
        let now = clock::instant();
        trouble.since.get_or_insert(now);
        if trouble.said.is_none_or(|said| now.duration_since(said) >= SAY_AGAIN) {
            trouble.said = Some(now);
            self.say(State::Failing { why, waiting: self.queue.len() });
        }
    }

    fn say(&self, state: State) {
        // Fails only after the watch has ended.
        let _ = self.reports.send(Report { sink: self.name.clone(), state });
    }
}
