//! `filltop top`: the live screen, fed by the tracer or by a recording.

use std::convert::Infallible;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::watch;
use tracer_model::sanitize::Charset;

use super::args::{AttachArgs, TraceArgs, duration, environment, mount_of, units};
use super::record;
use crate::actions::bridge;
use crate::actions::bridge::ActionBridge;
use crate::actions::guard_config::ConfigArgs;
use crate::measure::measuring_loop::MeasuringLoop;
use crate::output::terminal;
use crate::service::attach;
use crate::service::client::Client;
use crate::tui;
use crate::tui::{Options, UiState};
use tracer_model::history::retention::Limits;

/// Arguments of `filltop top`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop /var                     only the volume that holds /var
  sudo filltop top --interval 5s        one sample every five seconds
  filltop top --replay filltop.rec      a recording, opened at its end

The left and right arrow keys step through history. If `filltop watch` is
running, its measurements are shown, with an hour of history.")]
pub struct TopArgs {
    /// Show only the volumes that contain these paths
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Time between two samples
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Play back a recording made by `filltop record`; needs no privileges
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "interval"])]
    replay: Option<PathBuf>,
    /// Use only ASCII characters (automatic if the locale is not UTF-8)
    #[arg(long)]
    ascii: bool,
    /// Powers of 1000 instead of 1024
    #[arg(long)]
    si: bool,
    /// Select rows, volumes and views with the mouse (selecting text then needs Shift)
    #[arg(long)]
    mouse: bool,
    #[command(flatten)]
    attach: AttachArgs,
    #[command(flatten)]
    trace: TraceArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Shows the live screen until the user quits.
///
/// # Errors
/// If there is no terminal, if tracing is not possible, or if the recording cannot be read.
pub(crate) async fn top(args: TopArgs) -> anyhow::Result<ExitCode> {
    if !io::stdout().is_terminal() {
        return Err(anyhow!(
            "the live screen needs a terminal: use `filltop snapshot` in pipes and scripts"
        ));
    }
    let charset = if args.ascii { Charset::Ascii } else { terminal::charset(environment) };
    let state = UiState {
        units: units(args.si),
        charset,
        theme: terminal::theme(environment),
        ..UiState::default()
    };
    let options = Options { state, mouse: args.mouse, ..Options::default() };
    match &args.replay {
        Some(file) => {
            // Load the whole recording; beyond the memory limit, its older half gets coarser.
            let limits = Limits { seconds: 1e9, ..Limits::default() };
            tui::run_replay(|app| record::load(file, app), Options { limits, ..options }).await?;
        }
        None => {
            let only = args.paths.iter().map(|path| mount_of(path)).collect::<Result<_, _>>()?;
            match attach::follow(&args.attach.source(&args.trace), "top") {
                Ok(client) => attached(&args, client, only, options).await?,
                Err(standalone) => standalone.or_else_async(live(&args, only, options)).await?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the service's measurements.
async fn attached(
    args: &TopArgs,
    client: Client,
    only: Vec<String>,
    options: Options,
) -> anyhow::Result<()> {
    let (every, wanted) = watch::channel(args.interval.as_secs_f64());
    let feed = attach::feed(client, only, wanted)?;
    let (options, bridge) =
        with_helper(&args.config, Options { interval: Some(every), ..options })?;
    tokio::select! {
        // Otherwise the screen could notice the end of the Snapshots first, and quit without an
        // error message.
        biased;
        Ok(error) = feed.end => Err(error),
        never = run_bridge(bridge) => match never {},
        result = tui::run_attached(feed.snapshots, feed.past, options) => result,
    }
}

/// Connects the screen to the privileged helper that carries out its actions. Without root
/// privileges, actions are only shown.
fn with_helper(
    config: &ConfigArgs,
    options: Options,
) -> anyhow::Result<(Options, Option<ActionBridge>)> {
    if !rustix::process::geteuid().is_root() {
        return Ok((options, None));
    }
    let (port, bridge) = bridge::open(config.read()?)?;
    let (actions, results) = (Some(port.actions), Some(port.results));
    Ok((Options { actions, results, ..options }, Some(bridge)))
}

async fn run_bridge(bridge: Option<ActionBridge>) -> Infallible {
    match bridge {
        Some(bridge) => bridge.run().await,
        None => std::future::pending().await,
    }
}

async fn live(args: &TopArgs, only: Vec<String>, options: Options) -> anyhow::Result<()> {
    let (every, mut wanted) = watch::channel(args.interval.as_secs_f64());
    // Before the tracer drops its privileges.
    let (options, bridge) =
        with_helper(&args.config, Options { interval: Some(every), ..options })?;
    let measuring = MeasuringLoop::start(&args.trace.options(), args.interval)?;
    let mut measuring = measuring.with_early_intervals();
    let (sender, receiver) = watch::channel(None);
    let screen = tui::run(receiver, options);
    let tracing = async {
        loop {
            tokio::select! {
                // The keys `+` and `-`.
                Ok(()) = wanted.changed() => {
                    let seconds = *wanted.borrow_and_update();
                    measuring.set_interval(Duration::from_secs_f64(seconds));
                }
                snapshot = measuring.next() => {
                    let mut snapshot = snapshot?;
                    if !only.is_empty() {
                        Arc::make_mut(&mut snapshot).retain_volumes(&only);
                    }
                    sender.send_replace(Some(snapshot));
                }
            }
        }
    };
    tokio::select! {
        result = screen => result,
        never = run_bridge(bridge) => match never {},
        result = tracing => { let never: anyhow::Result<Infallible> = result; never.map(|_| ()) }
    }
}
