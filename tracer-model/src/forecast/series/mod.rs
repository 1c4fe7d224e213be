//! The forecast of one limit, from a series of its usage and the space that is left.

mod discontinuities;
mod estimate;
mod growth;

use serde::{Deserialize, Serialize};

use super::bursts::Bursts;
use super::fit::{Edge, Fits};
use super::history::{History, rescaled};
use super::horizons::Horizons;
use super::pace::{Pace, Runs};
use super::scales::{SCALES, Scale, length};
use super::trend::Trend;
use super::{Basis, Outcome, Policy, Reason, Refill, trend};

/// One sample of one limit, in the limit's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LimitSample {
    pub(super) time_s: f64,
    /// The total, used or not.
    pub(super) size: u64,
    pub(super) used: u64,
    pub(super) available: u64,
}

/// Share of the size that must be free again before a full volume counts as having space.
const SPACE_AGAIN_SHARE: f64 = 0.0005;
/// Share of its earlier rise by which growth that had stopped must continue to be accepted again.
const RESUMED_RISE_SHARE: f64 = 0.1;
/// Accepted growth has stopped if it rose by less than this share of what it had added, for longer
/// than this number of samples, this many times its longest pause, and this share of its length.
const STOPPED_RISE_SHARE: f64 = 0.002;
const STOPPED_RATE_SHARE: f64 = 0.03;
const STOPPED_STEPS: f64 = 5.0;
const STOPPED_PAUSES: f64 = 3.0;
const STOPPED_SHARE: f64 = 0.25;
/// If less than this share of the growth is left after an action, nothing is forecast at first.
const LEAST_KEPT: f64 = 0.02;
/// An estimate is withdrawn only after doubt has lasted for this share of the estimate's age.
const DOUBT_SHARE_OF_AGE: f64 = 0.2;

/// A clean-up whose space has not been used up again yet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct CleanUp {
    /// Usage before the clean-up.
    level: f64,
    freed: f64,
    at: f64,
    /// Whether usage has fallen at every sample since, so that the clean-up is still running.
    is_running: bool,
}

/// The state of one limit's forecast. Times are effective time unless noted, usage includes
/// `offset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    history: History,
    scales: Vec<Scale>,
    horizons: Horizons,
    bursts: Bursts,
    runs: Runs,
    /// Highest usage so far.
    highest: f64,
    fits: Option<Fits>,
    /// Effective time: seconds since the first sample, without gaps in which nothing happened.
    now: f64,
    last: Option<LimitSample>,
    /// Usual time between samples, seconds.
    usual_step: f64,
    /// Added to the usage, so that the series does not jump when the volume itself changes.
    offset: f64,
    /// When it became full, by the clock of the samples.
    full_since: Option<f64>,
    /// Time and usage when the volume last stopped being full.
    refilled_from: Option<(f64, f64)>,
    /// The published estimate: when it will be full, earliest, likely, latest.
    full_at: Option<[f64; 3]>,
    /// When the estimate was first published.
    published_since: f64,
    /// When the limit went out of the forecast's reach.
    out_of_reach_since: Option<f64>,
    /// When growth was accepted as a trend, near the limit or not.
    accepted_since: Option<f64>,
    /// Usage at the start of the accepted growth, and the highest since.
    accepted_rise: [f64; 2],
    /// When the accepted growth began, when it last rose, and its longest pause so far, seconds.
    accepted_times: [f64; 3],
    /// Usage when the accepted growth last rose.
    accepted_level: f64,
    /// Whether the accepted growth began as growth never seen before.
    accepted_as_new: bool,
    /// When accepted growth was last given up without the volume having filled.
    withdrawn_at: Option<f64>,
    /// When the accepted growth was first in doubt.
    doubted_since: Option<f64>,
    /// Usage that growth that had stopped must exceed to be accepted again.
    resumes_above: f64,
    /// Since growth has stopped: the lowest usage, and a little more.
    rests_below: f64,
    /// When new growth last turned out not to last.
    refuted_at: Option<f64>,
    /// Averaged curvature of the trend, relative to its mean rate: rate at its end, and curve.
    curvature: [f64; 2],
    /// Usage at which growth that slows down ends, and until when that is assumed.
    ceiling: Option<(f64, f64)>,
    /// Whether the volume's size has just changed.
    was_resized: bool,
    reason: Reason,
    basis: Option<Basis>,
    clean_up: Option<CleanUp>,
    refill: Option<Refill>,
}

impl Series {
    pub(super) fn new() -> Self {
        Self {
            history: History::default(),
            scales: vec![Scale::NEW; SCALES],
            horizons: Horizons::new(),
            bursts: Bursts::NEW,
            runs: Runs::default(),
            highest: f64::MIN,
            fits: None,
            now: 0.0,
            last: None,
            usual_step: 0.0,
            offset: 0.0,
            full_since: None,
            refilled_from: None,
            full_at: None,
            published_since: 0.0,
            out_of_reach_since: None,
            accepted_since: None,
            accepted_rise: [f64::MAX, f64::MIN],
            accepted_times: [0.0; 3],
            accepted_level: 0.0,
            accepted_as_new: false,
            withdrawn_at: None,
            doubted_since: None,
            resumes_above: f64::MIN,
            rests_below: f64::MIN,
            refuted_at: None,
            curvature: [1.0, 0.0],
            ceiling: None,
            was_resized: false,
            reason: Reason::Learning,
            basis: None,
            clean_up: None,
            refill: None,
        }
    }

    /// Adds the next sample.
    pub(super) fn push(&mut self, policy: &Policy, sample: LimitSample) {
        let change = self.advance(&sample);
        let used = sample.used as f64 + self.offset;
        let age = self.record(sample, used, change);
        if self.is_full(&sample, used) {
            return;
        }
        let ages = (age, self.usual_step);
        self.horizons.update(&self.history, (self.now, used), ages, self.runs.rate());
        let first = self.history.start().map_or(used, |start| start.1);
        let mean = (used - first) / age.max(self.usual_step);
        self.bursts.push(self.now, used, mean, self.usual_step);
        self.give_up_if_undone(used);
        let growth = self.growth(policy, used, age);
        let fastest = growth.fastest();
        self.accept(fastest.as_ref(), growth.new_has_ended, used);
        let [from, to] = self.accepted_rise;
        self.rests_below = self.rests_below.min(used + STOPPED_RISE_SHARE * (to - from));
        if self.give_up_if_stopped(used) {
            return;
        }
        let available = sample.available as f64;
        let burst = trend::usual_burst(&self.scales, self.now, used, available, ages);
        let candidates: Vec<Trend> = growth.trends().chain(burst).collect();
        self.update_estimate(policy, &candidates, fastest.as_ref(), available);
    }

    /// Adds a sample to the history and to the scales. Returns the length of the history.
    fn record(&mut self, sample: LimitSample, used: f64, change: f64) -> f64 {
        self.history.push(self.now, used);
        self.runs.push(self.now, used, &self.history);
        self.track_clean_ups(&sample, used, change);
        self.last = Some(sample);
        self.highest = self.highest.max(used);
        let (start, first) = self.history.start().unwrap_or((self.now, used));
        let age = self.now - start;
        for (k, scale) in self.scales.iter_mut().enumerate() {
            let d = length(k);
            if 2.0 * d >= self.usual_step && scale.is_due(self.now) {
                // Before the first sample, the series is assumed to have been constant.
                let past = if d > age { Some(first) } else { self.history.at(self.now - d) };
                scale.record(self.now, d, (past.unwrap_or(used), used));
            }
        }
        age
    }

    /// Whether the volume is full. When it stops being full, growth has to be accepted again.
    fn is_full(&mut self, sample: &LimitSample, used: f64) -> bool {
        let space_again = SPACE_AGAIN_SHARE * sample.size as f64;
        if sample.available == 0
            || (self.full_since.is_some() && (sample.available as f64) < space_again)
        {
            self.full_since.get_or_insert(sample.time_s);
            return true;
        }
        if self.full_since.take().is_some() {
            self.full_at = None;
            self.accepted_since = None;
            self.refilled_from = Some((self.now, used));
        }
        false
    }

    /// Starts over if the files that caused the accepted growth are gone.
    fn give_up_if_undone(&mut self, used: f64) {
        self.accepted_rise[1] = self.accepted_rise[1].max(used);
        // A drop like those before (a sawtooth) does not undo growth: it will rise again.
        let peaks = self.fits.and_then(|fits| fits.of(Edge::Peaks));
        let is_sawtooth = peaks.is_some_and(|peaks| peaks.recovers_from(used));
        let [from, to] = self.accepted_rise;
        if self.accepted_since.is_some() && !is_sawtooth && used - from < 0.15 * (to - from) {
            self.give_up();
        }
    }

    /// Gives accepted growth up if it has paused for much longer than ever before. Returns whether it
    /// did.
    fn give_up_if_stopped(&mut self, used: f64) -> bool {
        let [from, to] = self.accepted_rise;
        let [began, rose, longest] = &mut self.accepted_times;
        // Nothing was accepted yet.
        if to <= from {
            return false;
        }
        let pause = self.now - *rose;
        if used - self.accepted_level > STOPPED_RISE_SHARE * (to - from) {
            *longest = longest.max(pause);
            *rose = self.now;
            self.accepted_level = used;
            return false;
        }
        let length = *rose - *began;
        let has_stopped = self.accepted_since.is_some()
            && pause > STOPPED_STEPS * self.usual_step
            && pause > STOPPED_PAUSES * *longest
            && pause > STOPPED_SHARE * length
            && self.runs.rate() * length <= STOPPED_RATE_SHARE * (to - from);
        if has_stopped {
            self.resumes_above = to + RESUMED_RISE_SHARE * (to - from);
            self.rests_below = used + STOPPED_RISE_SHARE * (to - from);
            self.give_up();
            self.reason = Reason::Stopped;
        }
        has_stopped
    }

    /// Accepts growth as a trend, or gives it up after enough doubt. The distance to the limit does
    /// not matter: faster growth of the same shape is accepted at the same times.
    fn accept(&mut self, growth: Option<&Trend>, new_has_ended: bool, used: f64) {
        let now = self.now;
        match (growth, self.accepted_since) {
            (Some(trend), accepted) => {
                if accepted.is_none() {
                    self.accepted_since = Some(now);
                    self.accepted_rise = [used - trend.rate * trend.window, used];
                    self.accepted_times[0] = now - trend.window;
                    self.accepted_times[1] = now;
                    self.accepted_level = used;
                }
                self.doubted_since = None;
                self.accepted_as_new = trend.is_new || (self.accepted_as_new && !new_has_ended);
            }
            (None, Some(accepted)) => {
                let since = *self.doubted_since.get_or_insert(now);
                let patience = DOUBT_SHARE_OF_AGE * (since - accepted);
                if now - since >= patience.max(3.0 * self.usual_step) {
                    if self.reason == Reason::Stopped {
                        let [from, to] = self.accepted_rise;
                        self.resumes_above = to + RESUMED_RISE_SHARE * (to - from);
                    }
                    self.give_up();
                }
            }
            (None, None) => {}
        }
    }

    /// Gives accepted growth up, with its estimate.
    fn give_up(&mut self) {
        self.accepted_since = None;
        self.full_at = None;
        self.doubted_since = None;
        self.out_of_reach_since = None;
        self.withdrawn_at = Some(self.now);
    }

    /// Someone who caused the share `removed` of the present growth, 0 to 1, was stopped: the history is
    /// from now on that of the others.
    pub(super) fn acted(&mut self, removed: f64) {
        let Some(last) = self.last else { return };
        let used = last.used as f64 + self.offset;
        let keep = 1.0 - removed;
        self.history.rescale(used, keep);
        self.horizons.rescale(used, keep);
        self.bursts.rescale(keep);
        self.runs.rescale(keep);
        for scale in &mut self.scales {
            scale.rescale(used, keep);
        }
        self.highest = rescaled(self.highest, used, keep);
        self.fits = None;
        self.ceiling = None;
        self.refilled_from = None;
        self.resumes_above = f64::MIN;
        self.rests_below = f64::MIN;
        let [from, to] = self.accepted_rise;
        if keep > LEAST_KEPT {
            if from < to {
                self.accepted_rise = [from, to].map(|value| rescaled(value, used, keep));
                self.accepted_level = rescaled(self.accepted_level, used, keep);
            }
            self.full_at = self.full_at.map(|at| at.map(|at| self.now + (at - self.now) / keep));
        } else {
            self.give_up();
            self.withdrawn_at = None;
            self.rests_below = used + STOPPED_RISE_SHARE * (to - from).max(0.0);
            self.reason = Reason::Stopped;
        }
    }

    /// Growth at the present pace, bytes per second.
    pub(super) fn growth_per_s(&self) -> f64 {
        let believed = self.basis().map_or(0.0, |basis| basis.growth_per_s);
        self.runs.rate().max(believed)
    }

    /// The present forecast.
    pub(super) fn outcome(&self) -> Outcome {
        if let Some(since_s) = self.full_since {
            return Outcome::Full { since_s };
        }
        match self.full_at {
            Some(full_at) => {
                // It is full at one of the samples, before or after the moment.
                let step = self.usual_step;
                let [lo_s, eta_s, hi_s] = [full_at[0] - step, full_at[1], full_at[2] + step]
                    .map(|at| (at - self.now).max(0.0));
                Outcome::Fills { lo_s, eta_s, hi_s }
            }
            None => Outcome::DoesNotFill { reason: self.reason },
        }
    }

    /// When it is full at the present pace.
    pub(super) fn pace(&self) -> Option<Pace> {
        let last = self.last.filter(|_| self.full_since.is_none())?;
        self.runs.pace(last.available as f64, self.usual_step)
    }

    /// Memory used, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.history.bytes()
            + self.scales.capacity() * size_of::<Scale>()
            + self.horizons.bytes()
            + self.runs.bytes()
    }

    pub(super) fn basis(&self) -> Option<Basis> {
        self.basis.filter(|_| self.full_at.is_some() && self.full_since.is_none())
    }

    pub(super) fn refill(&self) -> Option<Refill> {
        self.refill
    }
}
