//! Derives growth from a history, with its uncertainty.

use serde::{Deserialize, Serialize};

use super::history::History;
use super::scales::{SCALES, Scale, length};

/// Slightly less than one, so that rounding does not decide equal cases.
const NEARLY: f64 = 1.0 - 1e-6;
/// Share of a window's rise below which a step is not growth: a window may be twenty equal steps.
const LITTLE: f64 = 0.05 * NEARLY;
/// Number of blocks that a window is divided into to fit its slope.
const BLOCKS: usize = 16;

/// Growth found in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    /// Rate at the end of the window, bytes per second, above 0.
    pub(crate) rate: f64,
    /// Rate of a straight line through the window, bytes per second.
    pub(crate) mean: f64,
    /// Half of the acceleration, bytes/s², 0 or more.
    pub(crate) curve: f64,
    /// Standard error of the rate relative to it.
    pub(crate) doubt: f64,
    /// Length of the window it is based on, seconds.
    pub(crate) window: f64,
    /// How far the peak to extrapolate from is above the present value, bytes.
    pub(crate) above: f64,
    /// Whether growth like this was never seen before at its scale.
    pub(crate) new: bool,
}

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
    /// Whether growth has stopped for longer than it ever paused before.
    pub(crate) stopped: bool,
    window: f64,
    /// The peak at the window's end, and the deepest drop that the series has recovered from.
    peak: f64,
    deepest: f64,
}

impl Slope {
    /// Whether the series has recovered from a drop as deep as the present value `u` before.
    pub(crate) fn comes_back(&self, u: f64) -> bool {
        self.peak - u <= 1.3 * self.deepest
    }

    /// How far the peak is above the present value `u` if the series is known to return to it; 0 if
    /// that does not matter; `None` if the slope no longer applies.
    pub(crate) fn above(&self, u: f64) -> Option<f64> {
        let above = (self.peak - u).max(0.0);
        if self.comes_back(u) {
            return Some(above);
        }
        // Most of the growth was undone, as never before.
        (above < 0.5 * self.rate * self.window).then_some(0.0)
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
        let [peaks, lows] = [Ends::Peaks, Ends::Lows].map(|e| slope(&cells, window, e));
        Self { at: now, window, peaks, lows }
    }

    pub(crate) fn of(&self, ends: Ends) -> Option<Slope> {
        match ends {
            Ends::Peaks => self.peaks,
            Ends::Lows => self.lows,
        }
    }
}

/// Number of standard errors from which on curvature is significant.
const BENDS: f64 = 4.0;

/// Which values of the blocks are fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The largest ones, which reach the limit first.
    Peaks,
    /// The smallest ones, in which a single spike cannot hide growth.
    Lows,
}

/// Fits a line to the peaks or lows of a window.
fn slope(cells: &Blocks, window: f64, ends: Ends) -> Option<Slope> {
    if window <= 0.0 {
        return None;
    }
    let per = window / BLOCKS as f64;
    let line = |ends: Ends| {
        cells.iter().enumerate().filter_map(move |(i, c)| {
            c.map(|c| (i as f64 * per, if ends == Ends::Peaks { c.0 } else { c.1 }))
        })
    };
    let points = || line(ends);
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
    let (end_rate, curve) = bend(points, left, (mx, sxx, rss), rate, window);
    // Growth in one jump is a single event, however straight the rest: use the scatter of the
    // increments.
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
    let little = LITTLE * rate * window;
    let stopped = rested(line(Ends::Peaks), little) && rested(line(Ends::Lows), little);
    let slope = Slope { mean: rate, error, rate: end_rate, curve, stopped, window, peak, deepest };
    // The lows are extrapolated from the present value.
    Some(if ends == Ends::Lows { Slope { peak: f64::MIN, ..slope } } else { slope })
}

/// Whether the last four blocks or more grew by less than `little`, and no earlier pause was half
/// as long.
fn rested(points: impl Iterator<Item = (f64, f64)>, little: f64) -> bool {
    let (mut edge, mut rises, mut pause, mut longest) = (f64::MIN, 0, 0, 0);
    for (_, peak) in points {
        if peak - edge > little {
            edge = peak;
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

/// Rate at the window's end and its gain if the points are clearly curved, else the straight rate.
fn bend<I: Iterator<Item = (f64, f64)>>(
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
    if curve.abs() <= BENDS * error {
        return (rate, 0.0);
    }
    if curve > 0.0 && !gathers(&points) {
        return (rate, 0.0);
    }
    let at_end = (rate + curve * (2.0 * (window - mx) - tilt)).clamp(0.3 * rate, 4.0 * rate.abs());
    // Blended in gradually, so that the estimate does not jump.
    let trust = (curve.abs() / (BENDS * error) - 1.0).min(1.0);
    (rate + trust * (at_end - rate), trust * curve.max(0.0))
}

/// Whether growth accelerates all along the window, by the rates of its fifths. A single kink,
/// where something began, curves a fit just as much but continues as a straight line.
fn gathers<I: Iterator<Item = (f64, f64)>>(points: &impl Fn() -> I) -> bool {
    let mut rates = [0.0; 5];
    let mut count = 0;
    for (i, (a, b)) in points().zip(points().skip(1)).enumerate() {
        rates[(i / 3).min(4)] += b.1 - a.1;
        count += 1;
    }
    let gain = rates[4] - rates[0];
    count == BLOCKS - 1
        && rates.windows(2).enumerate().all(|(i, r)| {
            let least = if i == 0 { -0.05 } else { 0.05 };
            r[1] - r[0] >= least * gain
        })
}

/// Number of its lengths for which a scale must have been observed before growth can be new on it.
const YOUNG: f64 = 2.5;

/// New growth: faster than at any time before, over its own length.
pub(crate) fn runaway(
    history: &History,
    scales: &[Scale],
    now: f64,
    u: f64,
    (top, wary): (f64, f64),
    (age, typical): (f64, f64),
) -> Option<Trend> {
    let mut within = 0.0f64;
    let mut best: Option<(f64, f64, usize)> = None;
    for (k, scale) in scales.iter().enumerate() {
        let d = length(k);
        if YOUNG * d > age {
            break;
        }
        if d < 1.9 * typical || k < 2 {
            continue;
        }
        let (Some((window, rise)), Some((most, _))) = (scale.rise(now, u), scale.before()) else {
            continue;
        };
        // On the way back to a level that was cleaned up before, compare with any rise that fits
        // into the window.
        within = within.max(most);
        let most = if u < top { within } else { most };
        // The shorter a scale has been observed, the less "never before" means.
        let margin = wary * (2.0 + 4.0 * d / age);
        let half = scales[k - 2].rise(now, u).map_or(0.0, |r| r.1);
        let steady = (0.25..0.78).contains(&(half / rise));
        if rise > margin * most.max(0.0) && rise > 0.0 && steady {
            let rate = rise / window;
            if best.is_none_or(|b| rate > b.0) {
                best = Some((rate, window, k));
            }
        }
    }
    let (rate, window, at) = best?;
    let window = lasted(&scales[at..], now, u, rate, window);
    if ended(history, now, u, window, rate * window, typical) {
        return None;
    }
    let fit = slope(&blocks(history, now, window), window, Ends::Peaks);
    let fit = fit.filter(|f| f.above(u).is_some());
    let doubt = fit.map_or(0.3, |f| f.error / f.mean.abs().max(rate * 0.1));
    // Curvature is meaningless if the window begins before the growth.
    Some(Trend { rate, mean: rate, curve: 0.0, doubt, window, above: 0.0, new: true })
}

/// How long growth at `rate`, observed over at least `window` seconds, has lasted: the scales alone
/// are too coarse.
fn lasted(scales: &[Scale], now: f64, u: f64, rate: f64, window: f64) -> f64 {
    let mut longest = window;
    for (window, rise) in scales.iter().map_while(|s| s.rise(now, u)) {
        longest = longest.max(rise / rate);
        // The growth began within this window.
        if rise < 0.9 * rate * window {
            break;
        }
    }
    longest
}

/// A burst in progress, like earlier ones, that fills the volume if it gets as large as they did.
pub(crate) fn usual(
    scales: &[Scale],
    now: f64,
    u: f64,
    room: f64,
    (age, typical): (f64, f64),
) -> Option<Trend> {
    let seen = |k: usize| {
        if length(k) > age {
            return None;
        }
        let (window, rise) = scales[k].rise(now, u)?;
        Some((window, rise, scales[k].before()?.0))
    };
    let first = (0..SCALES).find(|k| length(*k) >= 3.0 * typical)?;
    let (d, rise, most) = seen(first)?;
    if rise < 0.3 * most || rise <= 0.0 {
        return None;
    }
    let rate = rise / d;
    // How long it has lasted, and whether it was steady.
    let last = (first..SCALES)
        .take_while(|k| seen(*k).is_some_and(|(d, rise, _)| rise >= 0.6 * rate * d))
        .last()?;
    let (run, risen, _) = seen(last)?;
    let half = seen(last.checked_sub(2)?)?.1;
    if run < 5.0 * typical || !(0.25..0.85).contains(&(half / risen)) {
        return None;
    }
    let rate = risen / run;
    let need = run + room / rate;
    (first..SCALES).map_while(seen).any(|(d, _, most)| d <= need && most >= risen + room).then_some(
        Trend { rate, mean: rate, curve: 0.0, doubt: 0.3, window: run, above: 0.0, new: false },
    )
}

/// Whether growth of `rise` bytes in the last `window` seconds has stopped for longer than it ever
/// paused.
fn ended(history: &History, now: f64, u: f64, window: f64, rise: f64, typical: f64) -> bool {
    let little = LITTLE * rise;
    let mut edge = (now, u);
    let mut rest = None;
    let mut longest = 0.0f64;
    for run in history.runs() {
        if now - run.t[0] > window {
            break;
        }
        for end in [1, 0] {
            let (t, v) = (run.t[end], run.u[end]);
            if edge.1 - v > little {
                let quiet = edge.0 - t;
                if rest.is_none() {
                    rest = Some(quiet);
                } else {
                    longest = longest.max(quiet);
                }
                edge = (t, v);
            }
        }
    }
    rest.is_none_or(|r| r > 4.0 * typical && r > 2.0 * longest && r > 0.15 * NEARLY * window)
}
