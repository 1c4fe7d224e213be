//! Published methods of time-series analysis, applied to the rate of growth.

use crate::anchors::{Estimate, Method};
use crate::trace::Row;

/// Rate of growth from one row to the next, bytes per second; `None` for the first, and when the clock
/// was set back.
#[derive(Default)]
struct Steps(Option<Row>);

impl Steps {
    /// Seconds since the last row and the rate.
    fn push(&mut self, row: &Row) -> Option<(f64, f64)> {
        let last = self.0.replace(*row)?;
        let dt = row.time - last.time;
        (dt > 0.0).then(|| (dt, (last.avail as f64 - row.avail as f64) / dt))
    }
}

/// Smoothing parameters of level and trend that are tried.
const ALPHAS: [f64; 4] = [0.05, 0.2, 0.5, 0.9];
const BETAS: [f64; 4] = [0.01, 0.05, 0.1, 0.3];

/// Holt's linear method (Holt 1957; ETS(A,A,N) in Hyndman and Athanasopoulos, *Forecasting: principles
/// and practice*, 8.2) for the available space. The parameters are those of a grid with the least
/// squared error one step ahead so far.
#[derive(Default)]
pub struct Holt {
    last: Option<Row>,
    /// Level, trend per second, and sum of squared errors, for each pair of parameters.
    fits: Vec<[f64; 3]>,
}

impl Method for Holt {
    fn push(&mut self, row: &Row) -> Option<Estimate> {
        let value = row.avail as f64;
        let last = self.last.replace(*row);
        let dt = last.map_or(0.0, |last| row.time - last.time);
        if dt <= 0.0 || self.fits.is_empty() {
            self.fits = vec![[value, 0.0, 0.0]; ALPHAS.len() * BETAS.len()];
            return None;
        }
        for (i, [level, trend, squares]) in self.fits.iter_mut().enumerate() {
            let (alpha, beta) = (ALPHAS[i / BETAS.len()], BETAS[i % BETAS.len()]);
            let expected = *level + *trend * dt;
            *squares += (value - expected).powi(2);
            let next = expected + alpha * (value - expected);
            *trend += beta * ((next - *level) / dt - *trend);
            *level = next;
        }
        let [level, trend, _] = *self.fits.iter().min_by(|a, b| a[2].total_cmp(&b[2]))?;
        (trend < 0.0).then(|| Estimate::point((level / -trend).max(0.0)))?
    }
}

/// Expected number of rows between two changes.
const RUN_ROWS: f64 = 250.0;
/// Longest run that is kept apart, rows; longer ones are merged with it.
const MAX_RUN: usize = 200;

/// Bayesian online change-point detection (Adams and MacKay 2007, arXiv:0710.3742): the rates of the
/// rows of a run are normal with unknown mean and variance, with a normal-inverse-gamma prior that is
/// nearly flat relative to the rates seen so far. The estimate uses the mean of the most probable run.
#[derive(Default)]
pub struct Bocpd {
    steps: Steps,
    /// Probability, number, mean and sum of squared deviations of each possible run.
    runs: Vec<[f64; 4]>,
    /// Mean square of all rates, and their number.
    scale: [f64; 2],
}

/// Density of the next rate after `n` rates with this mean and sum of squares, up to a constant factor:
/// Student's t with `n + 1` degrees of freedom. The factor Γ((ν+1)/2) / Γ(ν/2) is √(ν/2) nearly.
fn density(x: f64, [_, n, mean, squares]: [f64; 4], prior: f64) -> f64 {
    let freedom = n + 1.0;
    let spread = ((squares + prior) / freedom * (n + 1.1) / (n + 0.1)).max(f64::MIN_POSITIVE);
    let t = (x - mean * n / (n + 0.1)).powi(2) / spread;
    (1.0 + t / freedom).powf(-0.5 * (freedom + 1.0)) / spread.sqrt()
}

impl Method for Bocpd {
    fn push(&mut self, row: &Row) -> Option<Estimate> {
        let (_, rate) = self.steps.push(row)?;
        self.scale[1] += 1.0;
        self.scale[0] += (rate * rate - self.scale[0]) / self.scale[1];
        let prior = (0.01 * self.scale[0]).max(1.0);
        if self.runs.is_empty() {
            self.runs.push([1.0, 0.0, 0.0, 0.0]);
        }
        let mut changes = 0.0;
        for run in &mut self.runs {
            let p = run[0] * density(rate, *run, prior);
            changes += p / RUN_ROWS;
            let n = run[1] + 1.0;
            let mean = run[2] + (rate - run[2]) / n;
            *run = [p * (1.0 - 1.0 / RUN_ROWS), n, mean, run[3] + (rate - run[2]) * (rate - mean)];
        }
        self.runs.push([changes, 0.0, 0.0, 0.0]);
        if self.runs.len() > MAX_RUN {
            let oldest = self.runs.remove(0);
            self.runs[0][0] += oldest[0];
        }
        let sum: f64 = self.runs.iter().map(|run| run[0]).sum();
        if sum <= 0.0 || !sum.is_finite() {
            self.runs.clear();
            return None;
        }
        self.runs.iter_mut().for_each(|run| run[0] /= sum);
        let best = self.runs.iter().max_by(|a, b| a[0].total_cmp(&b[0]))?;
        (best[2] > 0.0).then(|| Estimate::point(row.avail as f64 / best[2]))?
    }
}
