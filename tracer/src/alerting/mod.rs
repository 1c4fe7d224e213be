//! `filltop watch`: Snapshots → rules → sinks, until stopped.

mod dir_sizes;
mod guard_events;
mod hub;
pub(crate) mod replay;
mod run;
pub mod sinks;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::tz::TimeZone;
use tracer_model::alert::{Glob, Moment};
use tracer_model::snapshot::Snapshot;

pub(crate) use dir_sizes::Sizes;
use guard_events::Guarding;
pub use hub::{Control, Guard, Hub};

use crate::config::Config;
use crate::service::ServeOptions;
use tracer_host::clock;
use tracer_kernel::TracerOptions;

/// Options of a watch, beyond its configuration.
#[derive(Debug, Clone)]
pub(crate) struct WatchOptions {
    /// The configuration file, read again on SIGHUP; `None`: the built-in rules.
    pub(crate) config: Option<PathBuf>,
    /// Print events as JSON, one object per line.
    pub(crate) json: bool,
    /// Time between two Snapshots; `None`: as configured.
    pub(crate) interval: Option<Duration>,
    /// What is served, and where.
    pub(crate) serve: ServeOptions,
    /// How to trace.
    pub(crate) tracer: TracerOptions,
}

/// Runs a watch until it is stopped.
///
/// # Errors
/// If tracing is not possible.
pub(crate) async fn watch(options: WatchOptions, config: Config) -> anyhow::Result<ExitCode> {
    // Before the tracer drops its privileges.
    let mut guard = Guarding::start(&config.guard)?;
    run::run(&options, config, &mut guard).await
}

/// The present time on both clocks, with the minute of the local day.
pub(crate) fn moment(zone: &TimeZone) -> Moment {
    let wall = clock::now();
    let local = wall.to_zoned(zone.clone()).time();
    let minute = local.hour() as u16 * 60 + local.minute() as u16;
    Moment { steady_s: clock::boottime_s(), wall, minute }
}

/// Removes ignored volumes from a Snapshot.
pub(crate) fn leave_out(snapshot: &mut Snapshot, ignore: &[Glob]) {
    let is_ignored = |name: &str| ignore.iter().any(|glob| glob.matches(name));
    let left: Vec<String> = snapshot
        .volumes
        .iter()
        .map(|row| row.mount_point.clone())
        .filter(|name| !is_ignored(name))
        .collect();
    snapshot.retain_volumes(&left);
}
