//! The command line: its commands and options, and the dispatch to each command.

mod check;
pub mod doctor;
pub mod forecast;
pub mod record;
mod snapshot;
pub mod stop;
pub mod top;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracer_model::snapshot::{Snapshot, WriteBackend};
use tracer_model::units::Units;

use crate::actions::{helper, supervisor};
use crate::alerting::{WatchArgs, watch};
use crate::attribute::groups::Groups;
use crate::cli::check::CheckArgs;
use crate::cli::record::{RecordArgs, ReplayArgs, record, replay};
use crate::cli::snapshot::{SnapshotArgs, snapshot};
use crate::cli::stop::{ResumeArgs, StopArgs};
use crate::cli::top::{TopArgs, top};
use crate::measure::deleted_files;
use crate::output::{terminal, text};
use crate::service::attach;
use crate::service::attach::AttachArgs;
use tracer_host::open_files::places::Places;
use tracer_host::{host_root, mounts, open_files};
use tracer_kernel::TracerOptions;

/// top for what is filling your disk
#[derive(Debug, Parser)]
#[command(name = "filltop", version, about, args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  sudo filltop                        the live screen
  sudo filltop /var                   only the volume that holds /var
  sudo filltop snapshot --for 10s     measure for ten seconds and print
  sudo filltop snapshot --json | jq . the same as JSON
  sudo filltop watch                  warn before a volume is full, with the cause
  sudo filltop held                   deleted files that still take space
  sudo filltop doctor                 can filltop run here, and what would it miss?")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    top: TopArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The live screen (the default)
    Top(TopArgs),
    /// Measure for a while, print once, exit
    Snapshot(SnapshotArgs),
    /// Headless alert mode: one line per event, until stopped
    Watch(WatchArgs),
    /// Measure once and exit as a monitoring plugin: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    Check(CheckArgs),
    /// Deleted-but-open files now, largest first
    Held(HeldArgs),
    /// Predict when a volume will be full, from its recorded history
    Forecast(forecast::ForecastArgs),
    /// Flight recorder: write Snapshots to a bounded file until stopped
    Record(RecordArgs),
    /// Play a recording back as text or JSON
    Replay(ReplayArgs),
    /// Check whether filltop can run here, and what it would miss
    Doctor(DoctorArgs),
    /// Freeze, throttle, fence, terminate or kill what fills the disk (shows a plan first)
    Stop(StopArgs),
    /// Undo `stop`: resume what was frozen, throttled or fenced
    Resume(ResumeArgs),
    /// Internal: supervises a suspended target; started by `stop`
    #[command(hide = true)]
    Supervise,
    /// Internal: acts on behalf of the screen and the guard, which have no privileges
    #[command(hide = true)]
    Helper,
}

/// Options that choose how to trace.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// Use only this kind of probe
    #[arg(long, value_enum)]
    backend: Option<BackendArg>,
    /// Also hook this kernel function (`vfs_write` covers unknown filesystems)
    #[arg(long, value_name = "FUNCTION")]
    hooks: Vec<String>,
    /// Verbose logging to stderr; repeat to include the eBPF log
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BackendArg {
    /// fentry/fexit trampolines
    Fentry,
    /// kprobes and kretprobes
    Kprobe,
    /// Static tracepoints
    Tracepoint,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Shows the same files as `lsof +L1`, largest first, under the volume whose space
they use: for a container on an overlay, the volume of its upper directory.
Needs no tracing.")]
struct HeldArgs {
    /// One JSON array
    #[arg(long)]
    json: bool,
    /// Powers of 1000 instead of 1024
    #[arg(long)]
    si: bool,
    #[command(flatten)]
    attach: AttachArgs,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Where `filltop watch` runs, this reports how that service traces, with the
service's privileges. With --standalone it reports what this command could do.

Exit status: 0 if every volume is traced as well as this kernel allows, else 1.")]
struct DoctorArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    attach: AttachArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

/// Returns the whole command line with its subcommands, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program. Exit status: 0 success, 1 failure (one line on stderr), 2 wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let command = cli.command.unwrap_or(Command::Top(cli.top));
    start_log(match &command {
        Command::Top(_) | Command::Held(_) | Command::Forecast(_) | Command::Replay(_) => 0,
        Command::Stop(_) | Command::Resume(_) | Command::Supervise | Command::Helper => 0,
        Command::Record(args) => args.trace.verbose,
        Command::Snapshot(args) => args.trace.verbose,
        Command::Watch(args) => args.trace.verbose,
        Command::Check(args) => args.trace.verbose,
        Command::Doctor(args) => args.trace.verbose,
    });
    host_root::join_cgroup_namespace();
    let result = match command {
        Command::Top(args) => block_on(top(args)),
        Command::Record(args) => block_on(async { record(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Replay(args) => replay(&args).map(|()| ExitCode::SUCCESS),
        Command::Snapshot(args) => block_on(snapshot(args)),
        Command::Watch(args) => block_on(watch(args)),
        Command::Check(args) => block_on(check::check(args)),
        Command::Held(args) => print_held(&args),
        Command::Forecast(args) => forecast::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => examine(&args),
        Command::Stop(args) => stop::stop(&args),
        Command::Resume(args) => stop::resume(&args),
        Command::Supervise => supervisor::process::run().map(|()| ExitCode::SUCCESS),
        Command::Helper => helper::process::run().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        // `filltop … | head` is not a failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("filltop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a usage error and returns its exit status: 2, or UNKNOWN for `check`, where 2 would mean
/// CRITICAL.
fn refuse(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let is_check = std::env::args_os().nth(1).is_some_and(|first| first == "check");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_check => ExitCode::from(check::UNKNOWN),
        _ => ExitCode::from(2),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(work)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && terminal::color(environment))
        .init();
}

impl TraceArgs {
    /// Whether any tracing option was given.
    pub(crate) fn is_special(&self) -> bool {
        self.backend.is_some() || !self.hooks.is_empty()
    }

    pub(crate) fn options(&self) -> TracerOptions {
        TracerOptions {
            backend: self.backend.map(|backend| match backend {
                BackendArg::Fentry => WriteBackend::Fentry,
                BackendArg::Kprobe => WriteBackend::Kprobe,
                BackendArg::Tracepoint => WriteBackend::Tracepoint,
            }),
            hooks: self.hooks.clone(),
            kernel_log: self.verbose > 1,
            in_container: host_root::in_container(),
        }
    }
}

pub(crate) fn units(si: bool) -> Units {
    if si { Units::Si } else { Units::Iec }
}

fn print_held(args: &HeldArgs) -> anyhow::Result<ExitCode> {
    let found = match attach::newest(&args.attach, "held") {
        Ok(snapshot) => deleted_files::HeldFiles { files: snapshot.held, unreadable: 0 },
        Err(none) => none.or_else(|| {
            let volumes =
                mounts::read().context("cannot read /proc/self/mountinfo: is /proc mounted?")?;
            let places = Places::new(&volumes);
            let open = open_files::walk(&places);
            Ok(deleted_files::of(&open, &volumes, &places, &mut Groups::default(), None))
        })?,
    };
    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&found.files)?)?;
    } else {
        write!(stdout, "{}", text::held(&found.files, &text_options(args.si)))?;
    }
    stdout.flush()?;
    if found.unreadable > 0 {
        let count = found.unreadable;
        let processes = if count == 1 { "process" } else { "processes" };
        eprintln!("filltop: could not inspect {count} {processes}; run as root to see their files");
    }
    Ok(ExitCode::SUCCESS)
}

fn examine(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let report = match attach::described(&args.attach, &args.trace) {
        Ok(snapshot) => doctor::of_service(snapshot),
        Err(alone) => alone.or_else(|| Ok(doctor::examine(&args.trace.options())))?,
    };
    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(stdout, "{}", doctor::text(&report))?;
    }
    let well = report.ok && report.is_complete();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn text_options(si: bool) -> text::TextOptions {
    let width = rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(80);
    text::TextOptions {
        width,
        units: units(si),
        color: io::stdout().is_terminal() && terminal::color(environment),
        charset: terminal::charset(environment),
        ..text::TextOptions::default()
    }
}

/// The mount point of the volume that holds a path, as the Snapshot prints it.
pub(crate) fn mount_of(path: &Path) -> anyhow::Result<String> {
    Ok(mounts::holding(path)?.primary().mount_point.to_string_lossy().into_owned())
}

/// Removes the rows of all volumes except those with these mount points.
pub(crate) fn narrow(snapshot: &mut Snapshot, mounts: &[String]) {
    snapshot.volumes.retain(|row| mounts.contains(&row.mount_point));
    snapshot.writers.retain(|row| mounts.contains(&row.volume));
    snapshot.dirs.retain(|row| mounts.contains(&row.volume));
    snapshot.paths.retain(|row| mounts.contains(&row.volume));
    snapshot.held.retain(|row| mounts.contains(&row.volume));
    snapshot.victims.retain(|row| mounts.contains(&row.volume));
    snapshot.groups.retain(|row| mounts.contains(&row.volume));
    snapshot.residents.retain(|row| mounts.contains(&row.volume));
}

/// The signals that end a command: SIGINT and SIGTERM.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Parses `500ms`, `5s`, `2m`, `1h`, or a number of seconds. From 100 ms to 7 days.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}; use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "not a duration; use e.g. 5s".to_owned())?;
    let length = Duration::try_from_secs_f64(number * seconds_per_unit)
        .map_err(|_| "too long".to_owned())?;
    if length < Duration::from_millis(100) || length > Duration::from_secs(7 * 86_400) {
        return Err("must be between 100ms and 7 days".to_owned());
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    /// clap wraps option help to the terminal's width, but prints the text after it unchanged.
    #[test]
    fn examples_fit_80_columns() {
        let root = command();
        for command in std::iter::once(&root).chain(root.get_subcommands()) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
    }

    /// Pins the `--help` text of every command, hidden ones included, so that reviews show changes.
    #[test]
    fn help_of_every_command() {
        let mut root = command().term_width(100);
        root.build();
        let all = std::iter::once(root.clone()).chain(root.get_subcommands().cloned());
        for mut command in all {
            let name = format!("help_{}", command.get_name());
            insta::assert_snapshot!(name, command.render_long_help().to_string());
        }
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "s", "5x", "-1s", "0", "1e9h", "999h", "nan", "1..5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
