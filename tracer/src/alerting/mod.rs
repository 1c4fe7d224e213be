//! `filltop watch`: Snapshots → rules → sinks, until stopped.

mod dir_sizes;
mod guard_events;
mod hub;
mod replay;
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

use crate::cli::{TraceArgs, duration};
use crate::config::{Config, SAMPLE};
use crate::service::ServeArgs;
use tracer_host::clock;

/// Arguments of `filltop watch`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop watch                            warn 4 h before full, name the culprit
  sudo filltop watch --json | jq -r .summary
  filltop watch --print-config > filltop.toml   sample configuration with all keys
  filltop watch --check-config --config filltop.toml
  sudo filltop watch --config filltop.toml
  sudo filltop watch --metrics 127.0.0.1:9823   serve metrics for Prometheus, too
  filltop watch --replay-csv history.csv        alerts it would have raised

While it runs, `filltop top`, `snapshot`, `held` and `check` show its data, which
they read over its socket.

SIGHUP reloads the configuration; if the new one is invalid, the previous one is
kept. SIGUSR1 acknowledges all active alerts: no reminders until they get worse
or fire again. contrib/systemd has a unit for it, contrib/prometheus alert rules.")]
pub struct WatchArgs {
    /// Rules, and where alerts go (TOML) [default: the built-in rules]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Time between two samples [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    interval: Option<Duration>,
    /// Check the configuration and exit (0 if valid)
    #[arg(long)]
    check_config: bool,
    /// Print a sample configuration and exit
    #[arg(long, conflicts_with_all = ["check_config", "replay_csv"])]
    print_config: bool,
    /// Evaluate the recorded history of a volume instead of this host (format as for `filltop
    /// forecast`; - is standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "check_config")]
    replay_csv: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// Runs `filltop watch` until it is stopped.
///
/// # Errors
/// If the configuration is invalid, or tracing is not possible.
pub(crate) async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    if args.print_config {
        print!("{SAMPLE}");
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(args.config.as_deref())?;
    if args.check_config {
        let file =
            args.config.as_ref().map_or("no file given".into(), |file| file.display().to_string());
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (rules, sinks) = (config.rules.len(), config.sinks.len());
        println!("{file}: valid, with {} and {}", count(rules, "rule"), count(sinks, "sink"));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &args.replay_csv {
        return replay::replay(file, config.rules, args.json);
    }
    // Before the tracer drops its privileges.
    let mut guard = Guarding::start(&config.guard)?;
    run::run(&args, config, &mut guard).await
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
    crate::cli::narrow(snapshot, &left);
}
