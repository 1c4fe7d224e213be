//! When a volume will be full, from what it really lost.
//!
//! Pure: samples go in, a [`Forecast`] comes out, nothing is read from a clock. Replaying a recorded
//! history through [`Forecaster::push`] gives what the live program gave.

mod history;
mod scales;
mod trend;

use serde::{Deserialize, Serialize};

use history::History;
use scales::{SCALES, Scale, length};
use trend::Trend;

/// One look at a volume.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds on any clock. It may jump: see [`Forecaster::push`].
    pub time_s: f64,
    /// Size, bytes.
    pub total: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that ordinary users can still take.
    pub avail: u64,
}

/// How far and how surely a growth must have shown itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// A forecast reaches at most this many times as far as what it rests on.
    pub reach: f64,
    /// Rate over its standard error from which on a growth is believed.
    pub sure: f64,
    /// The published estimate keeps counting down while the new one is within this factor of it.
    pub hold: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { reach: 10.0, sure: 2.5, hold: 1.2 }
    }
}

/// What is to be expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing is left.
    Full {
        /// Time of the sample that saw it first.
        since_s: f64,
    },
    /// Seconds until nothing is left: with 10 %, 50 % and 90 % probability it is full by then.
    Fills {
        /// Earliest, seconds.
        lo_s: f64,
        /// Likely, seconds.
        eta_s: f64,
        /// Latest, seconds.
        hi_s: f64,
    },
    /// It does not fill in the foreseeable future.
    DoesNotFill,
}

/// The state of one volume's forecast. Memory is bounded, see [`Forecaster::bytes`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecaster {
    policy: Policy,
    history: History,
    scales: Vec<Scale>,
    /// Time that counts: seconds since the first sample without gaps in which nothing happened.
    now: f64,
    last: Option<Sample>,
    typical: f64,
    /// Added to `used` so that the series has no jump when the volume itself changes.
    shift: f64,
    full_since: Option<f64>,
    /// When the volume will be full, in the time that counts: earliest, likely, latest.
    due: Option<[f64; 3]>,
    doubt_since: Option<f64>,
    due_since: f64,
}

impl Forecaster {
    /// A forecaster that has seen nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            history: History::default(),
            scales: vec![Scale::NEW; SCALES],
            now: 0.0,
            last: None,
            typical: 0.0,
            shift: 0.0,
            full_since: None,
            due: None,
            doubt_since: None,
            due_since: 0.0,
        }
    }

    /// Take in the next look.
    pub fn push(&mut self, sample: Sample) {
        if let Some(last) = self.last {
            let mut dt = sample.time_s - last.time_s;
            if dt <= 0.0 {
                dt = self.typical;
            }
            let du = sample.used as f64 - last.used as f64;
            if sample.total != last.total {
                self.shift -= du;
            } else if self.typical > 0.0 && dt > 8.0 * self.typical {
                let lost = du.max(0.0);
                let rate = self.rate();
                if lost < 0.3 * rate * dt || rate <= 0.0 {
                    dt = self.typical;
                }
            }
            if self.full_since.is_some() && du < 0.0 {
                self.shift -= du;
            }
            self.typical = if self.typical == 0.0 { dt } else { self.typical + 0.1 * (dt.min(8.0 * self.typical) - self.typical) };
            self.now += dt;
        }
        self.last = Some(sample);
        let u = sample.used as f64 + self.shift;
        self.history.push(self.now, u);
        let full = sample.avail == 0;
        if full {
            self.full_since.get_or_insert(sample.time_s);
        } else if self.full_since.take().is_some() {
            self.due = None;
        }
        let at = trend::levels(&self.history, self.now);
        let age = self.now - self.history.start().unwrap_or(self.now);
        for (k, (scale, past)) in self.scales.iter_mut().zip(&at).enumerate() {
            let d = length(k);
            if let Some(past) = past && d <= age {
                scale.see(self.now, d, u - past);
            }
        }
        if full {
            return;
        }
        let room = sample.avail as f64;
        let fast = trend::runaway(&self.history, &self.scales, &at, self.now, u, self.typical);
        let slow = self.steady(u, age);
        let best = [fast, slow]
            .into_iter()
            .flatten()
            .filter_map(|t| self.reach(&t, room))
            .min_by(|a, b| a[1].total_cmp(&b[1]));
        self.publish(best);
    }

    fn rate(&self) -> f64 {
        match (self.due, self.last) {
            (Some(due), Some(last)) => last.avail as f64 / (due[1] - self.now).max(self.typical),
            _ => 0.0,
        }
    }

    fn steady(&self, u: f64, age: f64) -> Option<Trend> {
        if age < 8.0 * self.typical {
            return None;
        }
        let (rate, error, above) = trend::slope(&self.history, self.now, u, age)?;
        (rate > 0.0 && rate > self.policy.sure * error)
            .then_some(Trend { rate, doubt: error / rate, window: age, above, new: false })
    }

    /// Seconds to full if a trend goes on: earliest, likely, latest.
    fn reach(&self, t: &Trend, room: f64) -> Option<[f64; 3]> {
        let room = (room - t.above).max(0.02 * room);
        let eta = room / t.rate;
        if eta > self.policy.reach * t.window {
            return None;
        }
        let doubt = 1.0 + 0.25 + 1.3 * t.doubt;
        Some([eta / doubt, eta, eta * doubt])
    }

    /// Let the published estimate follow the new one, calmly.
    fn publish(&mut self, new: Option<[f64; 3]>) {
        let now = self.now;
        match new {
            Some(new) => {
                self.doubt_since = None;
                let hold = self.policy.hold;
                let old = self.due;
                if old.is_none() {
                    self.due_since = now;
                }
                let due = std::array::from_fn(|i| {
                    let want = now + new[i];
                    old.map_or(want, |o| o[i].clamp(now + new[i] / hold, now + new[i] * hold))
                });
                self.due = Some(due);
            }
            None => {
                if self.due.is_some() {
                    let since = *self.doubt_since.get_or_insert(now);
                    let patience = (0.05 * (since - self.due_since)).max(3.0 * self.typical);
                    if now - since >= patience {
                        self.due = None;
                        self.doubt_since = None;
                    }
                }
            }
        }
    }

    /// What is to be expected now.
    #[must_use]
    pub fn forecast(&self) -> Outcome {
        if let Some(since_s) = self.full_since {
            return Outcome::Full { since_s };
        }
        match self.due {
            Some(due) => {
                let [lo_s, eta_s, hi_s] = due.map(|d| (d - self.now).max(0.0));
                Outcome::Fills { lo_s, eta_s, hi_s }
            }
            None => Outcome::DoesNotFill,
        }
    }

    /// Memory held, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.history.bytes() + self.scales.capacity() * size_of::<Scale>()
    }
}
