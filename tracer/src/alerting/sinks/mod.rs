//! Where alerts go. Each sink is a thread of its own with a bounded queue: none can hold up tracing
//! or another sink. Nothing here needs free disk space.

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
pub use journald::{JournaldTarget, SOCKET as JOURNALD_SOCKET};
pub use spawner::Spawner;
pub(crate) use stdout::text as event_line;
pub use syslog::{SOCKET as SYSLOG_SOCKET, SyslogTarget, SyslogTo};
pub(crate) use templates::{NAMES as TEMPLATE_NAMES, unknown_names};
pub use webhook::{Template, WebhookTarget};

use queue::Queue;
use tracer_host::clock;

/// A delivery that takes longer than this is reported while it goes on.
const STALLED: Duration = Duration::from_secs(30);

/// Why an event could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It may work later.
    Retry(String),
    /// It never will: this event is given up.
    Never(String),
    /// Nor will any other: whoever read it has gone.
    Closed,
}

/// What a sink does with an event. It may block for as long as its time-outs say.
pub(crate) trait Deliver: Send {
    /// Delivers one event.
    fn deliver(&mut self, event: &Event) -> Result<(), Failure>;

    /// How often [`Deliver::idle`] wants to be called.
    fn every(&self) -> Option<Duration> {
        None
    }

    /// What has to be done when nothing happens.
    fn idle(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// A sink as the configuration describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkConfig {
    /// For messages about it; unique.
    pub name: String,
    /// Events that are less severe are kept from it. What it was told of is always resolved.
    pub least: Severity,
    /// An event that could not be delivered for this long is given up.
    pub give_up: Duration,
    /// What it is.
    pub kind: SinkKind,
}

/// The kinds of sinks.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkKind {
    /// Lines of text, or JSON, on standard output.
    Stdout {
        /// JSON?
        json: bool,
    },
    /// The journal, with fields.
    Journald(JournaldTarget),
    /// The local system log, or one elsewhere.
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
    /// Does it start programs? They want the privileges that filltop itself gives up.
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

/// What a sink says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub sink: String,
    /// What it is like.
    pub state: State,
}

/// What a sink is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does not deliver.
    Failing {
        /// Its own words.
        why: String,
        /// Events that wait.
        waiting: usize,
    },
    /// It delivers again.
    Recovered {
        /// For how long it did not.
        after: Duration,
    },
    /// Events were given up.
    GaveUp {
        /// How many.
        events: u64,
        /// Why the last one was.
        why: String,
    },
    /// Whoever read it has gone.
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
    /// Starts a thread for each.
    pub fn start(
        configs: &[SinkConfig],
        spawner: Spawner,
        reports: UnboundedSender<Report>,
    ) -> Self {
        let mut sinks = Self { sinks: Vec::new(), spawner, reports };
        sinks.replace(configs);
        sinks
    }

    /// Takes other sinks. Those that stay as they are keep what they have not delivered yet; what
    /// waits in the others is tried once more.
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
            let why = format!("cannot start its thread: {error}");
            let state = State::Failing { why, waiting: 0 };
            let _ = self.reports.send(Report { sink: config.name.clone(), state });
        }
        Sink { config: config.clone(), queue, thread: thread.ok() }
    }

    /// Hands an event to all sinks but one, at once.
    pub fn send(&self, event: &Arc<Event>, but: Option<&str>) {
        for sink in self.sinks.iter().filter(|sink| but != Some(sink.config.name.as_str())) {
            // A sink for critical alerts hears that they are over, or less urgent, by their key.
            let wanted = event.severity >= sink.config.least
                || (matches!(event.event, EventKind::Firing | EventKind::Resolved)
                    && sink.queue.knows(&event.key));
            if wanted {
                sink.queue.push(Arc::clone(event));
            }
        }
    }

    /// Reports sinks that have been at one event for too long. To be called now and then.
    pub fn check(&self) {
        for sink in &self.sinks {
            if let Some(waiting) = sink.queue.stalled(clock::instant(), STALLED) {
                let why = format!("it has been at one event for {} s", STALLED.as_secs());
                let state = State::Failing { why, waiting };
                let _ = self.reports.send(Report { sink: sink.config.name.clone(), state });
            }
        }
    }

    /// How many there are that are not standard output.
    #[must_use]
    pub fn others(&self) -> usize {
        let is_stdout = |sink: &&Sink| matches!(sink.config.kind, SinkKind::Stdout { .. });
        self.sinks.iter().filter(|sink| !is_stdout(sink)).count()
    }

    /// Nothing comes any more: what waits is tried once.
    pub fn close(&self) {
        self.sinks.iter().for_each(|sink| sink.queue.close());
    }

    /// Waits for what is still being delivered, until `deadline` at most.
    pub fn stop(self, deadline: Instant) {
        self.close();
        let mut threads: Vec<_> = self.sinks.into_iter().filter_map(|sink| sink.thread).collect();
        while !threads.is_empty() && clock::instant() < deadline {
            threads.retain(|thread| !thread.is_finished());
            thread::sleep(Duration::from_millis(5));
        }
    }
}
