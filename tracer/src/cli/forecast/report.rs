//! Summarizes a replayed history: its present state, the warnings and the events on the way.

use std::io::{self, Write};

use tracer_model::forecast::{Forecast, Outcome, Sample};
use tracer_model::units;
use tracer_model::units::Units;

/// Maximum number of points kept for the plot; beyond it every other one is dropped, so that a
/// history of any length fits.
const POINTS: usize = 2048;
/// Maximum number of events printed; the others are only counted.
const EVENTS: usize = 12;
/// Estimates below this, seconds, are reported as an event (the default warning threshold).
const SOON: f64 = 4.0 * 3600.0;
/// Times of at least this many seconds are Unix times, printed as dates.
const MIN_UNIX_TIME: f64 = 1e9;

/// A point of the plot: time in seconds, bytes available, and the earliest, likely and latest
/// seconds to full.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) time: f64,
    pub(super) avail: u64,
    pub(super) eta: Option<[f64; 3]>,
}

/// The summary of a replayed history.
pub(super) struct Summary {
    name: String,
    rows: u64,
    first: f64,
    points: Vec<Point>,
    every: u64,
    last: Option<(Sample, Forecast)>,
    /// Time of the current warning, and its estimate in seconds.
    warned: Option<(f64, f64)>,
    full: bool,
    refill: Option<tracer_model::forecast::Refill>,
    events: Vec<String>,
    omitted_events: usize,
}

impl Summary {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            rows: 0,
            first: 0.0,
            points: Vec::new(),
            every: 1,
            last: None,
            warned: None,
            full: false,
            refill: None,
            events: Vec::new(),
            omitted_events: 0,
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The points in order, including the last row.
    pub(super) fn points(&self) -> Vec<Point> {
        let mut points = self.points.clone();
        if let Some((sample, forecast)) = &self.last
            && points.last().is_none_or(|p| p.time != sample.time_s)
        {
            points.push(point(sample, forecast));
        }
        points
    }

    pub(super) fn add(&mut self, sample: &Sample, forecast: Forecast) {
        if self.rows == 0 {
            self.first = sample.time_s;
        }
        if self.rows.is_multiple_of(self.every) {
            self.points.push(point(sample, &forecast));
            if self.points.len() > POINTS {
                let mut i = 0;
                self.points.retain(|_| {
                    i += 1;
                    i % 2 == 1
                });
                self.every *= 2;
            }
        }
        self.rows += 1;
        self.watch(sample, &forecast);
        self.last = Some((sample.clone(), forecast));
    }

    fn watch(&mut self, sample: &Sample, forecast: &Forecast) {
        let t = sample.time_s;
        let eta = forecast.outcome.eta_s();
        let full = matches!(forecast.outcome, Outcome::Full { .. });
        if full && !self.full {
            let ahead = match self.warned {
                Some((since, estimate)) => format!(
                    "warned {} before with an estimate of {}",
                    units::duration(t - since),
                    units::duration(estimate)
                ),
                None => "without a warning".to_owned(),
            };
            self.event(t, &format!("FULL ({}), {ahead}", forecast.limit));
        } else if self.full && !full {
            let text = format!("space available again: {}", Units::Iec.bytes(sample.avail));
            self.event(t, &text);
            self.warned = None;
        }
        self.full = full;
        if forecast.refill != self.refill {
            if let Some(r) = forecast.refill {
                let text = format!(
                    "freed {}, used up again in {}",
                    Units::Iec.bytes(r.freed_bytes),
                    units::duration(r.gone_in_s)
                );
                self.event(t, &text);
            }
            self.refill = forecast.refill;
        }
        match (eta, self.warned) {
            (Some(eta), None) if eta < SOON && !full => {
                self.warned = Some((t, eta));
                let [lo, hi] = [0, 1]
                    .map(|i| forecast.outcome.interval_s().map(|v| if i == 0 { v.0 } else { v.1 }));
                let text = units::until_full(false, Some(eta), lo, hi);
                self.event(t, &text);
            }
            (eta, Some(_)) if !full && eta.is_none_or(|e| e > 1.5 * SOON) => {
                self.warned = None;
                self.event(t, "warning withdrawn");
            }
            _ => {}
        }
    }

    fn event(&mut self, t: f64, text: &str) {
        if self.events.len() < EVENTS {
            let at = format_time(t, self.first);
            self.events.push(format!("{at}  {text}"));
        } else {
            self.omitted_events += 1;
        }
    }

    /// Prints the summary.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Some((sample, forecast)) = &self.last else { return Ok(()) };
        let share = |bytes: u64| units::percent(bytes as f64 / sample.total.max(1) as f64);
        writeln!(
            out,
            "{}: {} {} over {}",
            tracer_model::sanitize::display(&self.name),
            self.rows,
            if self.rows == 1 { "row" } else { "rows" },
            units::duration((sample.time_s - self.first).abs())
        )?;
        writeln!(
            out,
            "used      {} of {} ({}), {} available",
            Units::Iec.bytes(sample.used),
            Units::Iec.bytes(sample.total),
            share(sample.used),
            Units::Iec.bytes(sample.avail)
        )?;
        if let Some(basis) = forecast.basis {
            writeln!(
                out,
                "growth    {} over the last {}{}",
                Units::Iec.rate(basis.growth_per_s),
                units::duration(basis.window_s),
                if basis.is_new { ", faster than ever before" } else { "" }
            )?;
        }
        let interval = forecast.outcome.interval_s();
        let verdict = match forecast.outcome {
            Outcome::Full { since_s } => format!("FULL since {}", format_time(since_s, self.first)),
            Outcome::Fills { eta_s, .. } => {
                let text = units::until_full(
                    false,
                    Some(eta_s),
                    interval.map(|i| i.0),
                    interval.map(|i| i.1),
                );
                format!("{text}, limit: {}", forecast.limit)
            }
            Outcome::DoesNotFill { reason } => format!("does not fill: {reason}"),
        };
        writeln!(out, "forecast  {verdict}")?;
        for event in &self.events {
            writeln!(out, "  {event}")?;
        }
        if self.omitted_events > 0 {
            writeln!(out, "  and {} more", self.omitted_events)?;
        }
        Ok(())
    }
}

fn point(sample: &Sample, forecast: &Forecast) -> Point {
    let eta = forecast
        .outcome
        .eta_s()
        .zip(forecast.outcome.interval_s())
        .map(|(eta, (lo, hi))| [lo, eta, hi]);
    Point { time: sample.time_s, avail: sample.avail, eta }
}

/// Formats a time as a date if the history has dates, else as the time since its start.
fn format_time(t: f64, first: f64) -> String {
    let date = (t >= MIN_UNIX_TIME).then(|| jiff::Timestamp::from_second(t as i64).ok()).flatten();
    match date {
        Some(date) => date.to_string(),
        None => format!("+{:<9}", units::duration((t - first).max(0.0))),
    }
}
