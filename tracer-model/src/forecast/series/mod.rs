//! The forecast of one limit, from a series of its usage and the space that is left.

mod clock;

use serde::{Deserialize, Serialize};

use super::history::History;
use super::scales::{SCALES, Scale, length};
use super::trend::{Ends, Fits, Slope, Trend};
use super::{Basis, Outcome, Policy, Reason, Refill, trend};

/// One sample of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Look {
    pub(super) time_s: f64,
    /// The total, used or not.
    pub(super) size: u64,
    pub(super) taken: u64,
    pub(super) room: u64,
}

/// Share of the size that must be free again before a full volume counts as having space.
const SPACE_AGAIN: f64 = 0.0005;
/// Accelerating growth is extrapolated at most this many times as far as it has been observed.
const BEND_REACH: f64 = 4.0;
/// Factor on the required certainty of a trend after a false alarm.
const BURNT: f64 = 1.5;
/// Factor by which new growth must be larger after earlier new growth did not last.
const WARY: f64 = 2.0;
/// Share of its earlier rise by which growth that had stopped must continue to be accepted again.
const GOES_ON: f64 = 0.1;
/// Largest ratio of standard error to rate of new growth.
const PLAIN: f64 = 0.3;
/// Factor on the reach of a forecast once an estimate is published.
const LENIENT: f64 = 3.0;
/// An estimate is withdrawn only after doubt has lasted for this share of the estimate's age.
const PATIENCE: f64 = 0.2;
/// An estimate that is longer than the published one by less than this factor does not move it.
const STILL: f64 = 1.1;
/// Upper limit of the time between samples and of an estimate, seconds (300 years).
const FOREVER: f64 = 1e10;
/// Share of the history that an estimate is based on, over which the published estimate converges
/// to a new one within the band.
const SETTLE: f64 = 0.05;
/// Share of a trend's window over which its curvature is averaged.
const EVEN_OUT: f64 = 0.1;
/// The line through the history is fitted again after this share of its length, so that the cost
/// per sample does not grow with the length.
const DRAW_AGAIN: f64 = 1.0 / 256.0;
/// A clean-up whose space has not been used up again yet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct CleanUp {
    /// Usage before the clean-up.
    level: f64,
    freed: f64,
    at: f64,
    /// Whether usage has fallen at every sample since, so that the clean-up is still going on.
    #[serde(default)]
    goes_on: bool,
}

/// The state of one limit's forecast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    history: History,
    scales: Vec<Scale>,
    /// Highest value so far.
    top: f64,
    fits: Option<Fits>,
    /// Effective time: seconds since the first sample, without gaps in which nothing happened.
    now: f64,
    last: Option<Look>,
    /// Usual time between samples, seconds.
    typical: f64,
    /// Added to the usage, so that the series does not jump when the volume itself changes.
    shift: f64,
    full_since: Option<f64>,
    /// Time and usage when the volume last stopped being full.
    again: Option<(f64, f64)>,
    /// When it will be full, in effective time: earliest, likely, latest.
    due: Option<[f64; 3]>,
    due_since: f64,
    /// Since when the limit has been out of the forecast's reach.
    far_since: Option<f64>,
    /// Since when growth has been accepted as a trend, near the limit or not.
    believed: Option<f64>,
    /// Usage at the start of the accepted growth, and the highest since.
    risen: [f64; 2],
    /// Whether the accepted growth began as growth never seen before.
    news: bool,
    /// When accepted growth was last given up without the volume having filled.
    withdrawn: Option<f64>,
    doubt_since: Option<f64>,
    /// Usage that growth that had stopped must exceed to be accepted again.
    rests_at: f64,
    /// When new growth last turned out not to last.
    refuted: Option<f64>,
    /// Averaged curvature of the trend, relative to its mean rate: rate at its end, and curve.
    bend: [f64; 2],
    /// Whether the volume's size has just changed.
    resized: bool,
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
            top: f64::MIN,
            fits: None,
            now: 0.0,
            last: None,
            typical: 0.0,
            shift: 0.0,
            full_since: None,
            again: None,
            due: None,
            due_since: 0.0,
            far_since: None,
            believed: None,
            risen: [0.0; 2],
            news: false,
            withdrawn: None,
            doubt_since: None,
            rests_at: f64::MIN,
            refuted: None,
            bend: [1.0, 0.0],
            resized: false,
            reason: Reason::Learning,
            basis: None,
            clean_up: None,
            refill: None,
        }
    }

    /// Adds the next sample.
    pub(super) fn push(&mut self, policy: &Policy, look: Look) {
        let moved = self.advance(&look);
        let u = look.taken as f64 + self.shift;
        self.history.push(self.now, u);
        self.clean_ups(&look, u, moved);
        self.last = Some(look);
        self.top = self.top.max(u);
        let (start, first) = self.history.start().unwrap_or((self.now, u));
        let age = self.now - start;
        for (k, scale) in self.scales.iter_mut().enumerate() {
            let d = length(k);
            if 2.0 * d >= self.typical && scale.is_due(self.now) {
                // Before the first sample, the series is assumed to have been constant.
                let past = if d > age { Some(first) } else { self.history.at(self.now - d) };
                scale.see(self.now, d, (past.unwrap_or(u), u));
            }
        }
        let back = SPACE_AGAIN * look.size as f64;
        if look.room == 0 || (self.full_since.is_some() && (look.room as f64) < back) {
            self.full_since.get_or_insert(look.time_s);
            return;
        }
        if self.full_since.take().is_some() {
            self.due = None;
            self.believed = None;
            self.again = Some((self.now, u));
        }
        self.risen[1] = self.risen[1].max(u);
        // A drop like those before (a sawtooth) does not undo growth: it will rise again.
        let peaks = self.fits.and_then(|f| f.of(Ends::Peaks));
        let tooth = peaks.is_some_and(|p| p.comes_back(u));
        let undone = self.believed.is_some()
            && !tooth
            && u - self.risen[0] < 0.15 * (self.risen[1] - self.risen[0]);
        if undone {
            // The files that caused the growth are gone: start over.
            self.disbelieve();
        }
        let wary = self.refuted.is_some_and(|at| self.now < 3.0 * at);
        let wary = if wary { WARY } else { 1.0 };
        let ages = (age, self.typical);
        let fast = trend::runaway(&self.history, &self.scales, self.now, u, (self.top, wary), ages);
        let unsure = if self.believed.is_some() && self.news { 1.0 } else { PLAIN };
        let fast = fast.filter(|t| t.doubt <= unsure);
        // After a runaway ends, the forecast stands only if the whole history supports it.
        let over = self.news && fast.is_none();
        if over && self.believed.is_some() {
            self.refuted = Some(self.now);
        }
        let burnt = self.withdrawn.is_some_and(|at| self.now < 1.5 * at);
        let sure = policy.sure
            * match (self.believed.is_some() && !over, burnt) {
                (true, _) => 0.5,
                (false, false) => 1.0,
                (false, true) => BURNT,
            };
        let (slow, reason) = self.steady(policy, sure, u, age);
        let slow = slow.map(|t| self.bent(t));
        let slow = slow.filter(|_| self.believed.is_some() || u > self.rests_at);
        let again = self.refilling(u);
        self.reason = reason;
        let grows = [fast, slow, again].into_iter().flatten();
        let grows = grows.max_by(|a, b| a.rate.total_cmp(&b.rate));
        self.believe(grows.as_ref(), over, u);
        let room = look.room as f64;
        let burst = trend::usual(&self.scales, self.now, u, room, ages);
        // Hysteresis: a published estimate is not withdrawn the moment it would not be published
        // anew.
        let lenient = if self.due.is_some() { LENIENT } else { 1.0 };
        let all = || {
            [fast, slow, again, burst].into_iter().flatten().filter_map(|t| {
                let far = lenient * if t.new { policy.reach_new } else { policy.reach };
                let (new, near) = reach(far, &t, room)?;
                Some((new, near, t))
            })
        };
        let near = all().filter(|c| c.1).min_by(|a, b| a.0[1].total_cmp(&b.0[1]));
        // An estimate that goes out of reach is still updated until it is withdrawn.
        let far = || all().max_by(|a, b| a.0[1].total_cmp(&b.0[1])).filter(|_| self.due.is_some());
        let best = near.or_else(far);
        if let Some((_, _, t)) = best {
            self.basis = Some(Basis { growth_per_s: t.rate, window_s: t.window, is_new: t.new });
        }
        let in_doubt = grows.is_none() && self.believed.is_some();
        if let Some((new, _, t)) = best {
            self.follow(policy, new, grows.map_or(t.window, |g| g.window), in_doubt);
        }
        if near.is_some() {
            self.far_since = None;
        } else if self.due.is_some() && !in_doubt {
            self.far();
        }
    }

    /// Accepts growth as a trend, or gives it up after enough doubt. The distance to the limit does
    /// not matter: faster growth of the same shape is accepted at the same times.
    fn believe(&mut self, grows: Option<&Trend>, over: bool, u: f64) {
        let now = self.now;
        match (grows, self.believed) {
            (Some(t), believed) => {
                if believed.is_none() {
                    self.believed = Some(now);
                    self.risen = [u - t.rate * t.window, u];
                }
                self.doubt_since = None;
                self.news = t.new || (self.news && !over);
            }
            (None, Some(believed)) => {
                let since = *self.doubt_since.get_or_insert(now);
                if now - since >= (PATIENCE * (since - believed)).max(3.0 * self.typical) {
                    if self.reason == Reason::Stopped {
                        self.rests_at = self.risen[1] + GOES_ON * (self.risen[1] - self.risen[0]);
                    }
                    self.disbelieve();
                }
            }
            (None, None) => {}
        }
    }

    fn disbelieve(&mut self) {
        self.believed = None;
        self.due = None;
        self.doubt_since = None;
        self.far_since = None;
        self.withdrawn = Some(self.now);
    }

    /// The trend of the whole history, from its peaks or else its lows, and the reason if there is
    /// none.
    fn steady(&mut self, policy: &Policy, sure: f64, u: f64, age: f64) -> (Option<Trend>, Reason) {
        if age < 8.0 * self.typical {
            return (None, Reason::Learning);
        }
        let fits = match self.fits {
            Some(fits) if self.now - fits.at < DRAW_AGAIN * fits.window => fits,
            _ => Fits::new(&self.history, self.now, age),
        };
        self.fits = Some(fits);
        let mut why = Reason::Learning;
        for ends in [Ends::Peaks, Ends::Lows] {
            let Some(fit) = fits.of(ends) else { continue };
            let Some(above) = fit.above(u) else { continue };
            if fit.mean > 0.0 && fit.stopped {
                return (None, Reason::Stopped);
            }
            if fit.mean > 0.0 && fit.mean > sure * fit.error {
                let trend = Trend {
                    rate: fit.rate,
                    mean: fit.mean,
                    curve: fit.curve,
                    doubt: fit.error / fit.mean,
                    window: fits.window,
                    above,
                    new: false,
                };
                return (Some(trend), Reason::TooFar);
            }
            if ends == Ends::Peaks {
                why = self.why_not(policy, u, age, &fit, above);
            }
        }
        (None, why)
    }

    /// Replaces the curvature of a trend, which varies with noise, by its average.
    fn bent(&mut self, t: Trend) -> Trend {
        let weight = (self.typical / (EVEN_OUT * t.window)).min(1.0);
        for (even, new) in self.bend.iter_mut().zip([t.rate / t.mean, t.curve / t.mean]) {
            *even += weight * (new - *even);
        }
        Trend { rate: t.mean * self.bend[0], curve: t.mean * self.bend[1], ..t }
    }

    fn why_not(&self, policy: &Policy, u: f64, age: f64, fit: &Slope, above: f64) -> Reason {
        if above > 0.0 {
            Reason::Cleaned { at_bytes: (u + above - self.shift).max(0.0) as u64 }
        } else if fit.mean < -policy.sure * fit.error {
            Reason::Shrinks
        } else if fit.mean.abs() * age < 1e-4 * self.last.map_or(0.0, |l| l.room as f64) {
            Reason::Rests
        } else {
            Reason::NoTrend
        }
    }

    /// The growth since the volume was last full, which is accepted immediately.
    fn refilling(&self, u: f64) -> Option<Trend> {
        let (since, level) = self.again?;
        let window = self.now - since;
        let rate = (u - level) / window;
        (window > 0.0 && window >= 2.0 * self.typical && rate > 0.0).then_some(Trend {
            rate,
            mean: rate,
            curve: 0.0,
            doubt: 0.3,
            window,
            above: 0.0,
            new: true,
        })
    }

    /// Withdraws an estimate that has been out of reach for long enough.
    fn far(&mut self) {
        let since = *self.far_since.get_or_insert(self.now);
        let patience = PATIENCE * (since - self.due_since);
        if self.now - since >= patience.max(3.0 * self.typical) {
            self.due = None;
            self.far_since = None;
        }
    }

    /// Moves the published estimate smoothly towards the new one, which is based on `window`
    /// seconds of history.
    fn follow(&mut self, policy: &Policy, new: [f64; 3], window: f64, in_doubt: bool) {
        let now = self.now;
        let old = self.due;
        if old.is_none() {
            self.due_since = now;
        }
        let weight = (self.typical / (SETTLE * window)).min(1.0);
        // Starting from "never" keeps the order of any two histories: the one that fills later
        // stays later, whichever is published first. A new size changes that for both.
        let resized = std::mem::take(&mut self.resized);
        self.due = Some(std::array::from_fn(|i| {
            let want = now + new[i];
            if resized && old.is_none() {
                return want;
            }
            let moved = |o: f64| o + weight * (o.clamp(now + new[i] / STILL, want) - o);
            let due = old
                .map_or(f64::INFINITY, |o| moved(o[i]))
                .clamp(now + new[i] / policy.lag, now + new[i] * policy.hold);
            // While growth is in doubt, its published estimate is not postponed.
            if in_doubt { old.map_or(due, |o| due.min(o[i])) } else { due }
        }));
    }

    /// The present forecast.
    pub(super) fn outcome(&self) -> Outcome {
        if let Some(since_s) = self.full_since {
            return Outcome::Full { since_s };
        }
        match self.due {
            Some(due) => {
                let [lo_s, eta_s, hi_s] = due.map(|d| (d - self.now).max(0.0));
                Outcome::Fills { lo_s, eta_s, hi_s }
            }
            None => Outcome::DoesNotFill { reason: self.reason },
        }
    }

    /// Memory used, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.history.bytes() + self.scales.capacity() * size_of::<Scale>()
    }

    pub(super) fn basis(&self) -> Option<Basis> {
        self.basis.filter(|_| self.due.is_some() && self.full_since.is_none())
    }

    pub(super) fn refill(&self) -> Option<Refill> {
        self.refill
    }
}

/// Seconds to full if a trend continues: earliest, likely, latest; and whether that is within the
/// trend's reach.
fn reach(far: f64, t: &Trend, room: f64) -> Option<([f64; 3], bool)> {
    let room = (room - t.above).max(0.02 * room);
    let eta = 2.0 * room / (t.rate + (t.rate * t.rate + 4.0 * t.curve * room).sqrt());
    if eta.is_nan() || eta > FOREVER {
        return None;
    }
    // Curved growth is extrapolated less far than linear growth.
    let near = room / t.mean <= far * t.window || eta <= BEND_REACH * t.window;
    let doubt = 1.0 + 2.5 * t.doubt.min(10.0) + 0.05 * (eta / t.window).ln_1p();
    Some(([eta / doubt, eta, eta * doubt], near))
}
