//! `filltop watch`: the headless alert mode.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::args::{TraceArgs, duration};
use crate::alerting::{self, WatchOptions, replay};
use crate::config::{Config, SAMPLE};
use crate::service::{SOCKET, ServeOptions};

/// Options of what is served, and where.
#[derive(Debug, Clone, Args)]
struct ServeArgs {
    /// Socket path for other commands (root and group `filltop` may connect)
    #[arg(long, value_name = "PATH", env = "FILLTOP_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
    /// Do not serve a socket
    #[arg(long)]
    no_socket: bool,
    /// Serve metrics for Prometheus at this address, e.g. 127.0.0.1:9823
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// TLS and password configuration for the metrics (see docs/metrics.md)
    #[arg(long, value_name = "FILE", requires = "metrics")]
    metrics_guard: Option<PathBuf>,
    /// Number of groups with metrics of their own
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    metrics_groups: u16,
    /// Directory with metrics of its own; may be given up to 64 times
    #[arg(long, value_name = "PATH")]
    metrics_directory: Vec<String>,
}

impl ServeArgs {
    fn options(self) -> ServeOptions {
        ServeOptions {
            socket: (!self.no_socket).then_some(self.socket),
            metrics: self.metrics,
            metrics_guard: self.metrics_guard,
            metrics_groups: self.metrics_groups,
            metrics_directories: self.metrics_directory,
        }
    }
}

/// Arguments of `filltop watch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  sudo filltop watch                           warn 4 h before a volume is full
  sudo filltop watch --json | jq -r .summary
  filltop watch --print-config > filltop.toml  sample with all keys
  filltop watch --check-config --config filltop.toml
  sudo filltop watch --config filltop.toml
  sudo filltop watch --metrics 127.0.0.1:9823  also serve metrics
  filltop watch --replay-csv history.csv       alerts it would have raised

While it runs, `filltop top`, `snapshot`, `held` and `check` show its data,
which they read over its socket.

SIGHUP reloads the configuration; if the new one is invalid, the previous one is
kept. SIGUSR1 acknowledges all active alerts: no reminders until they get worse
or fire again. contrib/ has a systemd unit and Prometheus alert rules.")]
pub(super) struct WatchArgs {
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
    pub(super) trace: TraceArgs,
}

/// Runs `filltop watch` until it is stopped.
///
/// # Errors
/// If the configuration is invalid, or tracing is not possible.
pub(super) async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
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
    let options = WatchOptions {
        config: args.config,
        json: args.json,
        interval: args.interval,
        serve: args.serve.options(),
        tracer: args.trace.options(),
    };
    alerting::run(options, config).await
}
