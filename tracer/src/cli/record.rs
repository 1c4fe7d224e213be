//! `filltop record` and `filltop replay`: write a recording and play it back.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use tokio::time::sleep;
use tracer_model::sanitize;
use tracer_model::sanitize::display_for;
use tracer_model::snapshot::Snapshot;
use tracer_model::units::parse::{self, ParseError};

use super::args::{TraceArgs, duration, text_options};
use crate::measure::measuring_loop::MeasuringLoop;
use crate::output::format::eta_cell;
use crate::output::text::TextOptions;
use crate::output::{json, text};
use crate::recording;
use crate::recording::{Damage, Recorder};
use crate::signals::StopSignals;
use crate::tui::App;
use tracer_model::history::merge;

/// Options of `filltop record`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sudo filltop record --out /var/log/filltop.rec
  sudo filltop record --out /run/filltop.rec --max-size 16MiB --interval 5s
  filltop replay /var/log/filltop.rec --at 03:12
  filltop top --replay /var/log/filltop.rec

Runs until stopped. FILE is the newest segment; FILE.1, FILE.2 ... are older
ones, deleted as needed. Recording stops rather than fill the volume it is on,
and does not start where it would leave less than 5 % of it available.")]
pub struct RecordArgs {
    /// Output file; an existing recording is continued
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Maximum size on disk, 4MiB to 1GiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    max_size: u64,
    /// Time between two Snapshots
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Stop after this time
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// Options of `filltop replay`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  filltop replay filltop.rec                     one line per Snapshot
  filltop replay filltop.rec --at 03:12          `filltop snapshot` as of 03:12
  filltop replay filltop.rec --at -5m --json     five minutes before the end
  filltop replay filltop.rec --json | jq .volumes[0].avail_bytes
  filltop top --replay filltop.rec               the same in the live screen")]
pub struct ReplayArgs {
    /// A file that `filltop record` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show the last Snapshot taken by TIME: RFC 3339, HH:MM[:SS] (UTC, the last such time before
    /// the recording's end), or -5m (five minutes before the end)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<At>,
    /// One JSON object per line, as `snapshot --json` prints it
    #[arg(long)]
    json: bool,
    /// Powers of 1000 instead of 1024
    #[arg(long)]
    si: bool,
}

/// Records until stopped.
///
/// # Errors
/// If tracing is not possible, or the file cannot be written or becomes unwritable.
pub(crate) async fn record(args: RecordArgs) -> anyhow::Result<()> {
    let mut stop = StopSignals::new()?;
    // Before tracing starts, so that a problem with the file is reported immediately.
    let mut recorder = Recorder::open(&args.out, args.max_size)?;
    let measuring = MeasuringLoop::start(&args.trace.options(), args.interval)?;
    let end = async {
        match args.length {
            Some(length) => tokio::select! {
                () = sleep(length) => {}
                () = stop.received() => {}
            },
            None => stop.received().await,
        }
    };
    let record = |snapshot: Arc<Snapshot>| {
        if merge::exceeds_row_limit(&snapshot) {
            recorder.push(&merge::truncated(&snapshot))
        } else {
            recorder.push(&snapshot)
        }
    };
    measuring.run_until(end, false, record).await?;
    let count = recorder.too_large();
    if count > 0 {
        let snapshots = if count == 1 { "Snapshot" } else { "Snapshots" };
        eprintln!("filltop: {count} {snapshots} too large to record; use a larger --max-size");
    }
    Ok(())
}

/// Loads a whole recording into the screen. Damage is reported as a notice there.
///
/// # Errors
/// If the file cannot be read or contains no intact Snapshot.
pub(crate) fn load(file: &Path, app: &mut App) -> anyhow::Result<()> {
    let damage = recording::read(file, |snapshot| app.add_recorded(Arc::new(snapshot)))?;
    if let Some(message) = describe_damage(damage) {
        app.show_message(&message);
    }
    Ok(())
}

/// Prints a recording, or the one Snapshot selected by `--at`.
///
/// # Errors
/// If there is nothing to show, or standard output is closed.
pub(crate) fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let options = text_options(args.si);
    let mut stdout = io::stdout().lock();
    let Some(at) = args.at else {
        let mut result = Ok(());
        let damage = recording::read(&args.file, |snapshot| {
            if result.is_ok() {
                result = print(&mut stdout, &snapshot, args.json, &options);
            }
        })?;
        result?;
        report_damage(damage);
        return Ok(stdout.flush()?);
    };
    let mut last = None;
    recording::read(&args.file, |snapshot| last = Some(snapshot.taken_at))?;
    let time = last.and_then(|last| at.before(last)).context("the time is out of range")?;
    let (mut first, mut found) = (None, None);
    let damage = recording::read(&args.file, |snapshot| {
        first.get_or_insert(snapshot.taken_at);
        if snapshot.taken_at <= time {
            found = Some(snapshot);
        }
    })?;
    report_damage(damage);
    let found = found.with_context(|| {
        let first = first.map_or_else(String::new, |first| format!(" ({first})"));
        format!("{time:.0} is before the start of the recording{first}")
    })?;
    if args.json {
        writeln!(stdout, "{}", json::to_string(&found)?)?;
    } else {
        write!(stdout, "{}", text::snapshot(&found, &options))?;
    }
    Ok(stdout.flush()?)
}

fn report_damage(damage: Damage) {
    if let Some(message) = describe_damage(damage) {
        eprintln!("filltop: {message}");
    }
}

fn describe_damage(damage: Damage) -> Option<String> {
    match damage {
        Damage { garbage_bytes: 0, torn: 0 } => None,
        Damage { garbage_bytes: 0, .. } => Some("skipped the truncated last record".to_owned()),
        Damage { garbage_bytes, .. } => {
            let bytes = if garbage_bytes == 1 { "byte" } else { "bytes" };
            Some(format!("skipped {garbage_bytes} damaged {bytes} of the recording"))
        }
    }
}

fn print(
    out: &mut impl io::Write,
    snapshot: &Snapshot,
    as_json: bool,
    options: &TextOptions,
) -> anyhow::Result<()> {
    if as_json {
        writeln!(out, "{}", json::to_string(snapshot)?)?;
    } else {
        writeln!(out, "{}", line(snapshot, options))?;
    }
    Ok(())
}

/// Formats a Snapshot as one line: its time, the most endangered volume and that volume's largest
/// writer.
fn line(snapshot: &Snapshot, options: &TextOptions) -> String {
    let mut line = snapshot.taken_at.strftime("%F %T").to_string();
    if let Some(volume) = snapshot.volumes.first() {
        let mount = display_for(&volume.mount_point, options.charset);
        let growth = options.units.growth(volume.growth_bytes_per_s);
        line.push_str(&format!("  {mount}  {growth}  {}", eta_cell(volume)));
        let writers = snapshot.writers.iter().filter(|row| row.volume == volume.mount_point);
        if let Some(writer) = writers.max_by(|a, b| a.share.total_cmp(&b.share)) {
            let comm = display_for(&writer.comm, options.charset);
            let growth = options.units.growth(writer.growth_bytes_per_s);
            line.push_str(&format!("  {comm} {} {growth}", writer.pid));
        }
    }
    let line = sanitize::fit(&line, options.width, options.charset);
    line.trim_end().to_owned()
}

/// A point in time of a recording, as given to `--at`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum At {
    Time(Timestamp),
    TimeOfDay(Time),
    BeforeEnd(Duration),
}

impl At {
    /// Resolves the point in time for a recording that ends at `end`; `None` if it is out of range.
    fn before(self, end: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Time(time) => Some(time),
            Self::BeforeEnd(length) => end.checked_sub(length).ok(),
            Self::TimeOfDay(time) => {
                let day = end.to_zoned(TimeZone::UTC).date();
                let at = day.to_datetime(time).to_zoned(TimeZone::UTC).ok()?.timestamp();
                if at <= end { Some(at) } else { at.checked_sub(24.hours()).ok() }
            }
        }
    }
}

impl std::str::FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(length) = text.strip_prefix('-') {
            return duration(length).map(Self::BeforeEnd).map_err(|error| error.to_string());
        }
        let of_day = ["%H:%M:%S", "%H:%M"].iter().find_map(|form| Time::strptime(form, text).ok());
        of_day
            .map(Self::TimeOfDay)
            .or_else(|| text.parse().ok().map(Self::Time))
            .ok_or_else(|| "not a time; use e.g. 2026-11-21T03:12:07Z, 03:12 or -5m".to_owned())
    }
}

/// Parses `64MiB`, `64M`, `100MB`, or a number of bytes. From 4 MiB to 1 GiB.
fn size(text: &str) -> Result<u64, ParseError> {
    let bytes = parse::bytes(text)?;
    if (recording::MIN_SIZE as f64..=recording::MAX_SIZE as f64).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(ParseError::OutOfRange("4MiB".to_owned(), "1GiB".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_model::fixtures;

    #[test]
    fn points_in_time() {
        let end: Timestamp = "2026-11-21T03:12:07Z".parse().unwrap();
        let at = |text: &str| text.parse::<At>().unwrap().before(end).unwrap().to_string();
        assert_eq!(at("03:12"), "2026-11-21T03:12:00Z");
        assert_eq!(at("03:12:08"), "2026-11-20T03:12:08Z");
        assert_eq!(at("-5m"), "2026-11-21T03:07:07Z");
        assert_eq!(at("2026-11-21T04:00:00+01:00"), "2026-11-21T03:00:00Z");
        for bad in ["", "noon", "25:00", "-", "12"] {
            assert!(bad.parse::<At>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("5000000"), Ok(5_000_000));
        assert_eq!(size("1g"), Ok(1 << 30));
        for bad in ["", "MiB", "1KiB", "2GiB", "4x", "99999999999999999999", "-4MiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_names_the_culprit() {
        let line = line(&fixtures::busy(), &TextOptions { width: 120, ..TextOptions::default() });
        assert!(line.starts_with("2026-11-21 03:12:07  /srv/store"), "{line}");
        assert!(line.contains("minio 2114"), "{line}");
    }
}
