//! The present pace: the rate since it last changed.
//!
//! The samples since the last change of the rate are a *run*. With each sample, every point within the
//! latest samples is tested as a change: whether the mean rate after it differs from the one before it by
//! more than the scatter explains (a generalized likelihood ratio test for a change of the mean; Basseville
//! and Nikiforov, *Detection of abrupt changes* 1993, 2.4.3). The scatter is that of successive rates (von
//! Neumann 1941), so that a slow drift does not count as scatter.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::fit::BELOW_ONE;
use super::history::{History, rescaled};

/// Number of latest samples within which a change is looked for.
const RECENT: usize = 32;
/// The rate has changed if it differs by this many standard errors.
const CHANGE_ERRORS: f64 = 4.5;
/// Differences of less than this share of the rate are no change.
const LEAST_CHANGE: f64 = 0.02;
/// After a run has become longer by this share, its halves are compared, for changes that are too slow
/// to be seen within the latest samples.
const COMPARE_SHARE: f64 = 0.125;
/// 80 % of a normal distribution is within this many standard errors.
const ERRORS_OF_80_PERCENT: f64 = 1.28;
/// Relative error of a rate from a single sample: when in its interval the writing began is unknown.
const ERROR_OF_ONE: f64 = 0.4;

/// Seconds to full if the present pace goes on, with an interval of 80 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Earliest, seconds.
    pub lo_s: f64,
    /// Likely, seconds.
    pub eta_s: f64,
    /// Latest, seconds.
    pub hi_s: f64,
    /// Growth, bytes per second (or inodes per second).
    pub growth_per_s: f64,
    /// For how long it has grown like this, seconds.
    pub window_s: f64,
}

/// The samples since the rate last changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Runs {
    /// Times and values of the latest samples, oldest first.
    recent: VecDeque<(f64, f64)>,
    /// Where the run began.
    start: (f64, f64),
    /// Number of rates in the run, and half the sum of squares of their successive differences.
    count: f64,
    squares: f64,
    last_rate: f64,
    /// Length of the run when its halves were last compared.
    compared: f64,
}

impl Runs {
    /// Adds a sample to the run, and begins a new one where the rate changed.
    pub(crate) fn push(&mut self, now: f64, used: f64, history: &History) {
        let Some(&(then, before)) = self.recent.back() else {
            self.start = (now, used);
            self.recent.push_back((now, used));
            return;
        };
        if now <= then {
            return;
        }
        let rate = (used - before) / (now - then);
        if self.count > 0.0 {
            self.squares += 0.5 * (rate - self.last_rate).powi(2);
        }
        self.count += 1.0;
        self.last_rate = rate;
        self.recent.push_back((now, used));
        if self.recent.len() > RECENT + 1 {
            self.recent.pop_front();
        }
        self.split_recent(now, used);
        let length = now - self.start.0;
        if length > (1.0 + COMPARE_SHARE) * self.compared {
            self.compared = length;
            self.compare_halves(now, used, history);
        }
    }

    /// Variance of a single rate.
    fn variance(&self) -> f64 {
        self.squares / (self.count - 1.0).max(1.0)
    }

    /// Whether two mean rates differ by more than the scatter explains, and by how much: 1 or more.
    fn difference(&self, [new, old]: [f64; 2], [n, m]: [f64; 2]) -> f64 {
        let least = LEAST_CHANGE * new.abs().max(old.abs());
        let error = self.variance() * (1.0 / n + 1.0 / m);
        (new - old).powi(2) / (CHANGE_ERRORS.powi(2) * error + least * least)
    }

    /// Begins a new run where the rate changed within the latest samples.
    fn split_recent(&mut self, now: f64, used: f64) {
        let mut best = (1.0, None);
        for (i, &(t, u)) in self.recent.iter().enumerate().rev().skip(1) {
            let n = (self.recent.len() - 1 - i) as f64;
            if t <= self.start.0 || self.count - n < 2.0 {
                break;
            }
            let rates = [(used - u) / (now - t), (u - self.start.1) / (t - self.start.0)];
            let by = self.difference(rates, [n, self.count - n]);
            // Of equal ones the earliest, and rounding does not decide.
            if by > best.0 * BELOW_ONE {
                best = (by, Some((n, (t, u))));
            }
        }
        let (_, Some((count, start))) = best else { return };
        self.start = start;
        self.count = count;
        self.compared = 0.0;
        let at = self.recent.len() - 1 - count as usize;
        let rates = |i: usize| {
            let ((t, u), (next_t, next_u)) = (self.recent[i], self.recent[i + 1]);
            (next_u - u) / (next_t - t)
        };
        self.squares =
            (at + 1..self.recent.len() - 1).map(|i| 0.5 * (rates(i) - rates(i - 1)).powi(2)).sum();
    }

    /// Drops the older half of a run whose rate has changed slowly.
    fn compare_halves(&mut self, now: f64, used: f64, history: &History) {
        let middle = 0.5 * (self.start.0 + now);
        let Some(then) = history.at(middle).filter(|_| self.count >= 8.0) else { return };
        let half = 0.5 * (now - self.start.0);
        let count = 0.5 * self.count;
        let rates = [(used - then) / half, (then - self.start.1) / half];
        if self.difference(rates, [count, count]) > 1.0 {
            self.start = (middle, then);
            self.count = count;
            self.squares *= 0.5;
            self.compared = half;
        }
    }

    /// Keeps only this share of all growth so far.
    pub(crate) fn rescale(&mut self, keep: f64) {
        let Some(&(_, used)) = self.recent.back() else { return };
        for at in self.recent.iter_mut().chain([&mut self.start]) {
            at.1 = rescaled(at.1, used, keep);
        }
        self.squares *= keep * keep;
        self.last_rate *= keep;
    }

    /// Length of the run, seconds.
    pub(crate) fn window_s(&self) -> f64 {
        self.recent.back().map_or(0.0, |last| last.0 - self.start.0)
    }

    /// The rate of the run, bytes per second.
    pub(crate) fn rate(&self) -> f64 {
        match self.recent.back() {
            Some((now, used)) if *now > self.start.0 => {
                (used - self.start.1) / (now - self.start.0)
            }
            _ => 0.0,
        }
    }

    /// Seconds to full if the run goes on; `None` if it does not grow.
    pub(crate) fn pace(&self, available: f64, usual_step: f64) -> Option<Pace> {
        let window_s = self.window_s();
        let rate = self.rate();
        let error =
            (self.variance() / self.count.max(1.0)).sqrt().hypot(ERROR_OF_ONE * rate / self.count);
        if self.count < 2.0 || rate <= error {
            return None;
        }
        let eta_s = available / rate;
        let off = ERRORS_OF_80_PERCENT * error;
        // The latest time of a rate that may be 0 is unknown; ten times the likely one is far enough.
        // It is full at one of the samples, before or after the moment.
        let lo_s = (available / (rate + off) - usual_step).max(0.0);
        let hi_s = available / (rate - off).max(0.1 * rate) + usual_step;
        (hi_s <= super::history::MAX_TIME_S).then_some(Pace {
            lo_s,
            eta_s,
            hi_s,
            growth_per_s: rate,
            window_s,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.recent.capacity() * size_of::<(f64, f64)>()
    }
}
