//! When a volume will be full, from what it really lost.
//!
//! Pure: samples go in, a [`Forecast`] comes out, nothing is read from a clock. Replaying a recorded
//! history through [`Forecaster::push`] gives what the live program gave. How it works and how well is
//! in `docs/forecast.md` and `docs/forecast-scores.md`.

mod history;
mod scales;
mod series;
#[cfg(test)]
mod tests;
mod trend;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units;
use series::{Look, Series};

/// What can run out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// What ordinary users can still take.
    Avail,
    /// What root can still take: `avail` and the reserved blocks.
    RootReserve,
    /// File entries.
    Inodes,
    /// A quota, by its name.
    Quota(String),
    /// The pool under a thin volume, by its name.
    ThinPool(String),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Avail => f.write_str("avail"),
            Self::RootReserve => f.write_str("root-reserve"),
            Self::Inodes => f.write_str("inodes"),
            Self::Quota(name) => write!(f, "quota {name}"),
            Self::ThinPool(name) => write!(f, "thin-pool {name}"),
        }
    }
}

/// A limit besides `avail` with how much of it is taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    /// Which limit.
    pub limit: Limit,
    /// Taken, in the limit's own unit (bytes, or entries for inodes).
    pub used: u64,
    /// The most that can be taken, same unit.
    pub max: u64,
}

/// One look at a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds on any clock. It may jump: see [`Forecaster::push`].
    pub time_s: f64,
    /// Size, bytes.
    pub total: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that ordinary users can still take.
    pub avail: u64,
    /// The other limits known of it, in any order.
    pub gauges: Vec<Gauge>,
    /// Bytes that traced writers allocated and freed since the sample before, where that is known.
    pub flow: Option<[u64; 2]>,
}

/// How far and how surely a growth must have shown itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// A forecast reaches at most this many times as far as what it rests on.
    pub reach: f64,
    /// The same for a growth faster than ever before.
    pub reach_new: f64,
    /// Rate over its standard error from which on a growth is believed.
    pub sure: f64,
    /// The published estimate keeps counting down while the new one is within this factor of it.
    pub hold: f64,
    /// The same, when the new one is that much longer: good news is believed later.
    pub lag: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { reach: 4.5, reach_new: 14.0, sure: 2.5, hold: 1.4, lag: 1.5 }
    }
}

/// Why a volume does not fill in the foreseeable future.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// Too little was seen yet.
    Learning,
    /// Nothing grows.
    Rests,
    /// It grew and has stopped, for longer than it ever paused.
    Stopped,
    /// It gets emptier.
    Shrinks,
    /// It grows and is cleaned again each time.
    Cleaned {
        /// Bytes in use at which it turned back.
        at_bytes: u64,
    },
    /// What is freed keeps up with what is allocated, as the traced writers show.
    Drained {
        /// Freed over allocated.
        ratio: f64,
    },
    /// It moves, but no growth stands out.
    NoTrend,
    /// It grows too slowly for what was seen of it to tell when.
    TooFar,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learning => f.write_str("too little history yet"),
            Self::Rests => f.write_str("nothing grows"),
            Self::Stopped => f.write_str("it grew but has stopped"),
            Self::Shrinks => f.write_str("it gets emptier"),
            Self::Cleaned { at_bytes } => {
                write!(
                    f,
                    "it was cleaned each time, last at {} in use",
                    units::Units::Iec.bytes(*at_bytes)
                )
            }
            Self::Drained { ratio } => {
                write!(f, "{:.0} % of what is written is freed again", ratio * 100.0)
            }
            Self::NoTrend => f.write_str("ups and downs without a lasting growth"),
            Self::TooFar => f.write_str("it grows too slowly to tell from what was seen"),
        }
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
    DoesNotFill {
        /// Why not.
        reason: Reason,
    },
}

impl Outcome {
    /// Likely seconds to full: 0 at full, `None` where it does not fill.
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

/// A clean-up whose space was taken again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refill {
    /// What the clean-up had freed, bytes (entries for inodes).
    pub freed_bytes: u64,
    /// How soon it was gone, seconds.
    pub gone_in_s: f64,
}

/// What a forecast rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// Growth, bytes a second (entries a second for inodes).
    pub growth_per_s: f64,
    /// Seconds of history that show it.
    pub window_s: f64,
    /// True for a growth faster than anything seen before over the same time.
    pub is_new: bool,
}

/// What is known after a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// What is to be expected of the limit that comes first.
    pub outcome: Outcome,
    /// Which limit that is.
    pub limit: Limit,
    /// What an estimate rests on, `None` where there is none.
    pub basis: Option<Basis>,
    /// The last clean-up that was in vain.
    pub refill: Option<Refill>,
}

/// Times are within so many seconds before and after zero, 30,000 years: what is added to them loses no
/// milliseconds, and nothing overflows.
pub const LAST_TIME_S: f64 = 1e12;

fn is_time(time_s: f64) -> bool {
    time_s.abs() <= LAST_TIME_S
}

/// The state of one volume's forecast. Memory is bounded, see [`Forecaster::bytes`]; it serialises, so
/// that a restarted program goes on where it was (or feed it the recorded history again: same result).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecaster {
    policy: Policy,
    series: Vec<(Limit, Series)>,
    /// Allocated and freed by traced writers, fading.
    flow: Option<[f64; 2]>,
}

impl Forecaster {
    /// A forecaster that has seen nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, series: vec![(Limit::Avail, Series::new())], flow: None }
    }

    /// Take in the next look. A clock that goes backwards or stands still counts as one usual
    /// interval; so does a long gap in which less was written than usual (a suspended machine, a clock
    /// set forward). A volume whose size changes keeps its growth but not the jump of what is used.
    /// A sample whose time is not a number, or beyond all dates ([`LAST_TIME_S`]), is left out.
    pub fn push(&mut self, sample: &Sample) {
        if !is_time(sample.time_s) {
            return;
        }
        let look = Look {
            time_s: sample.time_s,
            size: sample.total,
            taken: sample.used,
            room: sample.avail,
        };
        self.series[0].1.push(&self.policy, look);
        for gauge in &sample.gauges {
            let look = Look {
                time_s: sample.time_s,
                size: gauge.max,
                taken: gauge.used,
                room: gauge.max.saturating_sub(gauge.used),
            };
            let found = self.series.iter().position(|(l, _)| *l == gauge.limit);
            let at = found.unwrap_or_else(|| {
                self.series.push((gauge.limit.clone(), Series::new()));
                self.series.len() - 1
            });
            self.series[at].1.push(&self.policy, look);
        }
        if let Some([wrote, freed]) = sample.flow {
            let old = self.flow.unwrap_or_default();
            self.flow = Some([0.95 * old[0] + wrote as f64, 0.95 * old[1] + freed as f64]);
        }
    }

    /// What is to be expected now, of the limit that comes first.
    #[must_use]
    pub fn forecast(&self) -> Forecast {
        let rank = |s: &Series| s.outcome().eta_s().unwrap_or(f64::INFINITY);
        let (limit, series) = self
            .series
            .iter()
            .filter(|(l, _)| *l != Limit::RootReserve)
            .min_by(|a, b| rank(&a.1).total_cmp(&rank(&b.1)))
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
        Forecast { outcome, limit: limit.clone(), basis: series.basis(), refill: series.refill() }
    }

    /// What is to be expected of each limit, root's reserve too.
    pub fn by_limit(&self) -> impl Iterator<Item = (&Limit, Outcome)> {
        self.series.iter().map(|(l, s)| (l, s.outcome()))
    }

    /// Memory held, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.series.iter().map(|(_, s)| size_of::<Series>() + s.bytes()).sum::<usize>()
    }
}
