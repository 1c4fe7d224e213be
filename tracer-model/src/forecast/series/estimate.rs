//! The published estimate: how it is chosen, moved and withdrawn.

use super::super::history::MAX_TIME_S;
use super::super::horizons;
use super::super::horizons::{HORIZONS, Horizon, LEAST_STEPS};
use super::super::trend::Trend;
use super::super::{Basis, Policy};
use super::{DOUBT_SHARE_OF_AGE, Series};

/// Accelerating growth is extrapolated at most this many times as far as it has been observed.
const MAX_CURVED_REACH: f64 = 4.0;
/// Factor on the reach of a forecast once an estimate is published.
const REACH_ONCE_PUBLISHED: f64 = 3.0;
/// Growth that never paused goes on at its pace if that has lasted for this share of the history.
const STEADY_SHARE: f64 = 0.25;
/// Growth that slows down fills the volume only if less than this many times as much space is left as
/// is still to come.
const MAX_TO_COME: f64 = 2.0;
/// Share of the history that an estimate is based on, over which the published estimate converges
/// to a new one within the band.
const ESTIMATE_SMOOTHING_SHARE: f64 = 0.05;

/// The published estimate follows a new one more closely when it is nearer than this share of the
/// history that it is based on.
const SLACK_SHARE: f64 = 0.25;

/// The same for an estimate that may be wrong by a factor of e to the power of 1 over this.
const SLACK_OF_DOUBT: f64 = 2.0;

impl Series {
    /// Moves the published estimate towards the nearest of the candidates, or withdraws it if all
    /// have been out of reach for long enough. `fastest` is the growth that is accepted or may be.
    pub(super) fn update_estimate(
        &mut self,
        policy: &Policy,
        candidates: &[Trend],
        fastest: Option<&Trend>,
        available: f64,
    ) {
        // Hysteresis: a published estimate is not withdrawn as soon as it would no longer be
        // published.
        let is_published = self.full_at.is_some();
        let factor = if is_published { REACH_ONCE_PUBLISHED } else { 1.0 };
        let estimates = || {
            candidates.iter().filter_map(|trend| {
                let far = factor * if trend.is_new { policy.reach_new } else { policy.reach };
                let (eta, is_near) = self.reach(far, trend, available)?;
                Some((eta, is_near, trend))
            })
        };
        let near = estimates().filter(|one| one.1).min_by(|a, b| a.0[1].total_cmp(&b.0[1]));
        // An estimate that goes out of reach is still updated until it is withdrawn.
        let far = || estimates().max_by(|a, b| a.0[1].total_cmp(&b.0[1])).filter(|_| is_published);
        let in_doubt = fastest.is_none() && self.accepted_since.is_some();
        if let Some((eta, _, trend)) = near.or_else(far) {
            self.basis = Some(Basis {
                growth_per_s: trend.rate,
                window_s: trend.window,
                is_new: trend.is_new,
            });
            let window = fastest.map_or(trend.window, |fastest| fastest.window);
            self.move_estimate(policy, eta, window, in_doubt);
        }
        if near.is_some() {
            self.out_of_reach_since = None;
        } else if self.full_at.is_some() && !in_doubt {
            self.withdraw_if_out_of_reach();
        }
    }

    /// Withdraws an estimate that has been out of reach for long enough.
    fn withdraw_if_out_of_reach(&mut self) {
        let since = *self.out_of_reach_since.get_or_insert(self.now);
        let patience = DOUBT_SHARE_OF_AGE * (since - self.published_since);
        if self.now - since >= patience.max(3.0 * self.usual_step) {
            self.full_at = None;
            self.out_of_reach_since = None;
        }
    }

    /// Moves the published estimate smoothly towards a new one, in seconds from now, which is based
    /// on `window` seconds of history.
    fn move_estimate(&mut self, policy: &Policy, eta: [f64; 3], window: f64, in_doubt: bool) {
        let now = self.now;
        let old = self.full_at;
        if old.is_none() {
            self.published_since = now;
        }
        let weight = (self.usual_step / (ESTIMATE_SMOOTHING_SHARE * window)).min(1.0);
        // Starting from "never" keeps the order of any two histories: the one that fills later
        // stays later, whichever is published first. A new size changes that for both.
        let was_resized = std::mem::take(&mut self.was_resized);
        // The nearer the end and the better known, the closer. Both grow with the estimate, which keeps
        // the order of any two estimates.
        let slack = |factor: f64, eta: f64| {
            let loose =
                (eta / (SLACK_SHARE * window)).max(SLACK_OF_DOUBT * self.horizons.doubt(eta));
            1.0 + (factor - 1.0) * loose.clamp(0.6, 1.0)
        };
        self.full_at = Some(std::array::from_fn(|i| {
            let (hold, lag) = (slack(policy.hold, eta[i]), slack(policy.lag, eta[i]));
            let target = now + eta[i];
            if was_resized && old.is_none() {
                return target;
            }
            let full_at = old
                .map_or(f64::INFINITY, |old| old[i] + weight * (target - old[i]))
                .clamp(now + eta[i] / lag, now + eta[i] * hold);
            // While growth is in doubt, its published estimate is not postponed.
            if in_doubt { old.map_or(full_at, |old| full_at.min(old[i])) } else { full_at }
        }));
    }
}

impl Series {
    /// Seconds to full if a trend continues: earliest, likely, latest; and whether that is within the
    /// trend's reach.
    fn reach(&self, far: f64, trend: &Trend, available: f64) -> Option<([f64; 3], bool)> {
        let (eta, horizon, learned) = self.crossing(trend, available);
        if eta.is_nan() || eta > MAX_TIME_S {
            return None;
        }
        let whole = available;
        let available = (available - trend.peak_gap).max(0.02 * available);
        if available > MAX_TO_COME * trend.to_come {
            return None;
        }
        // Curved growth is extrapolated less far than linear growth.
        let is_near =
            available / trend.mean <= far * trend.window || eta <= MAX_CURVED_REACH * trend.window;
        let spread =
            (2.5 * trend.relative_error.min(10.0) + 0.05 * (eta / trend.window).ln_1p()).ln_1p();
        let [lo, middle, hi] = self.horizons.get(horizon).map_or([0.0; 3], Horizon::quantiles);
        let of = |seen: f64| learned * seen + (1.0 - learned) * spread;
        let (mut eta, mut early, mut late) = (eta, of(hi - middle), of(middle - lo));
        if let Some(foreseen) = self.bursts.foresee(whole, trend.mean) {
            let weight = foreseen.weight;
            if eta > 0.0 {
                eta *= (foreseen.eta / eta).powf(weight);
            }
            early += weight * (foreseen.spread - early);
            late += weight * (foreseen.spread - late);
        }
        Some(([eta / early.exp(), eta, eta * late.exp()], is_near))
    }

    /// Seconds to full: by what was learned for each horizon up to the length of the trend, beyond that
    /// by the trend. Also the horizon and how much of the estimate was learned, 0 to 1.
    fn crossing(&self, trend: &Trend, available: f64) -> (f64, usize, f64) {
        let Trend { rate, curve, window, peak_gap, .. } = *trend;
        // Growth that never paused is expected to go on at least for as long as its pace has lasted.
        let is_unbroken = self.bursts.is_unbroken();
        let run = self.runs.window_s();
        let mut last = (0.0, 0.0);
        for k in 0..HORIZONS {
            let h = horizons::length(k);
            if h < LEAST_STEPS * self.usual_step {
                continue;
            }
            let learned = (0.5 * (window / h).log2()).clamp(0.0, 1.0);
            if learned == 0.0 {
                break;
            }
            let Some(horizon) = self.horizons.get(k) else { break };
            let seen = if is_unbroken && h <= run {
                self.runs.rate() * h
            } else {
                horizon.excess + horizon.rate * horizon.quantiles()[1].exp() * h
            };
            let straight = peak_gap + (rate + curve * h) * h;
            let growth = learned * seen + (1.0 - learned) * straight;
            if growth >= available {
                let share = (available - last.1) / (growth - last.1);
                return (last.0 + share * (h - last.0), k, learned);
            }
            if growth > last.1 {
                last = (h, growth);
            }
        }
        let available = (available - peak_gap).max(0.02 * available);
        // A kink where growth began bends the line, but not a pace that has lasted.
        let (rate, curve) = match self.runs.rate() {
            pace if is_unbroken && run >= STEADY_SHARE * window => (pace, 0.0),
            pace if is_unbroken && run >= LEAST_STEPS * self.usual_step => (rate.max(pace), curve),
            _ => (rate, curve),
        };
        let eta = 2.0 * available / (rate + (rate * rate + 4.0 * curve * available).sqrt());
        (eta.max(last.0), 0, 0.0)
    }
}
