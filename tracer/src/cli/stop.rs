//! `filltop stop` and `filltop resume`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use tracer_model::action::measured::Measured;
use tracer_model::action::pattern::Pattern;
use tracer_model::action::plan::Plan;
use tracer_model::action::protect::Protection;
use tracer_model::action::{Action, Intent};
use tracer_model::units::Units;

use crate::actions::engine::{Request, Spec};
use crate::actions::foreground::Foreground;
use crate::actions::guard_config::ConfigArgs;
use crate::actions::resume::Standing;
use crate::actions::target::Reach;
use crate::actions::{audit, engine, record, resume, text};
use crate::cli::{duration, environment, units};
use crate::measure::pipeline::{POLL_INTERVAL, Pipeline};
use crate::output::terminal;
use crate::service::attach;
use crate::service::attach::AttachArgs;
use tracer_host::clock;
use tracer_kernel::TracerOptions;

/// How much of the past the service is asked for.
const KNOWN: Duration = Duration::from_secs(10);
/// How long is measured where there is no service.
const LOOK: Duration = Duration::from_secs(2);

/// A step, as the command line has it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ActionArg {
    /// Suspend it until `resume`, or until --for is over; loses nothing
    Freeze,
    /// Hold it to --rate bytes per second
    Throttle,
    /// Let its writes that take space on a volume fail with EDQUOT; everything else goes on
    Fence,
    /// SIGTERM
    Term,
    /// SIGKILL
    Kill,
    /// Stop its systemd unit, or its container by the runtime's own command
    Unit,
    /// Give back the space of the deleted file --file, without ending who holds it
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

/// What to stop, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
TARGET is a pid, a unit, a container (name, or 3 or more digits of its id), a
pod (POD, NAMESPACE/POD or NAMESPACE/POD/CONTAINER), a session as the tables
name it, or the path of a cgroup as /proc/PID/cgroup prints it. A kind may
stand before a name: docker/web, lxc/jail1. Says the plan first: whom it hits,
what it frees now, what is refused and why. Acts after a confirmation, or with
--yes.

Examples:
  sudo filltop stop 2114                         freeze a process tree
  sudo filltop stop nginx --how unit --dry-run   all but the last step
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
    /// Bytes per second of a throttle, e.g. 5MiB, 500kB
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = rate)]
    rate: u64,
    /// Any path on the volume to fence it off; needed where it writes on several
    #[arg(long, value_name = "PATH")]
    volume: Option<PathBuf>,
    /// When freeze, throttle and fence end by themselves
    #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = duration)]
    length: Duration,
    /// The deleted file to truncate: its path as `filltop held` shows it, or its descriptor
    #[arg(long, value_name = "PATH", required_if_eq("how", "truncate"))]
    file: Option<String>,
    /// How far a pid stands for others
    #[arg(long, value_enum, default_value = "forker")]
    reach: Reach,
    /// Do all but the last system call
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Never touch a process or group whose name matches
    #[arg(long, value_name = "REGEX")]
    avoid: Vec<Pattern>,
    /// A word for the audit line
    #[arg(long, value_name = "TEXT", default_value = "asked for on the command line")]
    reason: String,
    /// Append the audit line to this file, too
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// One JSON object a line: plan, action, done
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

/// What to let go on.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop resume freeze-3f2a91
  sudo filltop resume 2114
  sudo filltop resume --list           what is frozen, slowed down or fenced
  sudo filltop resume --all")]
pub struct ResumeArgs {
    /// The id that `stop` gave, or the target's name
    #[arg(required_unless_present_any = ["all", "list"])]
    target: Option<String>,
    /// Everything that filltop has frozen, slowed down or fenced
    #[arg(long, conflicts_with = "target")]
    all: bool,
    /// Only show what is frozen, slowed down or fenced
    #[arg(long, conflicts_with_all = ["target", "all"])]
    list: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Plans, asks, acts.
///
/// # Errors
/// If there is no such target, if the plan is refused, or if the kernel refuses.
pub(crate) fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    sweep();
    let request = Request {
        spec: Spec::Word(args.target.clone()),
        reach: args.reach,
        how: args.how.into(),
        rate: Some(args.rate),
        volume: args.volume.clone(),
        for_s: args.length.as_secs_f64(),
        file: args.file.clone(),
        intent: Intent::Asked,
        dry_run: args.dry_run,
        lifeline: false,
        who: audit::who(),
        reason: args.reason.clone(),
        log: args.log.clone(),
    };
    let protection = Protection { avoid: args.avoid.clone(), configured: args.config.read()? };
    let mut prepared = engine::prepare(request, &protection)?;
    if let Some(measured) = measured(&args.attach, &prepared.plan)? {
        prepared.know(measured);
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
        bail!("not done: {}", prepared.plan.refusal());
    }
    if !args.dry_run && !args.yes && !confirmed()? {
        bail!("not done: nobody confirmed it (--yes does it without asking)");
    }
    let audit = prepared.audit();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&audit)?)?;
    } else {
        writeln!(stdout, "{}", audit.line())?;
    }
    // What is not yet out when the action hangs or kills the terminal would be lost.
    stdout.flush()?;
    // Blocked before anything is halted: a signal that comes meanwhile lets go, and does not just end us.
    let stay = (prepared.needs_us() && !args.dry_run).then(Foreground::start).transpose()?;
    let outcome = prepared.carry_out()?;
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&outcome)?)?;
    } else {
        write!(stdout, "{}", text::outcome(&outcome, units, charset))?;
    }
    stdout.flush()?;
    if let (Some(stay), Some(kept)) = (stay, outcome.kept) {
        if !args.json {
            writeln!(
                stdout,
                "it ends with this command, because filltop runs in a container: Ctrl-C, SIGTERM or \
                 SIGHUP let it go on"
            )?;
            stdout.flush()?;
        }
        stay.until_over(kept)?;
        return Ok(ExitCode::SUCCESS);
    }
    let left = outcome.ended.is_some_and(|ended| !ended.for_good());
    Ok(if left { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is known of the target's growth: from the service, where one runs; with --standalone measured
/// here. Who has neither acts without.
fn measured(attach: &AttachArgs, plan: &Plan) -> anyhow::Result<Option<Measured>> {
    match attach::past(attach, "stop", KNOWN.as_secs_f64()) {
        Ok(snapshot) => Ok(Some(Measured::of(plan, &snapshot, "service"))),
        Err(alone) if alone.is_chosen() => {
            let mut pipeline = Pipeline::start(&TracerOptions::default())?;
            let start = clock::instant();
            while start.elapsed() < LOOK {
                std::thread::sleep(POLL_INTERVAL);
                pipeline.poll();
            }
            Ok(Some(Measured::of(plan, &*pipeline.snapshot(true)?, "here")))
        }
        Err(alone) => {
            alone.say("the plan tells nothing of its growth (--standalone measures it)");
            Ok(None)
        }
    }
}

/// Lets go on.
///
/// # Errors
/// If nothing is halted under that name; what the kernel says.
pub(crate) fn resume(args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    sweep();
    let mut stdout = io::stdout().lock();
    if args.list {
        return list(args.json);
    }
    let records = match &args.target {
        Some(target) => resume::resume(target)?,
        None => {
            let all = record::all();
            for (record, path) in &all {
                resume::release(record, path)?;
            }
            all.into_iter().map(|(record, _)| record).collect()
        }
    };
    for record in records {
        if args.json {
            writeln!(stdout, "{}", serde_json::to_string(&record)?)?;
        } else {
            let name = tracer_model::sanitize::display(&record.name);
            writeln!(stdout, "{} {name} goes on", record.id)?;
        }
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What is halted, and what only its record still says to be.
fn list(json: bool) -> anyhow::Result<ExitCode> {
    #[derive(serde::Serialize)]
    struct Listed<'a> {
        #[serde(flatten)]
        record: &'a record::Record,
        #[serde(flatten)]
        standing: Standing,
    }
    let mut stdout = io::stdout().lock();
    for (record, path) in &record::all() {
        let standing = resume::standing(record, path);
        if json {
            writeln!(stdout, "{}", serde_json::to_string(&Listed { record, standing })?)?;
            continue;
        }
        let over = match standing {
            Standing::InForce => String::new(),
            Standing::StartedAgain { at } => {
                format!(" ended: it was started again at {}", at.strftime("%F %T UTC"))
            }
            Standing::Ended => " ended: nothing of it is left".to_owned(),
            Standing::LetGo => " ended: somebody else let it go on".to_owned(),
        };
        let name = tracer_model::sanitize::display(&record.name);
        writeln!(stdout, "{} {name}{over}", record.id)?;
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn sweep() {
    for record in resume::sweep() {
        let name = tracer_model::sanitize::display(&record.name);
        eprintln!("filltop: {} ({name}) was left without its keeper, and goes on", record.id);
    }
}

/// Asks on a terminal; without one nobody can have read the plan.
fn confirmed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Do it? [y/N] ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// `5MiB`, `5MB`, `5M` (of 1024), `500k`, with or without `/s`; bytes per second.
fn rate(text: &str) -> Result<u64, String> {
    let text = text.strip_suffix("/s").unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: f64 = match unit.trim() {
        "" | "B" => 1.0,
        "k" | "K" | "KiB" => 1024.0,
        "M" | "MiB" => 1024.0 * 1024.0,
        "G" | "GiB" => 1024.0 * 1024.0 * 1024.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => return Err(format!("unknown unit {other:?}: use B, KiB, MiB, GiB, kB, MB or GB")),
    };
    let number: f64 = number.parse().map_err(|_| "not a number of bytes, e.g. 5MiB".to_owned())?;
    let bytes = number * factor;
    if !(1024.0..=1e12).contains(&bytes) {
        return Err(format!("must be between {} and 1 TB per second", Units::Iec.bytes(1024)));
    }
    Ok(bytes as u64)
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
