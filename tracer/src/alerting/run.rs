//! The main loop of `filltop watch`. It never blocks on sinks, clients or directory counts, which
//! have threads and channels of their own.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use rustix::termios::tcgetattr;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::guard_events::GuardEvents;
use super::options::WatchOptions;
use super::sinks::SinkState;
use super::watch::Watch;
use crate::config::Config;
use crate::measure::pipeline::POLL_INTERVAL;
use crate::signals::StopSignals;

/// Runs a watch until it is stopped.
///
/// # Errors
/// If tracing cannot be started, or the serving thread ends.
pub(crate) async fn run(options: WatchOptions, config: Config) -> anyhow::Result<ExitCode> {
    // Before the tracer drops its privileges.
    let guard = GuardEvents::start(&config.guard)?;
    let interactive = stdout().is_terminal();
    let mut stop = StopSignals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut acknowledge = signal(SignalKind::user_defined1())?;
    let (reports, mut sink_reports) = mpsc::unbounded_channel();
    let mut watch = Watch::start(options, config, guard, reports)?;
    let mut polls = ticks(POLL_INTERVAL);
    let mut samples = ticks(watch.interval());
    samples.reset();
    watch.ready();
    loop {
        tokio::select! {
            () = stop.received() => break,
            _ = hangup.recv() => {
                // The terminal was closed: not a request to reload.
                if interactive && tcgetattr(stdout()).is_err() {
                    break;
                }
                watch.reload();
                samples = ticks(watch.interval());
                samples.reset();
            }
            _ = acknowledge.recv() => watch.acknowledge(),
            Some(report) = sink_reports.recv() => {
                let closed = report.state == SinkState::Closed;
                watch.report(report);
                // `filltop watch | head` ends when head does.
                if closed && !watch.has_other_sinks() {
                    break;
                }
            }
            _ = polls.tick() => watch.poll(),
            _ = samples.tick() => watch.sample()?,
        }
    }
    watch.stop();
    Ok(ExitCode::SUCCESS)
}

/// Ticks every `period`; ticks that were missed are not made up for.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
