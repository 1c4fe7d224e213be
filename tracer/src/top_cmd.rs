//! `filltop top`: the live screen, fed by the tracer or by a recording.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracer_model::sanitize::Charset;

use crate::actions::screen;
use crate::cli::{TraceArgs, duration, environment, mount_of, narrow, units};
use crate::outputs::terminal;
use crate::pipeline::{POLL_INTERVAL, Pipeline};
use crate::record_cmd;
use crate::tui::history::Limits;
use crate::tui::{self, Options, UiState};

/// What to show, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop /var                     only the volume that holds /var
  sudo filltop top --interval 5s        numbers every five seconds
  filltop top --replay filltop.rec      a recording, opened at its end: left and right go through it")]
pub struct TopArgs {
    /// Only the volumes that hold these paths
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Seconds between two screens
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Show what `filltop record` wrote; needs no privileges
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "interval"])]
    replay: Option<PathBuf>,
    /// Only ASCII characters (also where the locale is not UTF-8)
    #[arg(long)]
    ascii: bool,
    /// Powers of 1000 instead of 1024
    #[arg(long)]
    si: bool,
    /// Let the mouse select rows, volumes and views (selecting text then needs Shift)
    #[arg(long)]
    mouse: bool,
    #[command(flatten)]
    trace: TraceArgs,
}

/// Shows the screen until it is quit.
///
/// # Errors
/// Without a terminal, if tracing is not possible, or if there is nothing to replay.
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
            // All of it, however long it is: where memory is short it gets coarser.
            let limits = Limits { seconds: 1e9, ..Limits::default() };
            tui::run_replay(|app| record_cmd::load(file, app), Options { limits, ..options })
                .await?;
        }
        None => live(&args, options).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn live(args: &TopArgs, options: Options) -> anyhow::Result<()> {
    let only = args.paths.iter().map(|path| mount_of(path)).collect::<Result<Vec<_>, _>>()?;
    // Before the tracer gives up its privileges. Where there are none to act with, it only shows.
    let desk = rustix::process::geteuid().is_root().then(screen::open).transpose()?;
    let mut pipeline = Pipeline::start(&args.trace.options())?;
    let (sender, receiver) = watch::channel(None);
    let (every, wanted) = watch::channel(args.interval.as_secs_f64());
    let (actions, results, clerk) = match desk {
        Some((desk, clerk)) => (Some(desk.actions), Some(desk.results), Some(clerk)),
        None => (None, None, None),
    };
    let options = Options { interval: Some(every), actions, results, ..options };
    let screen = tui::run(receiver, options);
    let acting = async {
        match clerk {
            Some(clerk) => clerk.work().await,
            None => std::future::pending().await,
        }
    };
    let tracing = async {
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first numbers come soon, the next ones at the interval.
        let mut due = Instant::now() + POLL_INTERVAL * 2;
        loop {
            poll.tick().await;
            pipeline.poll();
            // `+` and `-` on the screen: a shorter interval does not wait for the longer one's end.
            let every = Duration::from_secs_f64(*wanted.borrow());
            due = due.min(Instant::now() + every);
            if Instant::now() >= due {
                due = Instant::now() + every;
                let mut snapshot = pipeline.snapshot(false)?;
                if !only.is_empty() {
                    narrow(Arc::make_mut(&mut snapshot), &only);
                }
                sender.send_replace(Some(snapshot));
            }
        }
    };
    tokio::select! {
        result = screen => result,
        never = acting => match never {},
        result = tracing => { let never: anyhow::Result<std::convert::Infallible> = result; never.map(|_| ()) }
    }
}
