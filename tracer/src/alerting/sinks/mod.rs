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
use tracer_model::alert::{Event, EventKind, Severity};

pub use alertmanager::AlertmanagerTarget;
pub use command::{ExecTarget, MailTarget};
pub use http::Endpoint;
pub use journald::JournaldTarget;
pub use spawner::Spawner;
pub(crate) use stdout::text as event_line;
pub use syslog::{SOCKET as SYSLOG_SOCKET, SyslogTarget, SyslogTo};
pub(crate) use templates::{NAMES as TEMPLATE_NAMES, unknown_names};
pub use tracer_host::journald::SOCKET as JOURNALD_SOCKET;
pub use webhook::{Template, WebhookTarget};

use queue::Queue;
use tracer_host::clock;

/// A delivery attempt that takes longer than this is reported while it is still running.
const STALLED: Duration = Duration::from_secs(30);

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
    fn every(&self) -> Option<Duration> {
        None
    }

    /// Periodic work when no event arrives.
    fn idle(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// A sink as the configuration describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkConfig {
    /// Unique name, for messages about the sink.
    pub name: String,
    /// Minimum severity: less severe events are not sent to the sink. The end of an alert that it
    /// got is always sent.
    pub least: Severity,
    /// An event that could not be delivered for this long is dropped.
    pub give_up: Duration,
    /// The kind of sink, with its target.
    pub kind: SinkKind,
}

/// The kinds of sinks.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkKind {
    /// Lines of text, or JSON, on standard output.
    Stdout {
        /// Whether to print JSON.
        json: bool,
    },
    /// The systemd journal, with structured fields.
    Journald(JournaldTarget),
    /// The local system log, or a remote one.
    Syslog(SyslogTarget),
    /// An HTTP POST.
    Webhook(WebhookTarget),
    /// Alertmanager's API v2.
    Alertmanager(AlertmanagerTarget),
    /// A program.
    Exec(ExecTarget),
    /// A message, by sendmail(1).
    Mail(MailTarget),
}

impl SinkKind {
    /// Whether it starts programs, which need the privileges that filltop itself drops.
    #[must_use]
    pub const fn runs_programs(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::Mail(_))
    }

    fn deliverer(&self) -> Box<dyn Deliver> {
        match self {
            Self::Stdout { json } => Box::new(stdout::Lines::stdout(*json)),
            Self::Journald(target) => Box::new(journald::Journald::new(target)),
            Self::Syslog(target) => Box::new(syslog::Syslog::new(target)),
            Self::Webhook(target) => Box::new(webhook::Webhook::new(target)),
            Self::Alertmanager(target) => Box::new(alertmanager::Alertmanager::new(target)),
            Self::Exec(target) => Box::new(command::Exec::new(target)),
            Self::Mail(target) => Box::new(command::Mail::new(target)),
        }
    }
}

/// A sink's report of its own state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Name of the sink.
    pub sink: String,
    /// Its new state.
    pub state: State,
}

/// The state of a sink, as reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Deliveries fail.
    Failing {
        /// The sink's error message.
        why: String,
        /// Number of queued events.
        waiting: usize,
    },
    /// Deliveries succeed again.
    Recovered {
        /// How long they failed.
        after: Duration,
    },
    /// Events were dropped.
    GaveUp {
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
pub struct Sinks {
    sinks: Vec<Sink>,
    spawner: Spawner,
    reports: UnboundedSender<Report>,
}

impl Sinks {
    /// Starts a thread for each sink.
    pub fn start(
        configs: &[SinkConfig],
        spawner: Spawner,
        reports: UnboundedSender<Report>,
    ) -> Self {
        let mut sinks = Self { sinks: Vec::new(), spawner, reports };
        sinks.replace(configs);
        sinks
    }

    /// Replaces the sinks. Unchanged ones keep their queues; the queued events of removed ones are
    /// tried once more.
    pub fn replace(&mut self, configs: &[SinkConfig]) {
        let mut old = std::mem::take(&mut self.sinks);
        for config in configs {
            let same = old.iter().position(|sink| sink.config == *config);
            let sink = match same {
                Some(at) => old.swap_remove(at),
                None => self.begin(config),
            };
            self.sinks.push(sink);
        }
        old.iter().for_each(|sink| sink.queue.close());
    }

    fn begin(&self, config: &SinkConfig) -> Sink {
        let queue = Arc::new(Queue::default());
        let worker = worker::Worker {
            name: config.name.clone(),
            give_up: config.give_up,
            queue: Arc::clone(&queue),
            reports: self.reports.clone(),
        };
        let kind = config.kind.clone();
        let thread = self.spawner.run(&config.name, move || worker.run(kind.deliverer().as_mut()));
        if let Err(error) = &thread {
            let why = format!("cannot start the sink's thread: {error}");
            let state = State::Failing { why, waiting: 0 };
            let _ = self.reports.send(Report { sink: config.name.clone(), state });
        }
        Sink { config: config.clone(), queue, thread: thread.ok() }
    }

    /// Queues an event for all sinks except `but`, without waiting.
    pub fn send(&self, event: &Arc<Event>, but: Option<&str>) {
        for sink in self.sinks.iter().filter(|sink| but != Some(sink.config.name.as_str())) {
            // A sink for critical alerts also gets their end, or their change to a warning. It is
            // recognized by the alert's key.
            let wanted = event.severity >= sink.config.least
                || (matches!(event.event, EventKind::Firing | EventKind::Resolved)
                    && sink.queue.knows(&event.key));
            if wanted {
                sink.queue.push(Arc::clone(event));
            }
        }
    }

    /// Reports sinks whose current delivery takes too long. To be called periodically.
    pub fn check(&self) {
        for sink in &self.sinks {
            if let Some(waiting) = sink.queue.stalled(clock::instant(), STALLED) {
                let why = format!("a delivery has been running for {} s", STALLED.as_secs());
                let state = State::Failing { why, waiting };
                let _ = self.reports.send(Report { sink: sink.config.name.clone(), state });
            }
        }
    }

    /// Number of sinks other than standard output.
    #[must_use]
    pub fn others(&self) -> usize {
        let is_stdout = |sink: &&Sink| matches!(sink.config.kind, SinkKind::Stdout { .. });
        self.sinks.iter().filter(|sink| !is_stdout(sink)).count()
    }

    /// Closes the queues: no more events; those queued are tried once.
    pub fn close(&self) {
        self.sinks.iter().for_each(|sink| sink.queue.close());
    }

    /// Closes the queues and waits for running deliveries, at most until `deadline`.
    pub fn stop(self, deadline: Instant) {
        self.close();
        let mut threads: Vec<_> = self.sinks.into_iter().filter_map(|sink| sink.thread).collect();
        while !threads.is_empty() && clock::instant() < deadline {
            threads.retain(|thread| !thread.is_finished());
            thread::sleep(Duration::from_millis(5));
        }
    }
}
