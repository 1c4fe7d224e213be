//! The largest and smallest changes so far on each time scale, to decide whether the present growth
//! is new or usual.
//!
//! For windows of 2^(k/2) seconds, the largest and smallest change over such a window is kept,
//! except for the most recent window. If a backup of ten minutes has happened before, a new one is
//! usual on the scale of seconds, and is new only once it has lasted longer than ever.

use serde::{Deserialize, Serialize};

use super::history::rescaled;

/// Half octaves from 2⁻⁴ s to 2²⁶ s (two years).
pub(crate) const SCALES: usize = 61;
/// A scale is updated again after this share of its length, so that the cost per sample of all
/// scales together does not grow with their length.
const UPDATE_SHARE: f64 = 1.0 / 32.0;
/// Past changes decay by half in this many half-windows.
const HALF_LIFE: f64 = 16384.0;

/// Length of scale `k` in seconds.
pub(crate) fn length(k: usize) -> f64 {
    (k as f64 / 2.0 - 4.0).exp2()
}

/// Largest and smallest change over windows of one length; `any` is false before the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Extremes {
    most: f64,
    least: f64,
    any: bool,
}

impl Extremes {
    const NONE: Self = Self { most: 0.0, least: 0.0, any: false };

    fn add(&mut self, rise: f64) {
        if self.any {
            self.most = self.most.max(rise);
            self.least = self.least.min(rise);
        } else {
            *self = Self { most: rise, least: rise, any: true };
        }
    }
}

/// The past changes on one scale. The last three half-windows are kept apart, so that the present
/// is compared only with changes that ended at least one window ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scale {
    epoch: i64,
    recent: [Extremes; 3],
    past: Extremes,
    /// Start of the present window and the series' value there.
    start: Option<(f64, f64)>,
    /// When to update the scale again.
    due_at: f64,
}

impl Scale {
    pub(crate) const NEW: Self = Self {
        epoch: 0,
        recent: [Extremes::NONE; 3],
        past: Extremes::NONE,
        start: None,
        due_at: f64::MIN,
    };

    /// Whether the scale is due for an update at `t`.
    pub(crate) fn is_due(&self, t: f64) -> bool {
        t >= self.due_at
    }

    /// Seconds since the start of the present window, and the rise since then if the series has the
    /// value `used` at `t`.
    pub(crate) fn rise(&self, t: f64, used: f64) -> Option<(f64, f64)> {
        self.start.map(|(start, past)| (t - start, used - past))
    }

    /// Records that over the window of `length` seconds that ends at `t`, the series rose from
    /// `past` to `used`.
    pub(crate) fn record(&mut self, t: f64, length: f64, (past, used): (f64, f64)) {
        self.start = Some((t - length, past));
        self.due_at = t + UPDATE_SHARE * length;
        let rise = used - past;
        let epoch = (t / (length * 0.5)).floor() as i64;
        for _ in 0..(epoch - self.epoch).clamp(0, 3) {
            let expired = self.recent[2];
            self.recent = [Extremes::NONE, self.recent[0], self.recent[1]];
            let decay = (-1.0 / HALF_LIFE).exp2();
            self.past.most *= decay;
            if expired.any {
                self.past.add(expired.most);
                self.past.add(expired.least);
            }
        }
        self.epoch = epoch;
        self.recent[0].add(rise);
    }

    /// Keeps only this share of all growth up to the present value `used`.
    pub(crate) fn rescale(&mut self, used: f64, keep: f64) {
        for extremes in self.recent.iter_mut().chain([&mut self.past]) {
            extremes.most *= keep;
            extremes.least *= keep;
        }
        self.start = self.start.map(|(at, past)| (at, rescaled(past, used, keep)));
    }

    /// Largest and smallest change before the present window, if there was any.
    pub(crate) fn past_extremes(&self) -> Option<(f64, f64)> {
        self.past.any.then_some((self.past.most, self.past.least))
    }
}
