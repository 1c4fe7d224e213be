//! Derives growth from a history, with its uncertainty.

use super::fit;
use super::fit::{BELOW_ONE, MIN_STEP_SHARE};
use super::history::History;
use super::scales::{SCALES, Scale, length};

/// Growth found in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    /// Rate at the end of the window, bytes per second, above 0.
    pub(crate) rate: f64,
    /// Rate of a straight line through the window, bytes per second.
    pub(crate) mean: f64,
    /// Half of the acceleration, bytes/s², 0 or more.
    pub(crate) curve: f64,
    /// Growth that is still to come if it slows down as before, bytes; `f64::MAX` if it does not.
    pub(crate) to_come: f64,
    /// Standard error of the rate relative to it.
    pub(crate) relative_error: f64,
    /// Length of the window it is based on, seconds.
    pub(crate) window: f64,
    /// How far the peak to extrapolate from is above the present value, bytes.
    pub(crate) peak_gap: f64,
    /// Whether growth like this was never seen before at its scale.
    pub(crate) is_new: bool,
}

/// Number of its lengths for which a scale must have been observed before growth can be new on it.
const MIN_SCALE_AGES: f64 = 2.5;

/// New growth: faster than at any time before, over its own length.
pub(crate) fn new_growth(
    history: &History,
    scales: &[Scale],
    now: f64,
    used: f64,
    (top, caution): (f64, f64),
    (age, usual_step): (f64, f64),
) -> Option<Trend> {
    let mut within = 0.0f64;
    let mut best: Option<(f64, f64, usize)> = None;
    for (k, scale) in scales.iter().enumerate() {
        let d = length(k);
        if MIN_SCALE_AGES * d > age {
            break;
        }
        if d < 1.9 * usual_step || k < 2 {
            continue;
        }
        let (Some((window, rise)), Some((most, _))) =
            (scale.rise(now, used), scale.past_extremes())
        else {
            continue;
        };
        // On the way back to a level that was cleaned up before, compare with any rise that fits
        // into the window.
        within = within.max(most);
        let most = if used < top { within } else { most };
        // The shorter a scale has been observed, the less "never before" means.
        let margin = caution * (2.0 + 4.0 * d / age);
        let half = scales[k - 2].rise(now, used).map_or(0.0, |r| r.1);
        let steady = (0.25..0.78).contains(&(half / rise));
        if rise > margin * most.max(0.0) && rise > 0.0 && steady {
            let rate = rise / window;
            if best.is_none_or(|b| rate > b.0) {
                best = Some((rate, window, k));
            }
        }
    }
    let (rate, window, at) = best?;
    let window = duration_of(&scales[at..], now, used, rate, window);
    if has_ended(history, now, used, window, rate * window, usual_step) {
        return None;
    }
    let fit = fit::peaks(history, now, window);
    let fit = fit.filter(|f| f.peak_gap(used).is_some());
    let relative_error = fit.map_or(0.3, |f| f.error / f.mean.abs().max(rate * 0.1));
    // Curvature is meaningless if the window begins before the growth.
    Some(Trend {
        rate,
        mean: rate,
        curve: 0.0,
        to_come: fit.map_or(f64::MAX, |f| f.to_come),
        relative_error,
        window,
        peak_gap: 0.0,
        is_new: true,
    })
}

/// How long growth at `rate`, observed over at least `window` seconds, has lasted: the scales alone
/// are too coarse.
fn duration_of(scales: &[Scale], now: f64, used: f64, rate: f64, window: f64) -> f64 {
    let mut longest = window;
    for (window, rise) in scales.iter().map_while(|s| s.rise(now, used)) {
        longest = longest.max(rise / rate);
        // The growth began within this window.
        if rise < 0.9 * rate * window {
            break;
        }
    }
    longest
}

/// A burst in progress, like earlier ones, that fills the volume if it gets as large as they did.
pub(crate) fn usual_burst(
    scales: &[Scale],
    now: f64,
    used: f64,
    available: f64,
    (age, usual_step): (f64, f64),
) -> Option<Trend> {
    let seen = |k: usize| {
        if length(k) > age {
            return None;
        }
        let (window, rise) = scales[k].rise(now, used)?;
        Some((window, rise, scales[k].past_extremes()?.0))
    };
    let first = (0..SCALES).find(|k| length(*k) >= 3.0 * usual_step)?;
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
    if run < 5.0 * usual_step || !(0.25..0.85).contains(&(half / risen)) {
        return None;
    }
    let rate = risen / run;
    let need = run + available / rate;
    (first..SCALES)
        .map_while(seen)
        .any(|(d, _, most)| d <= need && most >= risen + available)
        .then_some(Trend {
            rate,
            mean: rate,
            curve: 0.0,
            to_come: f64::MAX,
            relative_error: 0.3,
            window: run,
            peak_gap: 0.0,
            is_new: false,
        })
}

/// Whether growth of `rise` bytes in the last `window` seconds has stopped for longer than it ever
/// paused.
fn has_ended(
    history: &History,
    now: f64,
    used: f64,
    window: f64,
    rise: f64,
    usual_step: f64,
) -> bool {
    let min_step = MIN_STEP_SHARE * rise;
    let mut level = (now, used);
    let mut rest = None;
    let mut longest = 0.0f64;
    for run in history.runs() {
        if now - run.t[0] > window {
            break;
        }
        for end in [1, 0] {
            let (t, v) = (run.t[end], run.u[end]);
            if level.1 - v > min_step {
                let quiet = level.0 - t;
                if rest.is_none() {
                    rest = Some(quiet);
                } else {
                    longest = longest.max(quiet);
                }
                level = (t, v);
            }
        }
    }
    rest.is_none_or(|r| r > 4.0 * usual_step && r > 2.0 * longest && r > 0.15 * BELOW_ONE * window)
}
