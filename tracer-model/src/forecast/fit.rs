//! Fits lines to a window of the history.

use serde::{Deserialize, Serialize};

use super::history::History;

/// Slightly less than one, so that rounding does not decide equal cases.
pub(crate) const BELOW_ONE: f64 = 1.0 - 1e-6;
/// Share of a window's rise below which a step is not growth: a window may be twenty equal steps.
pub(crate) const MIN_STEP_SHARE: f64 = 0.05 * BELOW_ONE;
/// Number of blocks that a window is divided into to fit its slope.
const BLOCKS: usize = 16;

/// Largest and smallest value in each of the equal blocks of a window, oldest first.
type Blocks = [Option<(f64, f64)>; BLOCKS];

fn blocks(history: &History, now: f64, window: f64) -> Blocks {
    let mut out: Blocks = [None; BLOCKS];
    let per = window / BLOCKS as f64;
    for run in history.runs() {
        let age = now - (run.t[0] + run.t[1]) * 0.5;
        let back = (age / per) as usize;
        if back >= BLOCKS {
            break;
        }
        let cell = &mut out[BLOCKS - 1 - back];
        *cell = Some(match *cell {
            Some((max, min)) => (max.max(run.max), min.min(run.min)),
            None => (run.max, run.min),
        });
    }
    out
}

/// A line fitted to the peaks or the lows of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slope {
    /// Rate of a straight line through the window, bytes per second, with its standard error.
    pub(crate) mean: f64,
    pub(crate) error: f64,
    /// Rate at the window's end if the growth is curved, else the mean.
    pub(crate) rate: f64,
    pub(crate) curve: f64,
    /// Growth that is still to come if it slows down as it did along the whole window, bytes; [`f64::MAX`]
    /// if it does not slow down.
    pub(crate) to_come: f64,
    /// Whether growth has stopped for longer than it ever paused before.
    pub(crate) stopped: bool,
    window: f64,
    /// The peak at the window's end, and the deepest drop that the series has recovered from.
    peak: f64,
    deepest: f64,
}

impl Slope {
    /// Whether the series has recovered from a drop as deep as the present value `used` before.
    pub(crate) fn recovers_from(&self, used: f64) -> bool {
        self.peak - used <= 1.3 * self.deepest
    }

    /// How far the peak is above the present value `used` if the series is known to return to it; 0 if
    /// that does not matter; `None` if the slope no longer applies.
    pub(crate) fn peak_gap(&self, used: f64) -> Option<f64> {
        let gap = (self.peak - used).max(0.0);
        if self.recovers_from(used) {
            return Some(gap);
        }
        // Most of the growth was undone, as never before.
        (gap < 0.5 * self.rate * self.window).then_some(0.0)
    }
}

/// The lines through the peaks and the lows of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fits {
    /// Time of the window's end and its length, seconds.
    pub(crate) at: f64,
    pub(crate) window: f64,
    peaks: Option<Slope>,
    lows: Option<Slope>,
}

impl Fits {
    pub(crate) fn new(history: &History, now: f64, window: f64) -> Self {
        let cells = blocks(history, now, window);
        let [peaks, lows] = [Edge::Peaks, Edge::Lows].map(|e| slope(&cells, window, e));
        Self { at: now, window, peaks, lows }
    }

    pub(crate) fn of(&self, edge: Edge) -> Option<Slope> {
        match edge {
            Edge::Peaks => self.peaks,
            Edge::Lows => self.lows,
        }
    }
}

/// Fits a line to the peaks of a window.
pub(crate) fn peaks(history: &History, now: f64, window: f64) -> Option<Slope> {
    slope(&blocks(history, now, window), window, Edge::Peaks)
}

/// Curvature of more than this many standard errors is significant.
const CURVATURE_ERRORS: f64 = 4.0;

/// Which values of the blocks are fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The largest ones, which reach the limit first.
    Peaks,
    /// The smallest ones, in which a single spike cannot hide growth.
    Lows,
}

/// Fits a line to the peaks or lows of a window.
fn slope(cells: &Blocks, window: f64, edge: Edge) -> Option<Slope> {
    if window <= 0.0 {
        return None;
    }
    let per = window / BLOCKS as f64;
    let line = |edge: Edge| {
        cells.iter().enumerate().filter_map(move |(i, c)| {
            c.map(|c| (i as f64 * per, if edge == Edge::Peaks { c.0 } else { c.1 }))
        })
    };
    let points = || line(edge);
    let n = points().count();
    if n < 4 {
        return None;
    }
    let count = n as f64;
    let (mx, my) = points().fold((0.0, 0.0), |a, p| (a.0 + p.0 / count, a.1 + p.1 / count));
    let (sxx, sxy) = points()
        .fold((0.0, 0.0), |a, p| (a.0 + (p.0 - mx) * (p.0 - mx), a.1 + (p.0 - mx) * (p.1 - my)));
    let rate = sxy / sxx;
    let left = |p: (f64, f64)| p.1 - my - rate * (p.0 - mx);
    let rss: f64 = points().map(|p| left(p).powi(2)).sum();
    let white = (rss / (count - 2.0) / sxx).sqrt();
    if !rate.is_finite() {
        return None;
    }
    let (end_rate, curve) = fit_curve(points, left, (mx, sxx, rss), rate, window);
    let to_come = if end_rate < rate { still_to_come(&points, window) } else { f64::MAX };
    // Growth in one jump is a single event, even if the remaining points are on a line: use the
    // scatter of the increments.
    let steps = || points().zip(points().skip(1)).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0));
    let mean = steps().sum::<f64>() / (count - 1.0);
    let var = steps().map(|s| (s - mean).powi(2)).sum::<f64>() / (count - 2.0);
    let jumpy = (var / (count - 1.0)).sqrt();
    let error = white.max(0.5 * jumpy);
    if !error.is_finite() {
        return None;
    }
    let (mut top, mut deepest) = (f64::MIN, 0.0f64);
    for (i, cell) in cells.iter().enumerate() {
        let Some((max, min)) = *cell else { continue };
        let back = cells[i + 1..].iter().flatten().map(|c| c.0).fold(f64::MIN, f64::max);
        deepest = deepest.max((top.max(max) - min).min(back - min));
        top = top.max(max);
    }
    let peak = cells[BLOCKS - 3..].iter().flatten().map(|c| c.0).fold(f64::MIN, f64::max);
    let min_step = MIN_STEP_SHARE * rate * window;
    let stopped =
        has_stopped(line(Edge::Peaks), min_step) && has_stopped(line(Edge::Lows), min_step);
    let slope =
        Slope { mean: rate, error, rate: end_rate, curve, to_come, stopped, window, peak, deepest };
    // The lows are extrapolated from the present value.
    Some(if edge == Edge::Lows { Slope { peak: f64::MIN, ..slope } } else { slope })
}

/// Whether the last four blocks or more grew by less than `min_step`, and no earlier pause was half
/// as long.
fn has_stopped(points: impl Iterator<Item = (f64, f64)>, min_step: f64) -> bool {
    let (mut level, mut rises, mut pause, mut longest) = (f64::MIN, 0, 0, 0);
    for (_, peak) in points {
        if peak - level > min_step {
            level = peak;
            rises += 1;
            // The first point is not a rise, and what precedes the first rise is not a pause.
            if rises > 2 {
                longest = longest.max(pause);
            }
            pause = 0;
        } else {
            pause += 1;
        }
    }
    pause >= 4 && pause > 2 * longest
}

/// Rate at the window's end and its curvature if the points are clearly curved, else the straight
/// rate and 0.
fn fit_curve<I: Iterator<Item = (f64, f64)>>(
    points: impl Fn() -> I,
    left: impl Fn((f64, f64)) -> f64,
    (mx, sxx, rss): (f64, f64, f64),
    rate: f64,
    window: f64,
) -> (f64, f64) {
    let count = points().count() as f64;
    if count < 8.0 {
        return (rate, 0.0);
    }
    // x² without its linear part.
    let (s2, s3) = points().fold((0.0, 0.0), |a, p| {
        let x = p.0 - mx;
        (a.0 + x * x / count, a.1 + x * x * x)
    });
    let tilt = s3 / sxx;
    let q = |x: f64| x * x - s2 - tilt * x;
    let (sqq, sqe) = points().fold((0.0, 0.0), |a, p| {
        let v = q(p.0 - mx);
        (a.0 + v * v, a.1 + v * left(p))
    });
    let curve = sqe / sqq;
    let error = ((rss - curve * sqe).max(0.0) / (count - 3.0) / sqq).sqrt();
    if curve.abs() <= CURVATURE_ERRORS * error {
        return (rate, 0.0);
    }
    if curve > 0.0 && !accelerates(&points) {
        return (rate, 0.0);
    }
    let at_end = (rate + curve * (2.0 * (window - mx) - tilt)).clamp(0.3 * rate, 4.0 * rate.abs());
    // Blended in gradually, so that the estimate does not jump.
    let trust = (curve.abs() / (CURVATURE_ERRORS * error) - 1.0).min(1.0);
    (rate + trust * (at_end - rate), trust * curve.max(0.0))
}

/// Growth in each fifth of the window, and whether all blocks have a value.
fn fifths<I: Iterator<Item = (f64, f64)>>(points: &impl Fn() -> I) -> ([f64; 5], bool) {
    let mut rises = [0.0; 5];
    let mut count = 0;
    for (i, (a, b)) in points().zip(points().skip(1)).enumerate() {
        rises[(i / 3).min(4)] += b.1 - a.1;
        count += 1;
    }
    (rises, count == BLOCKS - 1)
}

/// Whether growth accelerates all along the window, by the rates of its fifths. A single kink,
/// where something began, curves a fit just as much but continues as a straight line.
fn accelerates<I: Iterator<Item = (f64, f64)>>(points: &impl Fn() -> I) -> bool {
    let (rises, is_complete) = fifths(points);
    let gain = rises[4] - rises[0];
    is_complete
        && rises.windows(2).enumerate().all(|(i, r)| {
            let least = if i == 0 { -0.05 } else { 0.05 };
            r[1] - r[0] >= least * gain
        })
}

/// Growth that is still to come if its rate decays exponentially as it did along the window, in bytes:
/// [`f64::MAX`] unless each fifth grew less than the one before.
fn still_to_come<I: Iterator<Item = (f64, f64)>>(points: &impl Fn() -> I, window: f64) -> f64 {
    let (rises, is_complete) = fifths(points);
    let loss = rises[0] - rises[4];
    let slows = rises.windows(2).all(|r| r[0] - r[1] >= 0.03 * loss);
    let (early, late) = (rises[0] + rises[1], rises[3] + rises[4]);
    if !is_complete || loss <= 0.0 || !slows {
        return f64::MAX;
    }
    // From the middle of the first two fifths to that of the last two are three fifths.
    let decay = 0.6 * window / (early / late.max(1e-3 * early)).ln();
    let end_rate = late / (0.4 * window) * (-0.2 * window / decay).exp();
    end_rate * decay
}
