//! The growth that a sample shows, of different kinds.

use super::super::fit::{Edge, Fits, Slope};
use super::super::trend;
use super::super::trend::Trend;
use super::super::{Policy, Reason};
use super::Series;

/// Factor on the required certainty of a trend after a false alarm.
const CERTAINTY_AFTER_FALSE_ALARM: f64 = 1.5;
/// Factor by which new growth must be larger after earlier new growth did not last.
const NEW_GROWTH_AFTER_REFUTATION: f64 = 2.0;
/// Largest ratio of standard error to rate of new growth.
const MAX_ERROR_OF_NEW_GROWTH: f64 = 0.3;
/// Share of a trend's window over which its curvature is averaged.
const CURVATURE_SMOOTHING_SHARE: f64 = 0.1;
/// The line through the history is fitted again after this share of its length, so that the cost
/// per sample does not grow with the length.
const REFIT_SHARE: f64 = 1.0 / 256.0;

/// Share of its window for which it is remembered that growth slows down.
const CEILING_SHARE: f64 = 1.0;

/// The growth that a sample shows.
#[derive(Clone, Copy)]
pub(super) struct Growth {
    /// Faster than ever before, over its own length.
    new: Option<Trend>,
    /// Of the whole history.
    steady: Option<Trend>,
    /// Since the volume was last full.
    refilling: Option<Trend>,
    /// Of regular bursts.
    regular: Option<Trend>,
    /// Whether new growth has ended, so that the forecast rests only on the whole history.
    pub(super) new_has_ended: bool,
}

impl Growth {
    pub(super) fn trends(&self) -> impl Iterator<Item = Trend> {
        [self.new, self.steady, self.refilling, self.regular].into_iter().flatten()
    }

    pub(super) fn fastest(&self) -> Option<Trend> {
        self.trends().max_by(|a, b| a.rate.total_cmp(&b.rate))
    }
}

impl Series {
    /// The growth at a sample, by its different kinds.
    pub(super) fn growth(&mut self, policy: &Policy, used: f64, age: f64) -> Growth {
        let caution = match self.refuted_at {
            Some(at) if self.now < 3.0 * at => NEW_GROWTH_AFTER_REFUTATION,
            _ => 1.0,
        };
        let ages = (age, self.usual_step);
        let limits = (self.highest, caution);
        let new = trend::new_growth(&self.history, &self.scales, self.now, used, limits, ages);
        let is_accepted = self.accepted_since.is_some();
        let max_error =
            if is_accepted && self.accepted_as_new { 1.0 } else { MAX_ERROR_OF_NEW_GROWTH };
        let new = new.filter(|trend| trend.relative_error <= max_error);
        // What began before a stop does not begin again with it.
        let new = new.filter(|_| is_accepted || used > self.rests_below);
        // After new growth ends, the forecast stands only if the whole history supports it.
        let new_has_ended = self.accepted_as_new && new.is_none();
        if new_has_ended && is_accepted {
            self.refuted_at = Some(self.now);
        }
        let after_false_alarm = self.withdrawn_at.is_some_and(|at| self.now < 1.5 * at);
        let certainty = policy.sure
            * match (is_accepted && !new_has_ended, after_false_alarm) {
                (true, _) => 0.5,
                (false, false) => 1.0,
                (false, true) => CERTAINTY_AFTER_FALSE_ALARM,
            };
        let (steady, reason) = self.steady(policy, certainty, used, age);
        let steady = steady.map(|trend| self.smooth_curvature(trend));
        let steady = steady.filter(|_| is_accepted || used > self.resumes_above);
        let rests = used < self.rests_below && matches!(reason, Reason::Rests | Reason::NoTrend);
        self.reason = if rests { Reason::Stopped } else { reason };
        let (refilling, regular) = (self.refilling(used), self.bursts.regular(self.usual_step));
        let growth = Growth { new, steady, refilling, regular, new_has_ended };
        self.remember_ceiling(growth, used)
    }

    /// Remembers the usage at which growth that slows down would end, so that a few samples without
    /// that do not hide it.
    fn remember_ceiling(&mut self, growth: Growth, used: f64) -> Growth {
        if let Some(trend) = growth.trends().find(|trend| trend.to_come < f64::MAX) {
            let level = used + trend.to_come;
            self.ceiling = Some((level, self.now + CEILING_SHARE * trend.window));
        }
        self.ceiling = self.ceiling.filter(|(level, until)| used < *level && self.now < *until);
        let Some((level, _)) = self.ceiling else { return growth };
        let below = |trend: Option<Trend>| {
            trend.map(|trend| Trend { to_come: trend.to_come.min(level - used), ..trend })
        };
        Growth { new: below(growth.new), steady: below(growth.steady), ..growth }
    }

    /// The trend of the whole history, from its peaks or else its lows, and the reason if there is
    /// none.
    fn steady(
        &mut self,
        policy: &Policy,
        certainty: f64,
        used: f64,
        age: f64,
    ) -> (Option<Trend>, Reason) {
        if age < 8.0 * self.usual_step {
            return (None, Reason::Learning);
        }
        let fits = match self.fits {
            Some(fits) if self.now - fits.at < REFIT_SHARE * fits.window => fits,
            _ => Fits::new(&self.history, self.now, age),
        };
        self.fits = Some(fits);
        let mut reason = Reason::Learning;
        for edge in [Edge::Peaks, Edge::Lows] {
            let Some(fit) = fits.of(edge) else { continue };
            let Some(peak_gap) = fit.peak_gap(used) else { continue };
            if fit.mean > 0.0 && fit.stopped {
                return (None, Reason::Stopped);
            }
            if fit.mean > 0.0 && fit.mean > certainty * fit.error {
                let trend = Trend {
                    rate: fit.rate,
                    mean: fit.mean,
                    curve: fit.curve,
                    to_come: fit.to_come,
                    relative_error: fit.error / fit.mean,
                    window: fits.window,
                    peak_gap,
                    is_new: false,
                };
                return (Some(trend), Reason::TooFar);
            }
            if edge == Edge::Peaks {
                reason = self.reason_against(policy, used, age, &fit, peak_gap);
            }
        }
        (None, reason)
    }

    /// Replaces the curvature of a trend, which varies with noise, by its average.
    fn smooth_curvature(&mut self, trend: Trend) -> Trend {
        let Trend { rate, mean, curve, window, .. } = trend;
        let weight = (self.usual_step / (CURVATURE_SMOOTHING_SHARE * window)).min(1.0);
        for (average, new) in self.curvature.iter_mut().zip([rate / mean, curve / mean]) {
            *average += weight * (new - *average);
        }
        let [rate, curve] = self.curvature;
        Trend { rate: mean * rate, curve: mean * curve, ..trend }
    }

    /// Why a fitted line is not a trend.
    fn reason_against(
        &self,
        policy: &Policy,
        used: f64,
        age: f64,
        fit: &Slope,
        peak_gap: f64,
    ) -> Reason {
        if peak_gap > 0.0 {
            Reason::Cleaned { at_bytes: (used + peak_gap - self.offset).max(0.0) as u64 }
        } else if fit.mean < -policy.sure * fit.error {
            Reason::Shrinks
        } else if fit.mean.abs() * age < 1e-4 * self.last.map_or(0.0, |last| last.available as f64)
        {
            Reason::Rests
        } else {
            Reason::NoTrend
        }
    }

    /// The growth since the volume was last full, which is accepted immediately.
    fn refilling(&self, used: f64) -> Option<Trend> {
        let (since, level) = self.refilled_from?;
        let window = self.now - since;
        let rate = (used - level) / window;
        (window > 0.0 && window >= 2.0 * self.usual_step && rate > 0.0).then_some(Trend {
            rate,
            mean: rate,
            curve: 0.0,
            to_come: f64::MAX,
            relative_error: 0.3,
            window,
            peak_gap: 0.0,
            is_new: true,
        })
    }
}
