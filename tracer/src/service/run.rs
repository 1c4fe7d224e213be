//! The loop of `filltop watch`: measure, publish, say that all is well.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use tokio::time::{MissedTickBehavior, interval};
use tracer_model::{sanitize, snapshot::Snapshot};

use super::{Bound, ServeArgs, hardening, notify::Notify};
use crate::{
    cli::{StopSignals, TraceArgs, duration},
    clock,
    outputs::words::eta_cell,
    pipeline::{POLL_INTERVAL, Pipeline},
};

/// What to watch, and whom to tell.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop watch                              other commands show what it knows
  sudo filltop watch --metrics 127.0.0.1:9823     and Prometheus can scrape it

Runs until stopped. contrib/systemd has a unit for it, contrib/prometheus rules.")]
pub struct WatchArgs {
    /// Time between two measurements
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// Measures and serves until it is stopped.
///
/// # Errors
/// If tracing is not possible, an address is taken, or the kernel refuses to be read.
pub(crate) async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignals::new()?;
    // What needs privileges, before the pipeline gives them up.
    let bound = Bound::new(&args.serve)?;
    harden();
    let mut pipeline = Pipeline::start(&args.trace.options())?;
    let service = bound.start(args.interval)?;
    let mut notify = Notify::new();
    let mut poll = interval(POLL_INTERVAL);
    let mut look = interval(args.interval);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.reset();
    notify.ready();
    loop {
        tokio::select! {
            () = stop.received() => break,
            _ = poll.tick() => pipeline.poll(),
            _ = look.tick() => {
                let snapshot = pipeline.snapshot(false)?;
                service.publish(&snapshot);
                if !service.is_serving() {
                    bail!("the serving thread has ended: start `filltop watch` again");
                }
                if notify.alive(clock::instant()) {
                    notify.status(&status(&snapshot));
                }
            }
        }
    }
    notify.stopping();
    Ok(ExitCode::SUCCESS)
}

/// As far as we may: each is worth having alone.
fn harden() {
    if let Err(error) = hardening::lock_memory() {
        tracing::info!("memory is not locked: {error}");
    }
    if let Err(error) = hardening::spare_from_oom() {
        tracing::info!("the OOM killer was not told to take others first: {error}");
    }
}

/// The volume in most danger, for `systemctl status`.
fn status(snapshot: &Snapshot) -> String {
    let Some(volume) = snapshot.volumes.first() else { return "no volume".to_owned() };
    let volumes = snapshot.volumes.len();
    let mount = sanitize::display(&volume.mount_point);
    format!("{volumes} volumes; {mount}: {}", eta_cell(volume))
}
