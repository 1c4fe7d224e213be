//! The largest and smallest changes so far on each time scale, to decide whether the present growth
//! is new or usual.
//!
//! For windows of 2^(k/2) seconds, the largest and smallest change over such a window is kept,
//! except for the most recent window. If a backup of ten minutes has happened before, a new one is
//! usual on the scale of seconds, and is new only once it has lasted longer than ever.

use serde::{Deserialize, Serialize};

/// Half octaves from 2⁻⁴ s to 2²⁶ s (two years).
pub(crate) const SCALES: usize = 61;
/// A scale is updated again after this share of its length, so that the cost per sample of all
/// scales together does not grow with their length.
const LOOK_AGAIN: f64 = 1.0 / 32.0;
/// Past changes decay by half in this many half-windows.
const FADE: f64 = 16384.0;

/// Length of scale `k` in seconds.
pub(crate) fn length(k: usize) -> f64 {
    (k as f64 / 2.0 - 4.0).exp2()
}

/// Largest and smallest change over windows of one length; `any` is false before the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    most: f64,
    least: f64,
    any: bool,
}

impl Seen {
    const NOTHING: Self = Self { most: 0.0, least: 0.0, any: false };

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
    recent: [Seen; 3],
    past: Seen,
    /// Start of the present window and the series' value there.
    from: Option<(f64, f64)>,
    /// When to update the scale again.
    next: f64,
}

impl Scale {
    pub(crate) const NEW: Self = Self {
        epoch: 0,
        recent: [Seen::NOTHING; 3],
        past: Seen::NOTHING,
        from: None,
        next: f64::MIN,
    };

    /// Whether the scale is due for an update at `t`.
    pub(crate) fn is_due(&self, t: f64) -> bool {
        t >= self.next
    }

    /// Seconds since the start of the present window, and the rise since then if the series has the
    /// value `u` at `t`.
    pub(crate) fn rise(&self, t: f64, u: f64) -> Option<(f64, f64)> {
        self.from.map(|(from, past)| (t - from, u - past))
    }

    /// Records that over the window of `length` seconds that ends at `t`, the series rose from
    /// `past` to `u`.
    pub(crate) fn see(&mut self, t: f64, length: f64, (past, u): (f64, f64)) {
        self.from = Some((t - length, past));
        self.next = t + LOOK_AGAIN * length;
        let rise = u - past;
        let epoch = (t / (length * 0.5)).floor() as i64;
        for _ in 0..(epoch - self.epoch).clamp(0, 3) {
            let gone = self.recent[2];
            self.recent = [Seen::NOTHING, self.recent[0], self.recent[1]];
            let fade = (-1.0 / FADE).exp2();
            self.past.most *= fade;
            if gone.any {
                self.past.add(gone.most);
                self.past.add(gone.least);
            }
        }
        self.epoch = epoch;
        self.recent[0].add(rise);
    }

    /// Largest and smallest change before the present window, if there was any.
    pub(crate) fn before(&self) -> Option<(f64, f64)> {
        self.past.any.then_some((self.past.most, self.past.least))
    }
}
