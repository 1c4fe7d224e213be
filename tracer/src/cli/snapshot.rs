//! `filltop snapshot`: measures for a while and prints one Snapshot.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, interval, sleep_until};
use tracer_model::snapshot::Snapshot;

use super::args::{AttachArgs, TraceArgs, duration, mount_of, text_options};
use crate::measure::pipeline::{POLL_INTERVAL, Pipeline};
use crate::output::text::By;
use crate::output::{json, text};
use crate::service::attach;
use crate::signals::StopSignals;

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  sudo filltop snapshot --for 10s --top 20
  sudo filltop snapshot --by group
  sudo filltop snapshot --volume /var --json | jq '.writers[0]'

A file in a container's root filesystem is shown as NAME:PATH, with PATH as the
container sees it; --json also has the path on the host.

Where `filltop watch` runs, this immediately prints the last --for of that
service's data. If interrupted (Ctrl-C), it prints what was measured so far.")]
pub(crate) struct SnapshotArgs {
    /// How long to measure, e.g. 500ms, 5s, 2m
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = duration)]
    length: Duration,
    /// Number of rows per table [default: 10; all with --json]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Row type of the writers table: a process, or its group (a container's log counts as the
    /// container's). Does not affect --json, which has both
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    by: By,
    /// Only the volume that holds this path
    #[arg(long, value_name = "MOUNT")]
    volume: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Powers of 1000 instead of 1024
    #[arg(long)]
    si: bool,
    #[command(flatten)]
    attach: AttachArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// Prints one Snapshot: the running service's, or one that is measured now.
pub(crate) async fn snapshot(args: SnapshotArgs) -> anyhow::Result<ExitCode> {
    let only = args.volume.as_deref().map(mount_of).transpose()?;
    let seconds = args.length.as_secs_f64();
    let mut snapshot = match attach::recent(&args.attach.source(&args.trace), "snapshot", seconds) {
        Ok(snapshot) => Arc::new(snapshot),
        Err(none) => none.or_else_async(measure(&args)).await?,
    };
    let snapshot = Arc::make_mut(&mut snapshot);
    if let Some(only) = only {
        snapshot.retain_volumes(&[only]);
    }
    print_snapshot(snapshot, &args)?;
    Ok(ExitCode::SUCCESS)
}

/// Traces for the requested time, or until interrupted.
async fn measure(args: &SnapshotArgs) -> anyhow::Result<Arc<Snapshot>> {
    let mut stop = StopSignals::new()?;
    let mut pipeline = Pipeline::start(&args.trace.options())?;
    let end = Instant::now() + args.length;
    let mut poll = interval(POLL_INTERVAL);
    let mut look = interval(Duration::from_secs(1));
    look.reset();
    loop {
        tokio::select! {
            () = sleep_until(end) => break,
            () = stop.received() => break,
            _ = poll.tick() => pipeline.poll(),
            _ = look.tick() => pipeline.look()?,
        }
    }
    pipeline.snapshot(true)
}

fn print_snapshot(snapshot: &mut Snapshot, args: &SnapshotArgs) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    if args.json {
        if let Some(top) = args.top {
            snapshot.writers.truncate(top);
            snapshot.paths.truncate(top);
            snapshot.dirs.truncate(top);
            snapshot.held.truncate(top);
            snapshot.groups.truncate(top);
            snapshot.residents.truncate(top);
        }
        writeln!(stdout, "{}", json::to_string(snapshot)?)?;
    } else {
        let mut options = text_options(args.si);
        options.by = args.by;
        options.top = args.top.unwrap_or(options.top);
        write!(stdout, "{}", text::snapshot(snapshot, &options))?;
    }
    Ok(stdout.flush()?)
}
