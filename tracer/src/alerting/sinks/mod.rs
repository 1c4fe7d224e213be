//! Sinks: the destinations of alerts. Each sink has a thread of its own with a bounded queue, so
//! that none can hold up tracing or another sink. Nothing here needs free disk space.

mod alertmanager;
mod command;
mod fields;
mod http;
mod journald;
mod queue;
mod spawner;
mod stdout;
mod syslog;
mod templates;
#[cfg(test)]
mod tests;
mod webhook;
mod worker;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tracer_model::alert::{Event, EventKind};

pub(crate) use spawner::Spawner;
pub(crate) use stdout::event_line;

use crate::config::{SinkConfig, SinkKind};
use queue::Queue;
use tracer_host::clock;

/// A delivery attempt that takes longer than this is reported while it is still running.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why an event could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A later attempt may succeed.
    Retry(String),
    /// No later attempt can succeed: this event is dropped.
    Never(String),
    /// No other event can be delivered either: the reader has gone away.
    Closed,
}

/// The interface of a sink. Its methods may block up to the sink's time-outs.
pub(crate) trait Deliver: Send {
    /// Delivers one event.
    fn deliver(&mut self, event: &Event) -> Result<(), Failure>;

    /// How often [`Deliver::idle`] is to be called; `None`: never.
    fn idle_interval(&self) -> Option<Duration> {
        None
    }

    /// Periodic work when no event arrives.
    fn idle(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Creates the object that delivers the events of a sink.
fn deliverer(kind: &SinkKind) -> Box<dyn Deliver> {
    match kind {
        SinkKind::Stdout { json } => Box::new(stdout::Stdout::new(*json)),
        SinkKind::Journald(target) => Box::new(journald::Journald::new(target)),
        SinkKind::Syslog(target) => Box::new(syslog::Syslog::new(target)),
        SinkKind::Webhook(target) => Box::new(webhook::Webhook::new(target)),
        SinkKind::Alertmanager(target) => Box::new(alertmanager::Alertmanager::new(target)),
        SinkKind::Exec(target) => Box::new(command::Exec::new(target)),
        SinkKind::Mail(target) => Box::new(command::Mail::new(target)),
    }
}

/// A sink's report of its own state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SinkReport {
    /// Name of the sink.
    pub(crate) sink: String,
    /// The sink's new state.
    pub(crate) state: SinkState,
}

/// The state of a sink, as reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SinkState {
    /// Deliveries fail.
    Failing {
        /// The sink's error message.
        why: String,
        /// Number of queued events.
        queued: usize,
    },
    /// Deliveries succeed again.
    Recovered {
        /// How long they failed.
        after: Duration,
    },
    /// Events were dropped.
    Dropped {
        /// Number of dropped events.
        events: u64,
        /// The reason for the last one.
        why: String,
    },
    /// The reader has gone away.
    Closed,
}

struct Sink {
    config: SinkConfig,
    queue: Arc<Queue>,
    thread: Option<thread::JoinHandle<()>>,
}

/// All sinks of a configuration.
pub(crate) struct Sinks {
    sinks: Vec<Sink>,
    spawner: Spawner,
    reports: UnboundedSender<SinkReport>,
}

impl Sinks {
    /// Starts a thread for each sink.
    pub(crate) fn start(
        configs: &[SinkConfig],
        spawner: Spawner,
        reports: UnboundedSender<SinkReport>,
    ) -> Self {
        let mut sinks = Self { sinks: Vec::new(), spawner, reports };
        sinks.replace(configs);
        sinks
    }

    /// Replaces the sinks. Unchanged ones keep their queues; the queued events of removed ones are
    /// tried once more.
    pub(crate) fn replace(&mut self, configs: &[SinkConfig]) {
        let mut old = std::mem::take(&mut self.sinks);
        for config in configs {
            let same = old.iter().position(|sink| sink.config == *config);
            let sink = match same {
                Some(at) => old.swap_remove(at),
                None => self.start_one(config),
            };
            self.sinks.push(sink);
        }
        old.iter().for_each(|sink| sink.queue.close());
    }

    fn start_one(&self, config: &SinkConfig) -> Sink {
        let queue = Arc::new(Queue::default());
        let worker = worker::Worker {
            name: config.name.clone(),
            give_up_after: config.give_up_after,
            queue: Arc::clone(&queue),
            reports: self.reports.clone(),
        };
        let kind = config.kind.clone();
        let thread = self.spawner.run(&config.name, move || worker.run(deliverer(&kind).as_mut()));
        if let Err(error) = &thread {
            let why = format!("cannot start the sink's thread: {error}");
            let state = SinkState::Failing { why, queued: 0 };
            let _ = self.reports.send(SinkReport { sink: config.name.clone(), state });
        }
        Sink { config: config.clone(), queue, thread: thread.ok() }
    }

    /// Queues an event for all sinks except `except`, without waiting.
    pub(crate) fn send(&self, event: &Arc<Event>, except: Option<&str>) {
        for sink in self.sinks.iter().filter(|sink| except != Some(sink.config.name.as_str())) {
            // A sink for critical alerts also gets their end, or their change to a warning. It is
            // recognized by the alert's key.
            let wanted = event.severity >= sink.config.min_severity
                || (matches!(event.event, EventKind::Firing | EventKind::Resolved)
                    && sink.queue.is_active(&event.key));
            if wanted {
                sink.queue.push(Arc::clone(event));
            }
        }
    }

    /// Reports sinks whose current delivery takes too long. To be called periodically.
    pub(crate) fn check(&self) {
        for sink in &self.sinks {
            if let Some(queued) = sink.queue.report_stalled(clock::instant(), STALL_TIMEOUT) {
                let why = format!("a delivery has been running for {} s", STALL_TIMEOUT.as_secs());
                let state = SinkState::Failing { why, queued };
                let _ = self.reports.send(SinkReport { sink: sink.config.name.clone(), state });
            }
        }
    }

    /// Whether there are sinks other than standard output.
    #[must_use]
    pub(crate) fn has_others(&self) -> bool {
        self.sinks.iter().any(|sink| !matches!(sink.config.kind, SinkKind::Stdout { .. }))
    }

    /// Closes the queues: no more events; those queued are tried once.
    pub(crate) fn close(&self) {
        self.sinks.iter().for_each(|sink| sink.queue.close());
    }

    /// Closes the queues and waits for running deliveries, at most until `deadline`.
    pub(crate) fn stop(self, deadline: Instant) {
        self.close();
        let mut threads: Vec<_> = self.sinks.into_iter().filter_map(|sink| sink.thread).collect();
        while !threads.is_empty() && clock::instant() < deadline {
            threads.retain(|thread| !thread.is_finished());
            thread::sleep(Duration::from_millis(5));
        }
    }
}
