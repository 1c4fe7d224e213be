//! The bursts and pauses of a series: how long they last, what a burst takes, and how regular that is.
//!
//! A burst is a time in which the series grows faster than its mean; what lies between is a pause. A job
//! on a schedule, a server that flushes, and a queue that is worked off are all sequences of both. With
//! their usual lengths it is known in a pause when the next burst is due, and in a burst how much of it
//! is still to come.

use serde::{Deserialize, Serialize};

use super::fit::BELOW_ONE;
use super::history::rescaled;
use super::trend::Trend;

/// A pause begins when the growth is below this share of the mean.
const PAUSE_SHARE: f64 = 0.5;
/// And lasts for more than this number of samples.
const PAUSE_STEPS: f64 = 2.5;
/// Least weight of the latest burst in the means.
const LEAST_WEIGHT: f64 = 0.2;
/// Bursts that must have ended before the next one can be foreseen.
const LEAST_CYCLES: f64 = 3.0;
/// At most this many whole cycles ahead.
const MAX_CYCLES_AHEAD: f64 = 8.0;
/// Bursts of this weight are a trend, seen over at most this many cycles.
const REGULAR_WEIGHT: f64 = 0.55;
const REGULAR_CYCLES: f64 = 6.0;
/// Only if this share of what they take stays, and they are more than this number of samples apart.
const REGULAR_STAYS: f64 = 0.05;
const REGULAR_STEPS: f64 = 4.0;
/// Share of their weight that bursts lose for each e-fold of variation.
const IRREGULAR: f64 = 0.9;
/// A phase that lasts longer than this many times its mean is not foreseen.
const MAX_OVERDUE: f64 = 2.0;

/// A mean and the mean deviation from it, as a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Usual {
    mean: f64,
    spread: f64,
}

impl Usual {
    const NONE: Self = Self { mean: 0.0, spread: 1.0 };

    fn add(&mut self, value: f64, cycles: f64) {
        let weight = (1.0 / cycles).max(LEAST_WEIGHT);
        if self.mean > 0.0 && value > 0.0 {
            let off = (value / self.mean).ln().abs().min(2.0);
            // The first deviation is the second value.
            self.spread += weight.max(1.0 / (cycles - 1.0).max(1.0)).min(1.0) * (off - self.spread);
        }
        self.mean += weight * (value - self.mean);
    }
}

/// When the volume is full, as foreseen from its bursts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Foreseen {
    /// Seconds to full.
    pub(crate) eta: f64,
    /// How much this deserves to be believed: 0 to 1.
    pub(crate) weight: f64,
    /// ln of the factor by which it may be wrong.
    pub(crate) spread: f64,
}

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bursts {
    is_burst: bool,
    /// Start of the present phase, and usage there.
    since: (f64, f64),
    /// Start of the last burst, and usage there.
    began: (f64, f64),
    /// Where growth paused within the burst, too shortly so far to end it.
    paused: Option<(f64, f64)>,
    /// Time and usage of the last sample.
    last: (f64, f64),
    /// Number of bursts that have ended.
    cycles: f64,
    /// Length of a burst and of a pause, seconds.
    burst_s: Usual,
    pause_s: Usual,
    /// Growth in a burst, and from its start to the start of the next one, bytes.
    burst_bytes: Usual,
    cycle_bytes: Usual,
}

impl Bursts {
    pub(crate) const NEW: Self = Self {
        is_burst: false,
        since: (0.0, 0.0),
        began: (0.0, 0.0),
        paused: None,
        last: (0.0, 0.0),
        cycles: 0.0,
        burst_s: Usual::NONE,
        pause_s: Usual::NONE,
        burst_bytes: Usual::NONE,
        cycle_bytes: Usual::NONE,
    };

    /// Adds a sample. `mean` is the rate over the whole history, bytes per second.
    pub(crate) fn push(&mut self, now: f64, used: f64, mean: f64, usual_step: f64) {
        let (then, before) = std::mem::replace(&mut self.last, (now, used));
        if now <= then {
            return;
        }
        let rate = (used - before) / (now - then);
        if !self.is_burst && rate > mean * BELOW_ONE && rate > 0.0 {
            if self.cycles > 0.0 {
                self.pause_s.add(then - self.since.0, self.cycles);
                self.cycle_bytes.add((before - self.began.1).max(0.0), self.cycles);
            }
            self.is_burst = true;
            self.since = (then, before);
            self.began = self.since;
        } else if self.is_burst && rate <= PAUSE_SHARE * mean {
            let paused = *self.paused.get_or_insert((then, before));
            if now - paused.0 > PAUSE_STEPS * usual_step {
                self.cycles += 1.0;
                self.burst_s.add(paused.0 - self.since.0, self.cycles);
                self.burst_bytes.add(paused.1 - self.since.1, self.cycles);
                self.is_burst = false;
                self.since = paused;
                self.paused = None;
            }
        } else {
            self.paused = None;
        }
    }

    /// Keeps only this share of all growth so far.
    pub(crate) fn rescale(&mut self, keep: f64) {
        let used = self.last.1;
        for at in [&mut self.since, &mut self.began].into_iter().chain(&mut self.paused) {
            at.1 = rescaled(at.1, used, keep);
        }
        self.burst_bytes.mean *= keep;
        self.cycle_bytes.mean *= keep;
    }

    /// Whether there was no pause yet since growth began.
    pub(crate) fn is_unbroken(&self) -> bool {
        self.is_burst && self.cycles == 0.0
    }

    /// The growth of regular bursts, which goes on although each of them ends.
    pub(crate) fn regular(&self, usual_step: f64) -> Option<Trend> {
        let (now, used) = self.last;
        let overdue = if self.is_burst {
            used - self.since.1 > MAX_OVERDUE * self.burst_bytes.mean
        } else {
            now - self.since.0 > MAX_OVERDUE * self.pause_s.mean
        };
        let period = self.burst_s.mean + self.pause_s.mean;
        let rate = self.cycle_bytes.mean / period;
        let stays = self.cycle_bytes.mean >= REGULAR_STAYS * self.burst_bytes.mean;
        let is_regular = self.cycles >= LEAST_CYCLES
            && self.weight() >= REGULAR_WEIGHT
            && stays
            && period > REGULAR_STEPS * usual_step;
        (is_regular && !overdue && rate > 0.0).then_some(Trend {
            rate,
            mean: rate,
            curve: 0.0,
            to_come: f64::MAX,
            relative_error: 0.2,
            window: self.cycles.min(REGULAR_CYCLES) * period,
            peak_gap: 0.0,
            is_new: false,
        })
    }

    /// When `available` is used up, if the bursts go on as they did.
    ///
    /// Further ahead than some bursts, growth counts with the rate `far`, bytes per second.
    pub(crate) fn foresee(&self, available: f64, far: f64) -> Option<Foreseen> {
        let (burst_s, pause_s) = (self.burst_s.mean, self.pause_s.mean);
        let (burst, cycle) = (self.burst_bytes.mean, self.cycle_bytes.mean);
        if self.cycles < LEAST_CYCLES || burst <= 0.0 || cycle <= 0.0 {
            return None;
        }
        let (now, used) = self.last;
        let lasts = now - self.since.0;
        let period = burst_s + pause_s;
        // What is freed between two bursts.
        let freed = burst - cycle;
        let (mut eta, left);
        if self.is_burst {
            let risen = used - self.since.1;
            if risen > MAX_OVERDUE * burst || lasts <= 0.0 || risen <= 0.0 {
                return None;
            }
            let rate = risen / lasts;
            // A burst that is larger than usual goes on for a while.
            let rest = (burst - risen).max(0.25 * risen);
            if available <= rest {
                return Some(self.foreseen(available / rate, self.burst_bytes.spread));
            }
            left = available - rest + freed;
            eta = rest / rate + pause_s;
        } else {
            if lasts > MAX_OVERDUE * pause_s {
                return None;
            }
            // The more regular the pauses, the better is known when this one ends.
            let known = (1.0 - 1.25 * self.pause_s.spread).max(0.0);
            left = available + (used - self.since.1) + freed;
            eta = (pause_s - known * lasts).max(0.1 * pause_s);
        }
        // Bursts that do not fill it.
        let whole = ((left - burst) / cycle).ceil().max(0.0);
        let near = whole.min(MAX_CYCLES_AHEAD);
        eta += near * period + (whole - near) * cycle / far;
        eta += ((left - whole * cycle) / burst).clamp(0.0, 1.0) * burst_s;
        Some(self.foreseen(eta, self.pause_s.spread / (1.0 + whole).sqrt()))
    }

    /// How much the bursts deserve to be believed: 0 to 1.
    fn weight(&self) -> f64 {
        let sizes = self.cycle_bytes.spread.min(self.burst_bytes.spread);
        let irregular = self.pause_s.spread.max(sizes);
        self.cycles / (self.cycles + 3.0) * (1.0 - IRREGULAR * irregular).max(0.0)
    }

    fn foreseen(&self, eta: f64, spread: f64) -> Foreseen {
        Foreseen { eta, weight: self.weight(), spread: 0.05 + 1.3 * spread }
    }
}
