//! The main loop of `filltop watch`. It never blocks on sinks, clients or directory counts, which
//! have threads and channels of their own.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::tz::TimeZone;
use rustix::termios::tcgetattr;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracer_model::alert::{Engine, Event, Severity};
use tracer_model::sanitize::display;
use tracer_model::units;

use super::{Control, Guard, Hub, Sizes, WatchArgs, leave_out, moment};
use crate::actions::resume;
use crate::alerting::sinks::{Report, SinkConfig, SinkKind, Sinks, Spawner, State};
use crate::cli::StopSignals;
use crate::config::Config;
use crate::measure::pipeline::{POLL_INTERVAL, Pipeline};
use crate::service::notify::Notify;
use crate::service::{Bound, Service, hardening, notify};
use tracer_host::{clock, host_root, timezone};

/// How long queued events are still delivered after the watch was stopped.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Interval at which tracing is retried after a failure.
const TRY_AGAIN: Duration = Duration::from_secs(10);

struct Watch<'w> {
    args: &'w WatchArgs,
    config: Config,
    engine: Engine,
    sizes: Sizes,
    sinks: Sinks,
    privileged: bool,
    hub: Hub,
    service: Service,
    notify: Notify,
    guard: &'w mut dyn Guard,
    zone: TimeZone,
    host: String,
    /// Why tracing has failed, while it does not work.
    broken: Option<String>,
    config_is_wrong: bool,
    /// Sinks that were reported as failing, so that their recovery is reported, too.
    failing: BTreeSet<String>,
}

/// Runs the watch until it is stopped.
///
/// # Errors
/// If tracing cannot be started, or the serving thread ends.
pub(super) async fn run(
    args: &WatchArgs,
    config: Config,
    guard: &mut dyn Guard,
) -> anyhow::Result<ExitCode> {
    let interactive = std::io::stdout().is_terminal();
    let mut stop = StopSignals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut acknowledge = signal(SignalKind::user_defined1())?;
    let (reports, mut reported) = mpsc::unbounded_channel();
    // Before the tracer drops its privileges.
    let privileged = config.sinks.iter().any(|sink| sink.kind.runs_programs());
    let spawner = Spawner::start(privileged).context("cannot start the sinks' threads")?;
    let (hub, mut wishes) = Hub::new();
    let bound = Bound::new(&args.serve)?;
    hardening::harden();
    let mut pipeline = Some(Pipeline::start(&args.trace.options())?);
    let interval_now = args.interval.unwrap_or(config.interval);
    let service = bound.start(interval_now)?;
    let mut watch = Watch {
        engine: Engine::new(config.rules.clone()),
        sizes: Sizes::start(config.directories()).context("cannot start a thread")?,
        sinks: Sinks::start(&sinks_of(args, &config), spawner, reports),
        privileged,
        hub,
        service,
        notify: Notify::new(),
        guard,
        zone: timezone::local(),
        host: host_root::name(),
        broken: None,
        config_is_wrong: false,
        failing: BTreeSet::new(),
        args,
        config,
    };
    let mut poll = interval(POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(watch.interval());
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.reset();
    let mut again_at = Instant::now();
    watch.notify.ready();
    loop {
        tokio::select! {
            () = stop.received() => break,
            _ = hangup.recv() => {
                // The terminal was closed: not a request to reload.
                if interactive && tcgetattr(std::io::stdout()).is_err() {
                    break;
                }
                let _ = watch.reload();
                look = interval(watch.interval());
                look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                look.reset();
            }
            _ = acknowledge.recv() => {
                let count = watch.engine.acknowledge(None, None);
                tracing::info!("alerts acknowledged: {count}");
            }
            Some(wish) = wishes.recv() => watch.grant(wish),
            Some(report) = reported.recv() => {
                let closed = report.state == State::Closed;
                watch.report(report);
                // `filltop watch | head` ends when head does.
                if closed && watch.sinks.others() == 0 {
                    break;
                }
            }
            _ = poll.tick() => if let Some(pipeline) = &mut pipeline {
                pipeline.poll();
            },
            _ = look.tick() => {
                if pipeline.is_none() && Instant::now() >= again_at {
                    again_at = Instant::now() + TRY_AGAIN;
                    pipeline = watch.start_again();
                }
                if let Some(running) = &mut pipeline
                    && let Err(error) = watch.look(running)
                {
                    watch.broken(&format!("{error:#}"));
                    pipeline = None;
                    again_at = Instant::now() + TRY_AGAIN;
                }
                watch.let_go();
                watch.sinks.check();
                if !watch.service.is_serving() {
                    bail!("the serving thread has ended; restart `filltop watch`");
                }
            }
        }
    }
    watch.notify.stopping();
    let deadline = clock::instant() + LAST_WORDS;
    watch.sinks.close();
    drop(pipeline);
    watch.sinks.stop(deadline);
    Ok(ExitCode::SUCCESS)
}

impl Watch<'_> {
    fn interval(&self) -> Duration {
        self.args.interval.unwrap_or(self.config.interval)
    }

    /// Takes and processes one sample: Snapshot → rules → guard → sinks and subscribers.
    fn look(&mut self, pipeline: &mut Pipeline) -> anyhow::Result<()> {
        let mut snapshot = pipeline.snapshot(false)?;
        self.service.publish(&snapshot);
        if self.notify.alive(clock::instant()) {
            self.notify.status(&notify::line(&snapshot));
        }
        if !self.config.ignore.is_empty() {
            leave_out(Arc::make_mut(&mut snapshot), &self.config.ignore);
        }
        let sizes = self.sizes.see(&snapshot);
        let mut events = self.engine.see(&moment(&self.zone), &snapshot, &sizes);
        events.extend(self.guard.see(&snapshot, &events));
        self.hub.snapshots.send_replace(Some(snapshot));
        for event in events {
            self.tell(event, None);
        }
        Ok(())
    }

    /// Resumes processes that another filltop suspended and left behind, for example when its
    /// container ended. Those that this process may not resume (it has dropped most privileges) are
    /// left for the next `stop` or `resume`.
    fn let_go(&self) {
        for record in resume::reap_orphans_as("filltop watch") {
            let name = display(&record.suspension.name);
            tracing::warn!(
                "{} ({name}) had lost its supervisor and has been resumed",
                record.suspension.id
            );
        }
    }

    /// Sends an event to all sinks except `but`, and to all subscribers.
    fn tell(&self, event: Event, but: Option<&str>) {
        let event = Arc::new(event);
        self.sinks.send(&event, but);
        // Fails only if there are no subscribers.
        let _ = self.hub.events.send(event);
    }

    /// Logs a health event and creates it.
    fn health(&self, about: &str, severity: Severity, summary: String) -> Event {
        tracing::warn!("{summary}");
        Event::health(clock::now(), &self.host, about, severity, summary)
    }

    fn broken(&mut self, why: &str) {
        let words = format!("tracing failed ({why}); no volume is watched until it works again");
        self.broken = Some(why.to_owned());
        self.tell(self.health("backend", Severity::Critical, words), None);
    }

    fn start_again(&mut self) -> Option<Pipeline> {
        match Pipeline::start(&self.args.trace.options()) {
            Ok(pipeline) => {
                let why = self.broken.take().unwrap_or_default();
                let words = format!("tracing works again after it failed: {why}");
                self.tell(self.health("backend", Severity::Critical, words).ending(), None);
                Some(pipeline)
            }
            Err(error) => {
                let why = format!("{error:#}");
                if self.broken.as_ref() != Some(&why) {
                    self.broken(&why);
                }
                None
            }
        }
    }

    /// Reloads the configuration. If the new one is invalid, the previous one is kept.
    fn reload(&mut self) -> Result<(), String> {
        match Config::load(self.args.config.as_deref()) {
            Ok(config) => {
                let programs = config.sinks.iter().any(|sink| sink.kind.runs_programs());
                self.engine.replace_rules(config.rules.clone());
                self.sizes.replace(config.directories());
                self.sinks.replace(&sinks_of(self.args, &config));
                if let Err(words) = self.guard.replace(&config.guard) {
                    self.tell(self.health("config", Severity::Warning, words), None);
                }
                self.config = config;
                let words = "configuration reloaded".to_owned();
                tracing::info!("{words}");
                if std::mem::take(&mut self.config_is_wrong) {
                    self.tell(self.health("config", Severity::Warning, words).ending(), None);
                }
                if programs && !self.privileged {
                    let words = "alert programs run without root's privileges: they were \
                                 configured after filltop dropped those; restart filltop"
                        .to_owned();
                    self.tell(self.health("config", Severity::Warning, words), None);
                }
                Ok(())
            }
            Err(error) => {
                self.config_is_wrong = true;
                let words = format!("invalid configuration, keeping the previous one: {error}");
                self.tell(self.health("config", Severity::Warning, words), None);
                Err(error.to_string())
            }
        }
    }

    fn grant(&mut self, wish: Control) {
        // Fails only if the requester no longer waits for the answer.
        match wish {
            Control::Acknowledge { rule, volume, answer } => {
                let _ = answer.send(self.engine.acknowledge(rule.as_deref(), volume.as_deref()));
            }
            Control::Reload { answer } => {
                let _ = answer.send(self.reload());
            }
        }
    }

    /// Turns a sink's report about itself into a health event for all other sinks.
    fn report(&mut self, report: Report) {
        let name = &report.sink;
        let words = match &report.state {
            State::Failing { why, waiting } => {
                self.failing.insert(name.clone());
                format!("sink {name} cannot deliver alerts: {why}; queued: {waiting}")
            }
            State::Recovered { after } => {
                if !self.failing.remove(name) {
                    return;
                }
                let after = units::duration(after.as_secs_f64());
                format!("sink {name} delivers alerts again after {after}")
            }
            State::GaveUp { events, why } => {
                let s = if *events == 1 { "" } else { "s" };
                format!("sink {name} dropped {events} event{s}: {why}")
            }
            State::Closed => format!("the reader of sink {name} has gone away"),
        };
        let event = self.health("sink", Severity::Warning, words).of(name);
        let event = match report.state {
            State::Recovered { .. } => event.ending(),
            _ => event,
        };
        self.tell(event, Some(name));
    }
}

/// The sinks of the configuration, with standard output first unless it is disabled.
fn sinks_of(args: &WatchArgs, config: &Config) -> Vec<SinkConfig> {
    let stdout = config.stdout.then(|| SinkConfig {
        name: "stdout".to_owned(),
        least: Severity::Warning,
        give_up: TRY_AGAIN,
        kind: SinkKind::Stdout { json: args.json },
    });
    stdout.into_iter().chain(config.sinks.iter().cloned()).collect()
}
