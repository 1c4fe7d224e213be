//! `filltop forecast`: replays a recorded history through the forecaster, each row seeing only the
//! past.

mod plot;
mod report;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use crate::recording::csv;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tracer_model::forecast::{Forecaster, Outcome, Policy, Reason, Refill, Sample};

/// Predicts when a volume will be full, by replaying its history through filltop's forecaster.
///
/// Each forecast uses only the rows before it, as the live program would have made it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  filltop forecast --csv history.csv
  filltop forecast --csv history.csv --json | jq 'select(.eta_s < 14400)'
  filltop forecast --csv history.csv --plot
  filltop forecast --csv history.csv --plot=history.svg
  filltop forecast --csv - < history.csv

The first line names the columns: time_s,total_bytes,used_bytes,avail_bytes
(others are ignored).")]
pub struct ForecastArgs {
    /// The history, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub csv: PathBuf,
    /// One JSON object per row instead of the summary
    #[arg(long)]
    pub json: bool,
    /// Draw the available space and the forecast: in the terminal, or as an SVG file
    #[arg(long, value_name = "FILE.svg", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub plot: Option<PathBuf>,
}

/// One row of `--json`: the forecast after this row of the history, from this row and earlier ones.
#[derive(Serialize)]
struct Line {
    /// Time of the row, as in the history, seconds.
    time_s: f64,
    /// Likely time to full, seconds; 0 if it is full, `None` if it is not forecast to fill.
    eta_s: Option<f64>,
    /// Earliest time to full of the 80 % interval.
    eta_lo_s: Option<f64>,
    /// Latest time to full of the 80 % interval.
    eta_hi_s: Option<f64>,
    /// Time to full if the present pace goes on, believed or not, seconds; `None` if it is full or does
    /// not grow now.
    pace_s: Option<f64>,
    /// Earliest time to full at the present pace, of an 80 % interval.
    pace_lo_s: Option<f64>,
    /// Latest time to full at the present pace.
    pace_hi_s: Option<f64>,
    /// Whether it is full.
    full: bool,
    /// The limit that is reached first: `avail`.
    limit: String,
    /// Why it is not forecast to fill; `None` if it is.
    reason: Option<Reason>,
    /// The last clean-up whose space has since been used up again; `None` without one.
    refill: Option<Refill>,
}

/// Runs the command. A closed standard output is not an error.
///
/// # Errors
/// If the file cannot be read or is not a history (one line with the position), or the SVG cannot
/// be written.
pub fn run(args: &ForecastArgs) -> Result<()> {
    let to_screen = args.plot.as_deref().is_some_and(|p| p.as_os_str() == "-");
    ensure!(
        !(args.json && to_screen),
        "--json and --plot both write to standard output; use --plot=FILE.svg"
    );
    let from_stdin = args.csv.as_os_str() == "-";
    let input: Box<dyn BufRead> = if from_stdin {
        Box::new(io::stdin().lock())
    } else {
        let file =
            File::open(&args.csv).with_context(|| format!("cannot read {}", args.csv.display()))?;
        Box::new(BufReader::with_capacity(1 << 20, file))
    };
    let name =
        if from_stdin { "standard input".to_owned() } else { args.csv.display().to_string() };
    let out = io::stdout().lock();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Input from a pipe may be live: print each row as soon as it is read.
    let mut out = BufWriter::with_capacity(if from_stdin { 0 } else { 1 << 16 }, out);
    let done = replay(input, name, args, colour, &mut out).and_then(|()| Ok(out.flush()?));
    match done {
        Err(e) if is_closed(&e) => Ok(()),
        other => other,
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn replay(
    input: impl BufRead,
    name: String,
    args: &ForecastArgs,
    colour: bool,
    out: &mut impl Write,
) -> Result<()> {
    let mut rows = csv::SampleReader::open(input, name.clone())?;
    let mut forecaster = Forecaster::new(Policy::default());
    let mut summary = report::Summary::new(name.clone());
    while let Some(sample) = rows.next()? {
        forecaster.push(&sample);
        let forecast = forecaster.forecast();
        if args.json {
            serde_json::to_writer(&mut *out, &line(&sample, &forecast)).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
        if !args.json || args.plot.is_some() {
            summary.add(&sample, forecast);
        }
    }
    if args.json && args.plot.is_none() {
        return Ok(());
    }
    ensure!(summary.rows() > 0, "{name} has a header but no rows; nothing to forecast from");
    if !args.json {
        summary.print(out)?;
    }
    match &args.plot {
        Some(file) if file.as_os_str() != "-" => {
            std::fs::write(file, plot::svg(&summary))
                .with_context(|| format!("cannot write {}", file.display()))?;
            if !args.json {
                let name = file.display().to_string();
                writeln!(out, "plot      {}", tracer_model::sanitize::display(&name))?;
            }
        }
        Some(_) => plot::terminal(&summary, colour, out)?,
        None => {}
    }
    Ok(())
}

fn line(sample: &Sample, forecast: &tracer_model::forecast::Forecast) -> Line {
    let interval = forecast.outcome.interval_s();
    // No estimate is more precise than a millisecond.
    let round = |v: f64| (v * 1000.0).round() / 1000.0;
    Line {
        time_s: sample.time_s,
        eta_s: forecast.outcome.eta_s().map(round),
        eta_lo_s: interval.map(|i| round(i.0)),
        eta_hi_s: interval.map(|i| round(i.1)),
        pace_s: forecast.pace.map(|pace| round(pace.eta_s)),
        pace_lo_s: forecast.pace.map(|pace| round(pace.lo_s)),
        pace_hi_s: forecast.pace.map(|pace| round(pace.hi_s)),
        full: matches!(forecast.outcome, Outcome::Full { .. }),
        limit: forecast.limit.to_string(),
        reason: match forecast.outcome {
            Outcome::DoesNotFill { reason } => Some(reason),
            _ => None,
        },
        refill: forecast.refill,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 bytes per second into 100 kB; full from second 900 on.
    fn history() -> String {
        let rows = (0..1000u64).map(|t| {
            let used = (10_000 + t * 100).min(100_000);
            format!("{t},100000,{used},{}\n", 100_000 - used)
        });
        std::iter::once("time_s,total_bytes,used_bytes,avail_bytes\n".to_owned())
            .chain(rows)
            .collect()
    }

    fn run_over(text: &str, args: &[&str]) -> Result<String> {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: ForecastArgs,
        }
        let args = ["forecast", "--csv", "-"].iter().chain(args);
        let cli = <Cli as clap::Parser>::try_parse_from(args)?;
        let mut out = Vec::new();
        replay(text.as_bytes(), "x.csv".to_owned(), &cli.args, false, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn json_has_a_line_per_row_and_sees_only_the_past() {
        let all = run_over(&history(), &["--json"]).unwrap();
        let lines: Vec<serde_json::Value> =
            all.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 1000);
        assert!(lines[0]["eta_s"].is_null());
        let eta = lines[500]["eta_s"].as_f64().unwrap();
        assert!((eta - 400.0).abs() < 20.0, "{eta}");
        assert!(lines[500]["eta_lo_s"].as_f64().unwrap() < eta);
        assert!(lines[500]["eta_hi_s"].as_f64().unwrap() > eta);
        for line in &lines[900..] {
            assert_eq!((line["eta_s"].as_f64(), line["full"].as_bool()), (Some(0.0), Some(true)));
        }
        let half: String = history().lines().take(501).map(|l| format!("{l}\n")).collect();
        let seen = run_over(&half, &["--json"]).unwrap();
        assert_eq!(seen.lines().last(), all.lines().nth(499));
    }

    #[test]
    fn the_summary_has_the_first_warning() {
        let text = run_over(&history(), &["--plot"]).unwrap();
        assert!(text.contains("FULL since +15 min"), "{text}");
        assert!(text.contains("full in "), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn the_plot_is_an_svg_file() {
        let file = std::env::temp_dir().join(format!("filltop-plot-{}.svg", std::process::id()));
        let text = run_over(&history(), &[&format!("--plot={}", file.display())]).unwrap();
        assert!(text.contains(&format!("plot      {}", file.display())), "{text}");
        run_over(&history(), &["--json", &format!("--plot={}", file.display())]).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("<polyline ") && !svg.contains("NaN"));
    }

    #[test]
    fn a_history_without_rows_is_an_error() {
        let error = run_over("time_s,total_bytes,used_bytes,avail_bytes\n", &[]).unwrap_err();
        assert!(error.to_string().contains("no rows"), "{error}");
    }
}
