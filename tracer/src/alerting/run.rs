//! The main loop of `filltop watch`. It never blocks on sinks, clients or directory counts, which
//! have threads and channels of their own.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use rustix::termios::tcgetattr;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::guard_events::GuardEvents;
use super::options::WatchOptions;
use super::sinks::SinkState;
use super::watch::Watch;
use crate::config::Config;
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
            result = watch.next_snapshot() => watch.sample(result)?,
        }
    }
    watch.stop();
    Ok(ExitCode::SUCCESS)
}
