//! `filltop stop` and `filltop resume`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use tracer_model::action::measurement::{self, Measurement};
use tracer_model::action::pattern::Pattern;
use tracer_model::action::plan::Plan;
use tracer_model::action::protect::Protection;
use tracer_model::action::{Action, Intent};
use tracer_model::snapshot::Snapshot;
use tracer_model::units::Units;
use tracer_model::units::parse::{self, ParseError};

use super::args::{AttachArgs, duration, environment, units};
use crate::actions::foreground::Foreground;
use crate::actions::guard_config::ConfigArgs;
use crate::actions::request::{StopRequest, TargetSpec};
use crate::actions::resume::RecordState;
use crate::actions::target::Reach;
use crate::actions::{audit, engine, record, resume, text};
use crate::measure::pipeline::{POLL_INTERVAL, Pipeline};
use crate::output::terminal;
use crate::service::attach::{self, Source};
use tracer_host::clock;
use tracer_kernel::TracerOptions;

/// How much of the past is requested from the service.
const PAST: Duration = Duration::from_secs(10);
/// How long to measure with --standalone.
const MEASURE_TIME: Duration = Duration::from_secs(2);

/// The action, as a command-line value.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ActionArg {
    /// Suspend it until `resume` or the end of --for; loses nothing
    Freeze,
    /// Limit it to --rate bytes per second
    Throttle,
    /// Make writes that take space on a volume fail with EDQUOT; it keeps running
    Fence,
    /// Send SIGTERM
    Term,
    /// Send SIGKILL
    Kill,
    /// Stop its systemd unit, or its container with the runtime's own command
    Unit,
    /// Free the space of the deleted file --file, while its process keeps running
    Truncate,
}

impl From<ActionArg> for Action {
    fn from(how: ActionArg) -> Self {
        match how {
            ActionArg::Freeze => Self::Freeze,
            ActionArg::Throttle => Self::Throttle,
            ActionArg::Fence => Self::Fence,
            ActionArg::Term => Self::Term,
            ActionArg::Kill => Self::Kill,
            ActionArg::Unit => Self::Unit,
            ActionArg::Truncate => Self::Truncate,
        }
    }
}

/// Arguments of `filltop stop`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
TARGET is a pid, a unit, a container (name, or 3 or more digits of its id), a
pod (POD, NAMESPACE/POD or NAMESPACE/POD/CONTAINER), a session as the tables
name it, or the path of a cgroup as /proc/PID/cgroup prints it. A name can have
its kind as a prefix: docker/web, lxc/jail1. Prints the plan first: which
processes it affects, what it frees now, what is refused and why. Acts after a
confirmation, or with --yes.

Examples:
  sudo filltop stop 2114                         freeze a process tree
  sudo filltop stop nginx --how unit --dry-run   all but the last system call
  sudo filltop stop web3 --how throttle --rate 5MiB --for 2h --yes
  sudo filltop stop web3 --how fence --volume /srv --for 1h
  sudo filltop stop 2114 --how truncate --file /var/log/app.log
  sudo filltop stop 2114 --reach alone --avoid '^postgres' --log /tmp/fill.log
  sudo filltop stop 2114 --dry-run --standalone  measure first, without service
  sudo filltop resume 2114")]
pub struct StopArgs {
    /// A pid, unit, container, pod, session or cgroup
    target: String,
    /// What to do
    #[arg(long, value_enum, default_value = "freeze")]
    how: ActionArg,
    /// For throttle: bytes per second, e.g. 5MiB, 500kB
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = rate)]
    rate: u64,
    /// For fence: any path on the volume; required if the target writes to several
    #[arg(long, value_name = "PATH")]
    volume: Option<PathBuf>,
    /// Time limit after which freeze, throttle and fence end automatically
    #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = duration)]
    length: Duration,
    /// For truncate: the deleted file, by its path (as `filltop held` prints it) or descriptor
    #[arg(long, value_name = "PATH", required_if_eq("how", "truncate"))]
    file: Option<String>,
    /// Which related processes a pid includes
    #[arg(long, value_enum, default_value = "forker")]
    reach: Reach,
    /// Do everything except the last system call
    #[arg(long)]
    dry_run: bool,
    /// Skip the confirmation
    #[arg(long, short)]
    yes: bool,
    /// Refuse to act on a process or group whose name matches
    #[arg(long, value_name = "REGEX")]
    avoid: Vec<Pattern>,
    /// Reason for the audit line
    #[arg(long, value_name = "TEXT", default_value = "requested on the command line")]
    reason: String,
    /// Also append the audit line to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print one JSON object per line: plan, action, done
    #[arg(long)]
    json: bool,
    /// Powers of 1000 instead of 1024
    #[arg(long)]
    si: bool,
    #[command(flatten)]
    attach: AttachArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments of `filltop resume`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop resume freeze-3f2a91
  sudo filltop resume 2114
  sudo filltop resume --list           what is frozen, throttled or fenced
  sudo filltop resume --all")]
pub struct ResumeArgs {
    /// The id that `stop` printed, the TARGET given to `stop`, or the target's name
    #[arg(required_unless_present_any = ["all", "list"])]
    target: Option<String>,
    /// Resume everything that filltop has frozen, throttled or fenced
    #[arg(long, conflicts_with = "target")]
    all: bool,
    /// Only list what is frozen, throttled or fenced
    #[arg(long, conflicts_with_all = ["target", "all"])]
    list: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs `filltop stop`: plans, confirms, acts.
///
/// # Errors
/// If there is no such target, if the plan is refused or not confirmed, and system errors.
pub(crate) fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    reap_orphans();
    let request = StopRequest {
        spec: TargetSpec::Word(args.target.clone()),
        reach: args.reach,
        how: args.how.into(),
        rate: Some(args.rate),
        volume: args.volume.clone(),
        for_s: args.length.as_secs_f64(),
        file: args.file.clone(),
        intent: Intent::Asked,
        dry_run: args.dry_run,
        ends_with_owner: false,
        who: audit::who(),
        reason: args.reason.clone(),
        log: args.log.clone(),
    };
    let protection = Protection { avoid: args.avoid.clone(), configured: args.config.read()? };
    let mut prepared = engine::prepare(request, &protection)?;
    if let Some(measured) = measured(&args.attach.source_of_data(), &prepared.plan)? {
        prepared.attach_measurement(measured);
    }
    let (charset, units) = (terminal::charset(environment), units(args.si));
    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&prepared.plan)?)?;
    } else {
        write!(stdout, "{}", text::plan(&prepared.plan, units, charset))?;
    }
    stdout.flush()?;
    if !prepared.plan.allowed() {
        bail!("refused: {}", prepared.plan.refusal());
    }
    if !args.dry_run && !args.yes && !confirmed()? {
        bail!("aborted: not confirmed (use --yes to skip the prompt)");
    }
    let audit = prepared.audit();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&audit)?)?;
    } else {
        writeln!(stdout, "{}", audit.line())?;
    }
    // If the action hangs or kills the terminal, unflushed output would be lost.
    stdout.flush()?;
    // Signals are blocked before anything is suspended, so that a signal that arrives meanwhile resumes
    // the target instead of only ending this process.
    let foreground =
        (prepared.needs_requester() && !args.dry_run).then(Foreground::start).transpose()?;
    let outcome = prepared.carry_out()?;
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&outcome)?)?;
    } else {
        write!(stdout, "{}", text::outcome(&outcome, units, charset))?;
    }
    stdout.flush()?;
    if let (Some(foreground), Some(supervisor)) = (foreground, outcome.supervisor) {
        if !args.json {
            writeln!(
                stdout,
                "filltop runs in a container, so this lasts only as long as this command; press \
                 Ctrl-C or send SIGTERM or SIGHUP to end it"
            )?;
            stdout.flush()?;
        }
        foreground.wait(supervisor)?;
        return Ok(ExitCode::SUCCESS);
    }
    let left = outcome.terminated.is_some_and(|ended| !ended.is_complete());
    Ok(if left { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns what is known about the target's growth: from the service if one runs, or measured here with
/// --standalone. `None` if neither is available.
fn measured(source: &Source, plan: &Plan) -> anyhow::Result<Option<Measurement>> {
    let pids = plan.processes.iter().map(|process| process.pid).collect();
    let of = |snapshot: &Snapshot, source| {
        Measurement::of(&pids, plan.target.cgroup.as_deref(), snapshot, source)
    };
    match attach::past(source, "stop", PAST.as_secs_f64()) {
        Ok(snapshot) => Ok(Some(of(&snapshot, measurement::Source::Service))),
        Err(standalone) if standalone.is_chosen() => {
            let mut pipeline = Pipeline::start(&TracerOptions::default())?;
            let start = clock::instant();
            while start.elapsed() < MEASURE_TIME {
                std::thread::sleep(POLL_INTERVAL);
                pipeline.poll();
            }
            Ok(Some(of(&*pipeline.snapshot(true)?, measurement::Source::Here)))
        }
        Err(standalone) => {
            standalone.warn("the plan omits the target's growth (use --standalone to measure it)");
            Ok(None)
        }
    }
}

/// Runs `filltop resume`.
///
/// # Errors
/// If nothing suspended matches the target, and system errors.
pub(crate) fn resume(args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    reap_orphans();
    let mut stdout = io::stdout().lock();
    if args.list {
        return list(args.json);
    }
    let records = match &args.target {
        Some(target) => resume::resume(target)?,
        None => resume::release_all(record::all())?,
    };
    for record in records {
        if args.json {
            writeln!(stdout, "{}", serde_json::to_string(&record)?)?;
        } else {
            let name = tracer_model::sanitize::display(&record.suspension.name);
            writeln!(stdout, "{} {name}: resumed", record.suspension.id)?;
        }
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Lists the records; one whose target is no longer suspended is marked as ended.
fn list(json: bool) -> anyhow::Result<ExitCode> {
    #[derive(serde::Serialize)]
    struct Listed<'a> {
        #[serde(flatten)]
        record: &'a record::Record,
        #[serde(flatten)]
        state: RecordState,
    }
    let mut stdout = io::stdout().lock();
    for (record, path) in &record::all() {
        let state = resume::state(record, path);
        if json {
            writeln!(stdout, "{}", serde_json::to_string(&Listed { record, state })?)?;
            continue;
        }
        let over = match state {
            RecordState::InForce => String::new(),
            RecordState::Restarted { at } => {
                format!(" ended: it was restarted at {}", at.strftime("%F %T UTC"))
            }
            RecordState::Ended => " ended: no process is left".to_owned(),
            RecordState::ResumedElsewhere => " ended: resumed by another program".to_owned(),
        };
        let name = tracer_model::sanitize::display(&record.suspension.name);
        writeln!(stdout, "{} {name}{over}", record.suspension.id)?;
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn reap_orphans() {
    for record in resume::reap_orphans() {
        let name = tracer_model::sanitize::display(&record.suspension.name);
        eprintln!(
            "filltop: {} ({name}) had lost its supervisor and has been resumed",
            record.suspension.id
        );
    }
}

/// Asks for confirmation on a terminal. Without a terminal, no operator has read the plan.
fn confirmed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Proceed? [y/N] ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Parses a rate in bytes per second: `5MiB`, `5MB`, `5M` (powers of 1024), `500k`, with or without
/// `/s`.
fn rate(text: &str) -> Result<u64, ParseError> {
    let bytes =
        if text.contains('/') { parse::bytes_per_second(text) } else { parse::bytes(text) }?;
    if (1024.0..=1e12).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(ParseError::OutOfRange(Units::Iec.rate(1024.0), Units::Si.rate(1e12)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate("5MB"), Ok(5_000_000));
        assert_eq!(rate("5MiB/s"), Ok(5 << 20));
        assert_eq!(rate("1.5k"), Ok(1536));
        for bad in ["", "5", "MB", "5XB", "-1", "1e9GB", "nan"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
