//! Forecasts when a volume will be full, from the measured change of its free space.
//!
//! Pure: samples go in, a [`Forecast`] comes out, and no clock is read. Replaying a recorded
//! history through [`Forecaster::push`] gives the same forecasts as the live program. The method is
//! described in `docs/forecast.md`, its accuracy in `docs/forecast-scores.md`.

mod bursts;
mod fit;
mod history;
mod horizons;
mod limit;
mod pace;
mod scales;
mod series;
#[cfg(test)]
mod tests;
mod trend;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::limit::{Limit, LimitKind};
pub use self::pace::Pace;
use crate::units;
use series::{LimitSample, Series};

/// The usage of a limit other than `avail`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitUsage {
    /// The limit.
    pub limit: Limit,
    /// Amount used, in the limit's own unit (bytes, or number of inodes).
    pub used: u64,
    /// Maximum, in the same unit.
    pub max: u64,
}

/// One sample of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Time in seconds, on any clock. The clock may jump: see [`Forecaster::push`].
    pub time_s: f64,
    /// Size of the volume, bytes.
    pub total: u64,
    /// Bytes used.
    pub used: u64,
    /// Bytes available to ordinary users.
    pub avail: u64,
    /// Its other known limits, in any order.
    pub limits: Vec<LimitUsage>,
    /// Bytes that traced writers have allocated and freed since the previous sample, if known.
    pub flow: Option<[u64; 2]>,
}

/// How much evidence a forecast needs, and how quickly the published estimate moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// A forecast extends at most this many times as far ahead as the history that it is based on.
    pub reach: f64,
    /// The same for growth that is faster than ever before.
    pub reach_new: f64,
    /// Growth is accepted as a trend if its rate exceeds this many times its standard error.
    pub sure: f64,
    /// The published estimate keeps counting down while the new one is within this factor of it.
    pub hold: f64,
    /// The same if the new estimate is longer: good news is accepted more slowly.
    pub lag: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { reach: 6.0, reach_new: 14.0, sure: 2.5, hold: 1.4, lag: 2.0 }
    }
}

/// Why a volume does not fill in the foreseeable future.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// There is not enough history yet.
    Learning,
    /// There is no growth.
    Rests,
    /// It grew, but has stopped for longer than it ever paused before.
    Stopped,
    /// Usage shrinks.
    Shrinks,
    /// It grows and is cleaned up each time.
    Cleaned {
        /// Bytes used at which it was cleaned up.
        at_bytes: u64,
    },
    /// According to the traced writers, about as much is freed as is allocated.
    Drained {
        /// Freed / allocated.
        ratio: f64,
    },
    /// It changes, but without a significant trend.
    NoTrend,
    /// It grows too slowly, for the length of its history, to forecast when.
    TooFar,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learning => f.write_str("too little history yet"),
            Self::Rests => f.write_str("no growth"),
            Self::Stopped => f.write_str("growth has stopped"),
            Self::Shrinks => f.write_str("usage is shrinking"),
            Self::Cleaned { at_bytes } => {
                write!(
                    f,
                    "it is cleaned up each time, last at {} used",
                    units::Units::Iec.bytes(*at_bytes)
                )
            }
            Self::Drained { ratio } => {
                write!(f, "{:.0} % of allocated space is freed again", ratio * 100.0)
            }
            Self::NoTrend => f.write_str("ups and downs without lasting growth"),
            Self::TooFar => f.write_str("growth is too slow to forecast when"),
        }
    }
}

/// The forecast for one limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing is left.
    Full {
        /// Time of the first sample at which it was full.
        since_s: f64,
    },
    /// Seconds until nothing is left; it is full by then with 10 %, 50 % and 90 % probability.
    Fills {
        /// Earliest, seconds.
        lo_s: f64,
        /// Likely, seconds.
        eta_s: f64,
        /// Latest, seconds.
        hi_s: f64,
    },
    /// It does not fill in the foreseeable future.
    DoesNotFill {
        /// Why it does not fill.
        reason: Reason,
    },
}

impl Outcome {
    /// Likely seconds to full: 0 if full, `None` if it does not fill.
    #[must_use]
    pub fn eta_s(&self) -> Option<f64> {
        match self {
            Self::Full { .. } => Some(0.0),
            Self::Fills { eta_s, .. } => Some(*eta_s),
            Self::DoesNotFill { .. } => None,
        }
    }

    /// Earliest and latest seconds to full (80 % interval).
    #[must_use]
    pub fn interval_s(&self) -> Option<(f64, f64)> {
        match self {
            Self::Full { .. } => Some((0.0, 0.0)),
            Self::Fills { lo_s, hi_s, .. } => Some((*lo_s, *hi_s)),
            Self::DoesNotFill { .. } => None,
        }
    }
}

/// A clean-up whose space has since been used up again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refill {
    /// What the clean-up freed, bytes (or number of inodes).
    pub freed_bytes: u64,
    /// Time until it was used up again, seconds.
    pub gone_in_s: f64,
}

/// What a forecast is based on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// Growth, bytes per second (or inodes per second).
    pub growth_per_s: f64,
    /// Length of the history that shows it, seconds.
    pub window_s: f64,
    /// Whether the growth is faster than any before over the same length of time.
    pub is_new: bool,
}

/// The forecast for a volume after a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The forecast for the limit that is reached first.
    pub outcome: Outcome,
    /// The limit that is reached first.
    pub limit: Limit,
    /// When it is full if the present pace goes on, believed or not; `None` if it is full or does not
    /// grow now.
    pub pace: Option<Pace>,
    /// What the estimate is based on; `None` if there is no estimate.
    pub basis: Option<Basis>,
    /// The last clean-up whose space has since been used up again.
    pub refill: Option<Refill>,
}

/// Largest absolute value of a time, seconds (30,000 years): up to it, sums keep millisecond
/// precision and nothing overflows.
pub const LAST_TIME_S: f64 = 1e12;

fn is_time(time_s: f64) -> bool {
    time_s.abs() <= LAST_TIME_S
}

/// The state of one volume's forecast. Memory is bounded, see [`Forecaster::bytes`]. It can be
/// serialized, so that a restarted program continues where it was; replaying the recorded history
/// gives the same result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecaster {
    policy: Policy,
    series: Vec<(Limit, Series)>,
    /// Bytes allocated and freed by traced writers, as exponentially decaying sums.
    flow: Option<[f64; 2]>,
}

impl Forecaster {
    /// Creates a forecaster without any history.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, series: vec![(Limit::Avail, Series::new())], flow: None }
    }

    /// Adds the next sample. If the clock goes backwards or stops, that counts as one usual
    /// interval; so does a long gap in which less was written than usual (a suspended machine, a
    /// clock set forward). If the size of the volume changes, its growth is kept, but the jump of
    /// its usage is ignored. A sample whose time is not a number, or beyond [`LAST_TIME_S`], is
    /// ignored.
    pub fn push(&mut self, sample: &Sample) {
        if !is_time(sample.time_s) {
            return;
        }
        let avail = LimitSample {
            time_s: sample.time_s,
            size: sample.total,
            used: sample.used,
            available: sample.avail,
        };
        self.series[0].1.push(&self.policy, avail);
        for usage in &sample.limits {
            let next = LimitSample {
                time_s: sample.time_s,
                size: usage.max,
                used: usage.used,
                available: usage.max.saturating_sub(usage.used),
            };
            let found = self.series.iter().position(|(l, _)| *l == usage.limit);
            let at = found.unwrap_or_else(|| {
                self.series.push((usage.limit.clone(), Series::new()));
                self.series.len() - 1
            });
            self.series[at].1.push(&self.policy, next);
        }
        if let Some([wrote, freed]) = sample.flow {
            let old = self.flow.unwrap_or_default();
            self.flow = Some([0.95 * old[0] + wrote as f64, 0.95 * old[1] + freed as f64]);
        }
    }

    /// The program has just stopped or slowed down writers that caused this much growth, in bytes per
    /// second. From now on the past counts as if they had never grown, so that the forecast is that of
    /// what is left. If they go on nevertheless, that is new growth, which is seen within a few samples.
    pub fn acted(&mut self, removed_per_s: f64) {
        let growth = self.series[0].1.growth_per_s();
        if growth <= 0.0 || removed_per_s.is_nan() || removed_per_s <= 0.0 {
            return;
        }
        let removed = (removed_per_s / growth).min(1.0);
        for (_, series) in &mut self.series {
            series.acted(removed);
        }
    }

    /// The present forecast for the limit that is reached first.
    #[must_use]
    pub fn forecast(&self) -> Forecast {
        // Without a forecast, the limit that is reached first at the present pace.
        let rank = |s: &Series| {
            let pace = s.pace().map_or(f64::INFINITY, |pace| pace.eta_s);
            (s.outcome().eta_s().unwrap_or(f64::INFINITY), pace)
        };
        let (limit, series) = self
            .series
            .iter()
            .filter(|(l, _)| *l != Limit::RootReserve)
            .min_by(|a, b| {
                let (a, b) = (rank(&a.1), rank(&b.1));
                a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
            })
            .unwrap_or(&self.series[0]);
        let mut outcome = series.outcome();
        if let (
            Outcome::DoesNotFill { reason: reason @ (Reason::NoTrend | Reason::Rests) },
            Some(flow),
        ) = (&mut outcome, self.flow)
            && flow[0] > 0.0
            && flow[1] >= 0.5 * flow[0]
        {
            *reason = Reason::Drained { ratio: flow[1] / flow[0] };
        }
        Forecast {
            outcome,
            limit: limit.clone(),
            pace: series.pace(),
            basis: series.basis(),
            refill: series.refill(),
        }
    }

    /// The present forecast for each limit, including the root reserve.
    pub fn by_limit(&self) -> impl Iterator<Item = (&Limit, Outcome)> {
        self.series.iter().map(|(l, s)| (l, s.outcome()))
    }

    /// Memory used, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.series.iter().map(|(_, s)| size_of::<Series>() + s.bytes()).sum::<usize>()
    }
}
