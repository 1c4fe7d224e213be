//! The formulas in use today, as documented, with the same interface as filltop's forecaster.

use std::collections::VecDeque;

use tracer_model::forecast::{Forecast, Forecaster, Policy, Sample};

use crate::published::{Bocpd, Holt};
use crate::trace::Row;

/// An estimate: seconds to full, with an 80 % interval where the method has one.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// Likely time to full, seconds.
    pub eta: f64,
    /// Earliest and latest, seconds.
    pub interval: Option<(f64, f64)>,
}

impl Estimate {
    pub fn point(eta: f64) -> Option<Self> {
        (eta.is_finite() && eta >= 0.0).then_some(Self { eta, interval: None })
    }
}

/// A forecasting method that is given one row after another.
pub trait Method {
    /// Adds a row, and returns the estimate after it.
    fn push(&mut self, row: &Row) -> Option<Estimate>;
}

/// filltop's own forecaster.
pub struct Filltop(Forecaster);

impl Default for Filltop {
    fn default() -> Self {
        Self(Forecaster::new(Policy::default()))
    }
}

impl Filltop {
    fn forecast(&mut self, row: &Row) -> Forecast {
        self.0.push(&Sample {
            time_s: row.time,
            total: row.total,
            used: row.used,
            avail: row.avail,
            ..Sample::default()
        });
        self.0.forecast()
    }
}

impl Method for Filltop {
    fn push(&mut self, row: &Row) -> Option<Estimate> {
        let outcome = self.forecast(row).outcome;
        Some(Estimate { eta: outcome.eta_s()?, interval: outcome.interval_s() })
    }
}

/// filltop's second answer: when it is full at the present pace.
#[derive(Default)]
pub struct FilltopPace(Filltop);

impl Method for FilltopPace {
    fn push(&mut self, row: &Row) -> Option<Estimate> {
        let pace = self.0.forecast(row).pace?;
        Some(Estimate { eta: pace.eta_s, interval: Some((pace.lo_s, pace.hi_s)) })
    }
}

/// Rows of the last `span` seconds.
struct Window {
    span: f64,
    rows: VecDeque<Row>,
}

impl Window {
    fn new(span: f64) -> Self {
        Self { span, rows: VecDeque::new() }
    }
    fn add(&mut self, row: &Row) {
        if self.rows.back().is_some_and(|b| row.time <= b.time) {
            self.rows.clear();
        }
        self.rows.push_back(*row);
        while self.rows.len() > 2 && row.time - self.rows[1].time >= self.span {
            self.rows.pop_front();
        }
    }
}

/// Free space divided by the rate from the first to the last row of a window. With a window of an
/// hour this is Netdata's `out_of_disk_space_time` (health.d/disks.conf): available space over the
/// hour's fill rate, computed only while the rate is above 0 and, there, only while space is
/// available.
pub struct Rate {
    window: Window,
    silent_when_full: bool,
}

impl Rate {
    /// The rate over the last `span` seconds.
    pub fn new(span: f64, silent_when_full: bool) -> Self {
        Self { window: Window::new(span), silent_when_full }
    }
}

impl Method for Rate {
    fn push(&mut self, row: &Row) -> Option<Estimate> {
        self.window.add(row);
        if row.avail == 0 && self.silent_when_full {
            return None;
        }
        let first = self.window.rows.front()?;
        let rate = (first.avail as f64 - row.avail as f64) / (row.time - first.time);
        (rate > 0.0).then(|| Estimate::point(row.avail as f64 / rate))?
    }
}

/// Exponentially weighted mean of the rate, time constant 5 minutes.
#[derive(Default)]
pub struct Ewma {
    last: Option<Row>,
    rate: f64,
}

impl Method for Ewma {
    fn push(&mut self, row: &Row) -> Option<Estimate> {
        if let Some(last) = self.last.replace(*row) {
            let dt = row.time - last.time;
            if dt > 0.0 {
                let rate = (last.avail as f64 - row.avail as f64) / dt;
                self.rate += (1.0 - (-dt / 300.0).exp()) * (rate - self.rate);
            }
        }
        (self.rate > 0.0).then(|| Estimate::point(row.avail as f64 / self.rate))?
    }
}

/// Least squares over a window: Prometheus' `predict_linear` (promql/functions.go) solved for zero, and
/// Zabbix' `timeleft` with the linear fit. Zabbix measures from the fitted value, Prometheus too.
pub struct Line {
    window: Window,
    sums: [f64; 5],
    origin: f64,
    gate: Option<(f64, f64)>,
}

impl Line {
    /// A fit over `span` seconds.
    pub fn new(span: f64) -> Self {
        Self { window: Window::new(span), sums: [0.0; 5], origin: f64::NAN, gate: None }
    }
    /// node-mixin's `NodeFilesystemSpaceFillingUp`: only under `share` available of the size, and only
    /// after the condition has held for `pending` seconds; here the horizon it predicts over is 24 h
    /// or 4 h, so the estimate is given as soon as the rule would fire.
    pub fn gated(span: f64, share: f64, pending: f64) -> Self {
        Self { gate: Some((share, pending)), ..Self::new(span) }
    }
    fn weigh(&mut self, row: &Row, sign: f64) {
        let (x, y) = (row.time - self.origin, row.avail as f64);
        for (sum, v) in self.sums.iter_mut().zip([1.0, x, y, x * x, x * y]) {
            *sum += sign * v;
        }
    }
}

/// node-mixin's rule, with its pending time.
pub struct NodeMixin {
    line: Line,
    since: Option<f64>,
}

impl Default for NodeMixin {
    fn default() -> Self {
        Self { line: Line::gated(6.0 * 3600.0, 0.2, 3600.0), since: None }
    }
}

impl Method for NodeMixin {
    fn push(&mut self, row: &Row) -> Option<Estimate> {
        let (share, pending) = self.line.gate?;
        let estimate = self.line.push(row);
        let holds = estimate.is_some_and(|e| e.eta < 4.0 * 3600.0)
            && (row.avail as f64) < share * row.total as f64;
        if !holds {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(row.time);
        if row.time - since >= pending { estimate } else { None }
    }
}

impl Method for Line {
    fn push(&mut self, row: &Row) -> Option<Estimate> {
        let back = self.window.rows.back().is_some_and(|b| row.time <= b.time);
        if self.origin.is_nan() || back {
            self.origin = row.time;
            self.sums = [0.0; 5];
            self.window.rows.clear();
        }
        self.window.rows.push_back(*row);
        self.weigh(row, 1.0);
        while let Some(first) = self.window.rows.front().copied() {
            if row.time - first.time <= self.window.span {
                break;
            }
            self.weigh(&first, -1.0);
            self.window.rows.pop_front();
        }
        let [n, x, y, xx, xy] = self.sums;
        let spread = xx - x * x / n;
        if n < 2.0 || spread <= 0.0 {
            return None;
        }
        let slope = (xy - x * y / n) / spread;
        let value = y / n + slope * (row.time - self.origin - x / n);
        (slope < 0.0).then(|| Estimate::point((-value / slope).max(0.0)))?
    }
}

/// Creates every method of the table.
pub fn all() -> Vec<(&'static str, Box<dyn Method>)> {
    vec![
        ("filltop", Box::new(Filltop::default())),
        ("filltop, pace", Box::<FilltopPace>::default()),
        ("last minute", Box::new(Rate::new(60.0, false))),
        ("last hour", Box::new(Rate::new(3600.0, false))),
        ("EWMA 5 min", Box::<Ewma>::default()),
        ("predict_linear 1h", Box::new(Line::new(3600.0))),
        ("predict_linear 6h", Box::new(Line::new(6.0 * 3600.0))),
        ("Zabbix timeleft 30m", Box::new(Line::new(1800.0))),
        ("Netdata out_of_disk", Box::new(Rate::new(3600.0, true))),
        ("node-mixin", Box::<NodeMixin>::default()),
        ("Holt", Box::<Holt>::default()),
        ("BOCPD", Box::<Bocpd>::default()),
    ]
}
