//! The state of a running `filltop watch`, and what it does with each sample, reload and report of a
//! sink.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::tz::TimeZone;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until};
use tracer_host::{clock, host_root, timezone};
use tracer_model::alert::{Engine, Event, Severity};
use tracer_model::sanitize::display;
use tracer_model::snapshot::Snapshot;
use tracer_model::units;

use super::dir_sizes::DirectorySizes;
use super::evaluation::{eval_time, ignore_volumes};
use super::guard_events::GuardEvents;
use super::options::WatchOptions;
use super::sinks::{SinkReport, SinkState, Sinks, Spawner};
use crate::actions::resume;
use crate::config::{Config, SinkConfig, SinkKind};
use crate::measure::measuring_loop::MeasuringLoop;
use crate::service::notify::Notify;
use crate::service::{Listeners, Service, hardening, notify};

/// How long queued events are still delivered after the watch was stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// Interval at which tracing is retried after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// A running watch.
pub(super) struct Watch {
    options: WatchOptions,
    config: Config,
    /// `None` while tracing does not work.
    measuring: Option<MeasuringLoop>,
    /// When tracing is tried again.
    retry_at: Instant,
    /// End of the interval, while tracing does not work.
    idle_until: Instant,
    /// Why tracing failed, while it does not work.
    tracing_error: Option<String>,
    engine: Engine,
    sizes: DirectorySizes,
    sinks: Sinks,
    /// Whether the sinks' threads kept the privileges that filltop was started with.
    privileged_sinks: bool,
    service: Service,
    notify: Notify,
    guard: GuardEvents,
    zone: TimeZone,
    host: String,
    /// Whether the last reload was rejected.
    config_is_invalid: bool,
    /// Sinks that were reported as failing, so that their recovery is reported, too.
    failing_sinks: BTreeSet<String>,
}

impl Watch {
    /// Starts everything: first what needs the privileges that the tracer drops.
    ///
    /// # Errors
    /// If tracing, the metrics endpoint or a thread cannot be started.
    pub(super) fn start(
        options: WatchOptions,
        config: Config,
        guard: GuardEvents,
        reports: UnboundedSender<SinkReport>,
    ) -> anyhow::Result<Self> {
        let privileged_sinks = runs_programs(&config);
        let spawner =
            Spawner::start(privileged_sinks).context("cannot start the sinks' threads")?;
        let listeners = Listeners::bind(&options.serve)?;
        hardening::harden();
        let interval = options.interval.unwrap_or(config.interval);
        let measuring = MeasuringLoop::start(&options.tracer, interval)?;
        let service = listeners.start(interval)?;
        Ok(Self {
            measuring: Some(measuring),
            retry_at: Instant::now(),
            idle_until: Instant::now(),
            tracing_error: None,
            engine: Engine::new(config.rules.clone()),
            sizes: DirectorySizes::start(config.directories()).context("cannot start a thread")?,
            sinks: Sinks::start(&sinks_of(&options, &config), spawner, reports),
            privileged_sinks,
            service,
            notify: Notify::new(),
            guard,
            zone: timezone::local(),
            host: host_root::host_name(),
            config_is_invalid: false,
            failing_sinks: BTreeSet::new(),
            options,
            config,
        })
    }

    /// Notifies the service manager that startup is complete.
    pub(super) fn ready(&self) {
        self.notify.ready();
    }

    /// Length of an interval.
    fn interval(&self) -> Duration {
        self.options.interval.unwrap_or(self.config.interval)
    }

    /// Waits until the interval ends, and returns its Snapshot; `None` if tracing does not work.
    /// Nothing is lost if the future is dropped and another one is created later.
    pub(super) async fn next_snapshot(&mut self) -> Option<anyhow::Result<Arc<Snapshot>>> {
        match &mut self.measuring {
            Some(measuring) => Some(measuring.next().await),
            None => {
                sleep_until(self.idle_until).await;
                None
            }
        }
    }

    /// Processes the result of [`Self::next_snapshot`]; while tracing does not work, tries to
    /// restart it.
    ///
    /// # Errors
    /// If the serving thread has ended.
    pub(super) fn sample(
        &mut self,
        result: Option<anyhow::Result<Arc<Snapshot>>>,
    ) -> anyhow::Result<()> {
        match result {
            Some(Ok(snapshot)) => self.evaluate(snapshot),
            Some(Err(error)) => {
                self.measuring = None;
                self.tracing_failed(format!("{error:#}"));
                self.retry_at = Instant::now() + RETRY_INTERVAL;
            }
            None if Instant::now() >= self.retry_at => self.restart_tracing(),
            None => {}
        }
        self.idle_until = Instant::now() + self.interval();
        resume_orphans();
        self.sinks.check();
        if !self.service.is_serving() {
            bail!("the serving thread has ended; restart `filltop watch`");
        }
        Ok(())
    }

    /// Processes one sample: Snapshot → rules → guard → sinks.
    fn evaluate(&mut self, mut snapshot: Arc<Snapshot>) {
        self.service.publish(&snapshot);
        if self.notify.watchdog(clock::instant()) {
            self.notify.status(&notify::status_line(&snapshot));
        }
        if !self.config.ignore.is_empty() {
            ignore_volumes(Arc::make_mut(&mut snapshot), &self.config.ignore);
        }
        let sizes = self.sizes.update(&snapshot);
        let mut events = self.engine.evaluate(&eval_time(&self.zone), &snapshot, &sizes);
        events.extend(self.guard.evaluate(&snapshot));
        for event in events {
            self.dispatch(event, None);
        }
    }

    /// Sends an event to all sinks except `except`.
    fn dispatch(&self, event: Event, except: Option<&str>) {
        self.sinks.send(&Arc::new(event), except);
    }

    /// Logs a health event and creates it.
    fn health(&self, topic: &str, severity: Severity, summary: String) -> Event {
        tracing::warn!("{summary}");
        Event::health(clock::now(), &self.host, topic, severity, summary)
    }

    fn tracing_failed(&mut self, why: String) {
        let summary = format!("tracing failed ({why}); no volume is watched until it works again");
        self.tracing_error = Some(why);
        self.dispatch(self.health("backend", Severity::Critical, summary), None);
    }

    fn restart_tracing(&mut self) {
        self.retry_at = Instant::now() + RETRY_INTERVAL;
        match MeasuringLoop::start(&self.options.tracer, self.interval()) {
            Ok(measuring) => {
                self.measuring = Some(measuring);
                let why = self.tracing_error.take().unwrap_or_default();
                let summary = format!("tracing works again after it failed: {why}");
                let event = self.health("backend", Severity::Critical, summary).resolving();
                self.dispatch(event, None);
            }
            Err(error) => {
                let why = format!("{error:#}");
                if self.tracing_error.as_ref() != Some(&why) {
                    self.tracing_failed(why);
                }
            }
        }
    }

    /// Acknowledges all active alerts: no reminders until they get worse or fire again.
    pub(super) fn acknowledge(&mut self) {
        let count = self.engine.acknowledge(None, None);
        tracing::info!("alerts acknowledged: {count}");
    }

    /// Reloads the configuration. If the new one is invalid, the previous one is kept.
    pub(super) fn reload(&mut self) {
        match Config::load(self.options.config.as_deref()) {
            Ok(config) => self.apply(config),
            Err(error) => {
                self.config_is_invalid = true;
                let summary = format!("invalid configuration, keeping the previous one: {error}");
                self.dispatch(self.health("config", Severity::Warning, summary), None);
            }
        }
    }

    fn apply(&mut self, config: Config) {
        let needs_privileges = runs_programs(&config);
        self.engine.replace_rules(config.rules.clone());
        self.sizes.replace(config.directories());
        self.sinks.replace(&sinks_of(&self.options, &config));
        if let Err(error) = self.guard.replace(&config.guard) {
            self.dispatch(self.health("config", Severity::Warning, error.to_string()), None);
        }
        self.config = config;
        let interval = self.interval();
        if let Some(measuring) = &mut self.measuring {
            measuring.set_interval(interval);
        }
        let summary = "configuration reloaded".to_owned();
        tracing::info!("{summary}");
        if std::mem::take(&mut self.config_is_invalid) {
            self.dispatch(self.health("config", Severity::Warning, summary).resolving(), None);
        }
        if needs_privileges && !self.privileged_sinks {
            let summary = "alert programs run without root's privileges: they were configured \
                           after filltop dropped those; restart filltop"
                .to_owned();
            self.dispatch(self.health("config", Severity::Warning, summary), None);
        }
    }

    /// Turns a sink's report about itself into a health event for all other sinks.
    pub(super) fn report(&mut self, report: SinkReport) {
        let name = &report.sink;
        let summary = match &report.state {
            SinkState::Failing { why, queued } => {
                self.failing_sinks.insert(name.clone());
                format!("sink {name} cannot deliver alerts: {why}; queued: {queued}")
            }
            SinkState::Recovered { after } => {
                if !self.failing_sinks.remove(name) {
                    return;
                }
                let after = units::duration(after.as_secs_f64());
                format!("sink {name} delivers alerts again after {after}")
            }
            SinkState::Dropped { events, why } => {
                let s = if *events == 1 { "" } else { "s" };
                format!("sink {name} dropped {events} event{s}: {why}")
            }
            SinkState::Closed => format!("the reader of sink {name} has gone away"),
        };
        let event = self.health("sink", Severity::Warning, summary).for_subject(name);
        let event = match report.state {
            SinkState::Recovered { .. } => event.resolving(),
            _ => event,
        };
        self.dispatch(event, Some(name));
    }

    /// Whether there are sinks other than standard output.
    pub(super) fn has_other_sinks(&self) -> bool {
        self.sinks.has_others()
    }

    /// Stops tracing, and delivers the queued events for at most [`DRAIN_TIMEOUT`].
    pub(super) fn stop(self) {
        self.notify.stopping();
        let deadline = clock::instant() + DRAIN_TIMEOUT;
        self.sinks.close();
        drop(self.measuring);
        self.sinks.stop(deadline);
    }
}

/// Resumes processes that another filltop suspended and left behind, for example when its
/// container ended. Those that this process may not resume (it has dropped most privileges) are
/// left for the next `stop` or `resume`.
fn resume_orphans() {
    for record in resume::reap_orphans_as("filltop watch") {
        let name = display(&record.suspension.name);
        tracing::warn!(
            "{} ({name}) had lost its supervisor and has been resumed",
            record.suspension.id
        );
    }
}

fn runs_programs(config: &Config) -> bool {
    config.sinks.iter().any(|sink| sink.kind.runs_programs())
}

/// The sinks of the configuration, with standard output first unless it is disabled.
fn sinks_of(options: &WatchOptions, config: &Config) -> Vec<SinkConfig> {
    let stdout = config.stdout.then(|| SinkConfig {
        name: "stdout".to_owned(),
        min_severity: Severity::Warning,
        // Standard output is never retried.
        give_up_after: Duration::ZERO,
        kind: SinkKind::Stdout { json: options.json },
    });
    stdout.into_iter().chain(config.sinks.iter().cloned()).collect()
}
