//! How fast the series grows over each horizon, and how far off that was so far.
//!
//! For horizons of 2ᵏ seconds, several *experts* predict the growth over the horizon: each continues the
//! mean rate of a window, from a quarter of the horizon up to the whole history. What an expert would
//! have said one horizon ago can be read from the history, so each horizon knows how wrong its experts
//! were lately. Their mean, weighted by that, is the rate for the horizon: the latest rate where that
//! has held, the mean of several bursts where it has not. (Prediction with expert advice; the weights
//! are a power of the discounted loss, as in Cesa-Bianchi and Lugosi, *Prediction, learning, and games*
//! 2006, 2.1.)
//!
//! The errors of that mean are followed by quantile trackers with the update of adaptive conformal
//! inference (Gibbs and Candès 2021, "Adaptive conformal inference under distribution shift"), applied
//! to the quantile itself as in Angelopoulos, Candès and Tibshirani 2023 ("Conformal PID control for
//! time series prediction", the P part). They correct the estimate and give its interval.

use serde::{Deserialize, Serialize};

use super::fit::BELOW_ONE;
use super::history::{History, rescaled};

/// Octaves from 2⁻⁴ s to 2²⁶ s (two years).
pub(crate) const HORIZONS: usize = 31;
/// Windows of the experts, as multiples of the horizon. One more expert uses the whole history.
const WINDOWS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Another continues the present pace.
const EXPERTS: usize = WINDOWS.len() + 2;
const WHOLE: usize = WINDOWS.len();
/// A horizon is updated again after this share of its length.
const UPDATE_SHARE: f64 = 0.25;
/// Horizons of fewer samples are not followed.
pub(crate) const LEAST_STEPS: f64 = 7.9;
/// Past errors lose weight by this factor with each update.
const MEMORY: f64 = 0.9;
/// Weight of an expert: its relative error, plus [`LEAST_ERROR`], to the power of minus this.
const SHARPNESS: i32 = 3;
const LEAST_ERROR: f64 = 0.02;
/// Weight of the latest value in [`Horizon::excess`].
const EXCESS_STEP: f64 = 0.05;
/// The quantiles that are followed.
const LEVELS: [f64; 3] = [0.1, 0.5, 0.9];
/// Step of the trackers, in units of the logarithm.
const STEP: f64 = 0.12;
/// Errors nearer than this to a quantile move it less.
const NEAR: f64 = 0.1;
/// Largest logarithm of an error.
const MAX_ERROR: f64 = 2.0;

/// Length of horizon `k` in seconds.
pub(crate) fn length(k: usize) -> f64 {
    (k as f64 - 4.0).exp2()
}

/// What was learned from moments of one kind: while the growth was faster than its mean, or slower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Discounted sum of the errors of each expert, bytes.
    losses: [f64; EXPERTS],
    /// Discounted sum of the changes, bytes, and number of updates.
    moved: f64,
    updates: f64,
    /// Relative error of each expert, from this horizon and from shorter ones.
    errors: [f64; EXPERTS],
    /// Quantiles of ln(growth / predicted growth).
    quantiles: [f64; 3],
    /// Number of updates of the quantiles.
    judged: f64,
}

impl Record {
    const NEW: Self = Self {
        losses: [0.0; EXPERTS],
        moved: 0.0,
        updates: 0.0,
        errors: [0.5; EXPERTS],
        quantiles: [-0.3, 0.0, 0.3],
        judged: 0.0,
    };

    fn weights(&self) -> [f64; EXPERTS] {
        let raw = self.errors.map(|e| 1.0 / (e + LEAST_ERROR).powi(SHARPNESS));
        let sum: f64 = raw.iter().sum();
        raw.map(|w| w / sum)
    }

    /// Compares what was predicted one horizon ago with what happened.
    fn judge(&mut self, predicted: [f64; EXPERTS], actual: f64) {
        self.updates = MEMORY * self.updates + 1.0;
        self.moved = MEMORY * self.moved + actual.abs();
        for (loss, predicted) in self.losses.iter_mut().zip(predicted) {
            *loss = MEMORY * *loss + (actual - predicted).abs();
        }
        let weights = self.weights();
        let mean: f64 = weights.iter().zip(predicted).map(|(w, p)| w * p).sum();
        let usual = self.moved / self.updates;
        if mean <= 0.1 * usual {
            return;
        }
        let error = (actual / mean).max(0.0).ln().clamp(-MAX_ERROR, MAX_ERROR);
        self.judged += 1.0;
        // Larger steps at first, so that the trackers do not have to crawl to where they belong.
        let step = STEP * (1.0 + 4.0 / self.judged);
        for (quantile, level) in self.quantiles.iter_mut().zip(LEVELS) {
            let off = error - *quantile;
            // Near the quantile the steps are smaller, so that exact growth stays exact.
            let step = step * (off.abs() / NEAR).min(1.0);
            *quantile += step * (level - if off < 0.0 { 1.0 } else { 0.0 });
        }
        self.quantiles[0] = self.quantiles[0].min(self.quantiles[1]);
        self.quantiles[2] = self.quantiles[2].max(self.quantiles[1]);
    }

    /// Combines the errors of this horizon with those of the shorter ones.
    fn pool(&mut self, shorter: &[f64; EXPERTS]) {
        let own = if self.moved > 0.0 { UPDATE_SHARE * self.updates } else { 0.0 };
        for (i, error) in self.errors.iter_mut().enumerate() {
            let here = if own > 0.0 { self.losses[i] / self.moved } else { 0.0 };
            *error = (own * here + shorter[i]) / (own + 1.0);
        }
    }
}

/// The growth over one horizon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Horizon {
    due_at: f64,
    /// What was learned while the growth was slower than its mean, and while it was faster.
    records: [Record; 2],
    /// Which of them applies now.
    is_fast: bool,
    /// The present rate, bytes per second.
    pub(crate) rate: f64,
    /// Highest value in each of the last quarters of the horizon.
    highest: [f64; 4],
    /// The present pace at the end of each of them, bytes per second; [`f64::MAX`] before the first.
    paces: [f64; 4],
    /// Mean of how far the highest value within the horizon was above the last one, bytes.
    pub(crate) excess: f64,
}

impl Horizon {
    const NEW: Self = Self {
        due_at: f64::MIN,
        records: [Record::NEW; 2],
        is_fast: false,
        rate: 0.0,
        highest: [f64::MIN; 4],
        paces: [f64::MAX; 4],
        excess: 0.0,
    };

    /// Quantiles of ln(growth / predicted growth), at moments like this one.
    pub(crate) fn quantiles(&self) -> [f64; 3] {
        self.records[usize::from(self.is_fast)].quantiles
    }
}

/// The growth over all horizons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Horizons(Vec<Horizon>);

impl Horizons {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// The growth over horizon `k`; `None` if the history is shorter.
    pub(crate) fn get(&self, k: usize) -> Option<&Horizon> {
        self.0.get(k)
    }

    /// How far off the growth was over horizons up to `eta` seconds: half of the widest interval, as a
    /// logarithm. It grows with `eta`.
    pub(crate) fn doubt(&self, eta: f64) -> f64 {
        let mut widest = 0.0f64;
        for (k, horizon) in self.0.iter().enumerate() {
            if length(k) > eta {
                break;
            }
            let record = &horizon.records[usize::from(horizon.is_fast)];
            if record.judged > 0.0 {
                widest = widest.max(0.5 * (record.quantiles[2] - record.quantiles[0]));
            }
        }
        widest
    }

    /// Updates the horizons that are due, with the history up to `now`, `age` seconds long, that ends
    /// with `used`. `pace` is the present pace, bytes per second.
    pub(crate) fn update(
        &mut self,
        history: &History,
        (now, used): (f64, f64),
        (age, usual_step): (f64, f64),
        pace: f64,
    ) {
        let least = 2.0 * usual_step;
        let at = |back: f64| history.at(now - back).unwrap_or(used);
        let first = history.start().map_or(used, |start| start.1);
        let mean = (used - first) / age;
        let mut shorter = [Record::NEW.errors; 2];
        let mut highest = [used; 2];
        while self.0.len() < HORIZONS && length(self.0.len()) <= age {
            self.0.reserve_exact(1);
            self.0.push(Horizon::NEW);
        }
        for (k, horizon) in self.0.iter_mut().enumerate() {
            let h = length(k);
            if h < LEAST_STEPS * usual_step {
                continue;
            }
            if now >= horizon.due_at {
                horizon.due_at = now + UPDATE_SHARE * h;
                horizon.highest.rotate_right(1);
                // The highest value since the last update is that of the horizon of a quarter's length.
                horizon.highest[0] = highest[0];
                let window = |expert: usize, longest: f64| {
                    WINDOWS.get(expert).map_or(longest, |share| (share * h).max(least).min(longest))
                };
                let before = |back: f64| if back >= age { first } else { at(back) };
                let then = age - h;
                if then >= least {
                    let base = at(h);
                    let mut rates: [f64; EXPERTS] = std::array::from_fn(|i| {
                        let w = window(i.min(WHOLE), then);
                        (base - before(h + w)) / w
                    });
                    if horizon.paces[3] < f64::MAX {
                        rates[EXPERTS - 1] = horizon.paces[3];
                    }
                    let was_fast = rates[0] > rates[WHOLE] * BELOW_ONE;
                    let record = &mut horizon.records[usize::from(was_fast)];
                    record.judge(rates.map(|rate| rate * h), used - base);
                }
                horizon.paces.rotate_right(1);
                horizon.paces[0] = pace;
                for (record, shorter) in horizon.records.iter_mut().zip(&shorter) {
                    record.pool(shorter);
                }
                let rates: [f64; EXPERTS] = std::array::from_fn(|i| {
                    let w = window(i, age);
                    if i > WHOLE { pace } else { (used - before(w)) / w }
                });
                horizon.is_fast = rates[0] > mean * BELOW_ONE;
                let weights = horizon.records[usize::from(horizon.is_fast)].weights();
                horizon.rate = weights.iter().zip(rates).map(|(w, rate)| w * rate).sum();
                let top = horizon.highest.iter().copied().fold(used, f64::max);
                horizon.excess += EXCESS_STEP * (top - used - horizon.excess);
            }
            shorter = [horizon.records[0].errors, horizon.records[1].errors];
            highest = [highest[1], horizon.highest.iter().copied().fold(used, f64::max)];
        }
    }

    /// Keeps only this share of all growth up to the present value `used`.
    pub(crate) fn rescale(&mut self, used: f64, keep: f64) {
        for horizon in &mut self.0 {
            for record in &mut horizon.records {
                record.losses = record.losses.map(|loss| loss * keep);
                record.moved *= keep;
            }
            horizon.rate *= keep;
            horizon.excess *= keep;
            horizon.highest = horizon.highest.map(|value| rescaled(value, used, keep));
            let unknown = |pace: f64| if pace < f64::MAX { pace * keep } else { pace };
            horizon.paces = horizon.paces.map(unknown);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Horizon>()
    }
}
