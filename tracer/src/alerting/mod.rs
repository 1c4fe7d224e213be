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

/// What to watch for, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop watch                            warn within 4 h of full, say who
  sudo filltop watch --json | jq -r .summary
  filltop watch --print-config > filltop.toml   a sample of all keys
  filltop watch --check-config --config filltop.toml
  sudo filltop watch --config filltop.toml
  sudo filltop watch --metrics 127.0.0.1:9823   and Prometheus can scrape it
  filltop watch --replay-csv history.csv        what would it have said?

While it runs, `filltop top`, `snapshot`, `held` and `check` show what it knows.

SIGHUP reads the configuration again; one that is wrong changes nothing. SIGUSR1
acknowledges all alerts that are on: no more reminders until they get worse or
come again. Other commands ask the running watch over its socket.
contrib/systemd has a unit for it, contrib/prometheus rules.")]
pub struct WatchArgs {
    /// Rules, and where alerts go (TOML); without it, the rules that filltop brings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Time between two looks [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    interval: Option<Duration>,
    /// Say whether the configuration is right, and exit: 0 if it is
    #[arg(long)]
    check_config: bool,
    /// Print a sample of a configuration, and exit
    #[arg(long, conflicts_with_all = ["check_config", "replay_csv"])]
    print_config: bool,
    /// Instead of this host, watch the recorded history of a volume (as for `filltop forecast`; -
    /// is standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "check_config")]
    replay_csv: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// Watches until it is stopped.
///
/// # Errors
/// If the configuration is wrong, or tracing is not possible.
pub(crate) async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    if args.print_config {
        print!("{SAMPLE}");
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(args.config.as_deref())?;
    if args.check_config {
        let file =
            args.config.as_ref().map_or("no file given".into(), |file| file.display().to_string());
        println!("{file}: {} rules, {} sinks, no mistakes", config.rules.len(), config.sinks.len());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &args.replay_csv {
        return replay::replay(file, config.rules, args.json);
    }
    // Before the tracer gives up its privileges.
    let mut guard = Guarding::start(&config.guard)?;
    run::run(&args, config, &mut guard).await
}

/// Now, on both clocks, with the minute of the local day.
pub(crate) fn moment(zone: &TimeZone) -> Moment {
    let wall = clock::now();
    let local = wall.to_zoned(zone.clone()).time();
    let minute = local.hour() as u16 * 60 + local.minute() as u16;
    Moment { steady_s: clock::boottime_s(), wall, minute }
}

/// Leaves out volumes that are never watched.
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
