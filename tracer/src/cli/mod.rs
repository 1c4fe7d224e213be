//! The command line: its commands and options, and the dispatch to each command.

mod args;
mod check;
pub mod doctor;
pub mod forecast;
mod held;
pub mod record;
mod snapshot;
pub mod stop;
pub mod top;
mod watch;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use tracer_host::host_root;

use self::check::CheckArgs;
use self::record::{RecordArgs, ReplayArgs, record, replay};
use self::snapshot::{SnapshotArgs, snapshot};
use self::stop::{ResumeArgs, StopArgs};
use self::top::{TopArgs, top};
use crate::actions::{helper, supervisor};
use crate::output::terminal;

/// top for what is filling your disk
#[derive(Debug, Parser)]
#[command(name = "filltop", version, about, args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  sudo filltop                        the live screen
  sudo filltop /var                   only the volume that holds /var
  sudo filltop snapshot --for 10s     measure for ten seconds and print
  sudo filltop snapshot --json | jq . the same as JSON
  sudo filltop watch                  warn before a volume is full
  sudo filltop held                   deleted files that still take space
  sudo filltop doctor                 can filltop run here, what does it miss?")]
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
    Watch(watch::WatchArgs),
    /// Measure once and exit as a monitoring plugin: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    Check(CheckArgs),
    /// Deleted-but-open files now, largest first
    Held(held::HeldArgs),
    /// Predict when a volume will be full, from its recorded history
    Forecast(forecast::ForecastArgs),
    /// Flight recorder: write Snapshots to a bounded file until stopped
    Record(RecordArgs),
    /// Play a recording back as text or JSON
    Replay(ReplayArgs),
    /// Check whether filltop can run here, and what it would miss
    Doctor(doctor::DoctorArgs),
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
        Command::Watch(args) => block_on(watch::watch(args)),
        Command::Check(args) => block_on(check::check(args)),
        Command::Held(args) => held::held(&args),
        Command::Forecast(args) => forecast::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::doctor(&args),
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
        .with_ansi(io::stderr().is_terminal() && terminal::color(args::environment))
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_valid() {
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
}
