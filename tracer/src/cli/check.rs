//! `filltop check`: measures once and reports as a monitoring plugin (Monitoring Plugins Development
//! Guidelines: exit status, one line, perfdata).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;
use tracer_model::alert::{Condition, Engine, Event, EventKind, Rule, Severity};
use tracer_model::sanitize::display;
use tracer_model::snapshot::{Snapshot, Volume};
use tracer_model::units::Units;
use tracer_model::{alert, units};

use super::args::{AttachArgs, TraceArgs, duration, mount_of};
use crate::alerting::{DirectorySizes, eval_time, ignore_volumes};
use crate::config::Config;
use crate::measure::measuring_loop::MeasuringLoop;
use crate::service::attach;
use crate::signals::StopSignals;
use tracer_host::timezone;
use tracer_model::history::merge;

/// Arguments of `filltop check`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop check                with the built-in rules
  sudo filltop check --volume /srv --for 10s
  sudo filltop check --config filltop.toml

Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN (also for wrong usage).
A rule's `for` delay is ignored; schedule repeated checks instead.
Where `filltop watch` runs, it answers immediately from the last --for of that
service's data. A volume whose growth is mostly unexplained is UNKNOWN.")]
pub struct CheckArgs {
    /// Rules (TOML), as for `filltop watch`; sinks are not used
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long to measure, e.g. 500ms, 5s, 2m
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = duration)]
    length: Duration,
    /// Only the volume that contains this path
    #[arg(long, value_name = "PATH")]
    volume: Vec<PathBuf>,
    /// Do not warn about filesystems that are not traced through their own functions
    #[arg(long)]
    allow_fallback: bool,
    #[command(flatten)]
    attach: AttachArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// Exit status for UNKNOWN.
pub(crate) const UNKNOWN: u8 = Status::Unknown as u8;

/// The states of a monitoring plugin, with their exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl Status {
    /// The word that starts the plugin's output.
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Measures, prints one line, and returns the exit status. Never fails: errors are reported as
/// UNKNOWN.
pub(crate) async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    match measure(&args).await {
        Ok((status, line)) => {
            println!("{line}");
            Ok(ExitCode::from(status as u8))
        }
        Err(error) => {
            println!("FILLTOP UNKNOWN - {}", one_line(&format!("{error:#}")));
            Ok(ExitCode::from(UNKNOWN))
        }
    }
}

/// Makes a text suitable for a plugin's output: one line, without the `|` that starts the perfdata.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "/")
}

async fn measure(args: &CheckArgs) -> anyhow::Result<(Status, String)> {
    let config = Config::load(args.config.as_deref())?;
    let only = args.volume.iter().map(|path| mount_of(path)).collect::<Result<Vec<_>, _>>()?;
    let rules: Vec<Rule> = config
        .rules
        .iter()
        .map(|rule| Rule { hold_s: 0.0, quiet: Vec::new(), ..rule.clone() })
        .collect();
    let mut engine = Engine::new(rules);
    let mut sizes = DirectorySizes::start(config.directories())?;
    let zone = timezone::local();
    let mut events = Vec::new();
    // All intervals as one, since the perfdata covers the whole measurement.
    let mut whole: Option<Snapshot> = None;
    let mut evaluate = |snapshot: &mut Snapshot| {
        ignore_volumes(snapshot, &config.ignore);
        if !only.is_empty() {
            snapshot.retain_volumes(&only);
        }
        let known = sizes.update(snapshot);
        events.extend(engine.evaluate(&eval_time(&zone), snapshot, &known));
        match &mut whole {
            Some(whole) => merge::add(whole, snapshot),
            None => whole = Some(snapshot.clone()),
        }
    };
    let seconds = args.length.as_secs_f64();
    let attached =
        attach::for_each(&args.attach.source(&args.trace), "check", seconds, |mut snapshot| {
            evaluate(&mut snapshot);
        });
    if let Err(standalone) = attached {
        standalone.or_else_async(trace(args, evaluate)).await?;
    }
    let whole = whole.context("the service has no data yet")?;
    Ok(output(&engine, &events, &whole, args.allow_fallback))
}

/// Measures without the service, with several samples on the way.
async fn trace(args: &CheckArgs, mut evaluate: impl FnMut(&mut Snapshot)) -> anyhow::Result<()> {
    let mut stop = StopSignals::new()?;
    let every = (args.length / 10).clamp(Duration::from_millis(100), Duration::from_secs(1));
    let measuring = MeasuringLoop::start(&args.trace.options(), every)?;
    let end = async {
        tokio::select! {
            () = sleep(args.length) => {}
            () = stop.received() => {}
        }
    };
    let evaluate = |mut snapshot: Arc<Snapshot>| {
        evaluate(Arc::make_mut(&mut snapshot));
        Ok(())
    };
    measuring.run_until(end, true, evaluate).await
}

/// The status, and the line with its perfdata.
fn output(
    engine: &Engine,
    events: &[Event],
    snapshot: &Snapshot,
    allow_fallback: bool,
) -> (Status, String) {
    let worst =
        engine.active_alerts().filter(|alert| !alert.inhibited).map(|alert| alert.severity).max();
    let blind: Vec<&Volume> = snapshot
        .volumes
        .iter()
        .filter(|row| row.blind.is_some_and(|blind| blind.hides_most() || !allow_fallback))
        .collect();
    let status = match worst {
        Some(Severity::Critical) => Status::Critical,
        Some(Severity::Warning) => Status::Warning,
        // With most of the growth unexplained, OK would be a guess.
        None if blind.iter().any(|row| row.blind.is_some_and(|blind| blind.hides_most())) => {
            Status::Unknown
        }
        None if !blind.is_empty() => Status::Warning,
        None => Status::Ok,
    };
    // The last summary of each active alert, worst first.
    let mut active: Vec<_> = engine.active_alerts().filter(|alert| !alert.inhibited).collect();
    active.sort_by_key(|alert| std::cmp::Reverse(alert.severity));
    let mut summaries: Vec<String> = active
        .iter()
        .filter_map(|alert| {
            let about = |event: &&Event| {
                event.event != EventKind::Health
                    && event.rule == alert.rule.name
                    && event.volume.as_deref() == Some(alert.volume)
            };
            events.iter().rev().find(about).map(|event| event.summary.clone())
        })
        .collect();
    summaries.dedup();
    summaries.extend(blind.iter().filter_map(|volume| alert::blind_message(volume, Units::Iec)));
    let text = if summaries.is_empty() { ok_summary(snapshot) } else { summaries.join("; ") };
    let numbers: Vec<String> =
        snapshot.volumes.iter().filter(|v| !v.read_only).map(|v| perfdata(engine, v)).collect();
    (status, format!("FILLTOP {} - {} | {}", status.name(), one_line(&text), numbers.join(" ")))
}

fn ok_summary(snapshot: &Snapshot) -> String {
    let count = snapshot.volumes.len();
    match snapshot.volumes.iter().filter(|volume| !volume.read_only).min_by(|a, b| {
        let part = |v: &Volume| v.avail_bytes as f64 / v.total_bytes.max(1) as f64;
        part(a).total_cmp(&part(b))
    }) {
        None => "no writable volume".to_owned(),
        Some(least) => format!(
            "{count} volume{}, least space on {}: {} ({}) left",
            if count == 1 { "" } else { "s" },
            display(&least.mount_point),
            Units::Iec.bytes(least.avail_bytes),
            units::percent(least.avail_bytes as f64 / least.total_bytes.max(1) as f64)
        ),
    }
}

/// The perfdata of a volume: `'/srv avail'=12345B;…:;…:;0;…`. Labels are quoted, quotes in them are
/// doubled; thresholds are those of the rules on the same value, as ranges that alert below.
fn perfdata(engine: &Engine, volume: &Volume) -> String {
    let label = |what: &str| {
        let name: String = one_line(&volume.mount_point).replace('=', "_").replace('\'', "''");
        format!("'{} {what}'", display(&name))
    };
    let thresholds = |fits: fn(&Condition) -> bool, scale: f64| {
        let rule = engine
            .rules()
            .find(|rule| fits(&rule.condition) && rule.applies_to(&volume.mount_point));
        let range = |value: Option<f64>| {
            value.map_or_else(String::new, |value| format!("{:.0}:", value * scale))
        };
        rule.map_or_else(
            || ";".to_owned(),
            |rule| format!("{};{}", range(rule.warning), range(rule.critical)),
        )
    };
    let total = volume.total_bytes as f64;
    let mut numbers = vec![
        format!(
            "{}={}B;{};0;{}",
            label("avail"),
            volume.avail_bytes,
            thresholds(|condition| matches!(condition, Condition::AvailRatio { .. }), total),
            volume.total_bytes
        ),
        format!("{}={:.0};;;;", label("growth_bytes_per_s"), volume.growth_bytes_per_s),
    ];
    let eta = volume.eta_s.map_or_else(|| "U".to_owned(), |eta| format!("{eta:.0}s"));
    numbers.push(format!(
        "{}={eta};{};0;",
        label("time_to_full"),
        thresholds(|condition| matches!(condition, Condition::TimeToFull), 1.0)
    ));
    if let Some(pace) = volume.pace_s {
        numbers.push(format!("{}={pace:.0}s;;;0;", label("time_to_full_at_pace")));
    }
    if volume.inodes_total > 0 {
        let (free, all) = (volume.inodes_free, volume.inodes_total);
        numbers.push(format!("{}={free};;;0;{all}", label("inodes_free")));
    }
    if let Some(held) = volume.held_bytes {
        numbers.push(format!("{}={held}B;;;0;", label("held")));
    }
    numbers.join(" ")
}

#[cfg(test)]
mod tests {
    use tracer_model::snapshot::{Gap, SpaceChange};

    use super::*;
    use tracer_model::fixtures;

    fn exit_status(used_delta: i64, written: u64, gap: Option<Gap>, allow_fallback: bool) -> u8 {
        let mut snapshot = fixtures::idle();
        let volume = &mut snapshot.volumes[0];
        volume.used_delta_bytes = used_delta;
        volume.written_bytes = written;
        volume.gap = gap;
        volume.blind = SpaceChange::of(volume, 5.0).blind(gap);
        let (status, line) = output(&Engine::new(Vec::new()), &[], &snapshot, allow_fallback);
        assert_eq!(line.lines().count(), 1, "{line}");
        status as u8
    }

    #[test]
    fn a_blind_volume_is_not_ok() {
        let gap = Some(Gap::NeedsSysAdmin);
        assert_eq!(exit_status(0, 0, None, false), 0);
        assert_eq!(exit_status(0, 0, gap, false), 0, "nothing happened there");
        assert_eq!(exit_status(0, 4096, gap, false), 1);
        assert_eq!(exit_status(0, 4096, gap, true), 0);
        for allow_fallback in [false, true] {
            assert_eq!(exit_status(5 << 30, 0, None, allow_fallback), UNKNOWN);
            assert_eq!(exit_status(5 << 30, 0, gap, allow_fallback), UNKNOWN);
        }
    }
}
