//! The history of one series in bounded memory: fine-grained where recent, coarse where old.
//!
//! An exponential histogram: level 0 keeps single samples, level *n* keeps runs of 2ⁿ samples. When
//! a level is full, its two oldest runs are merged into one of the next level. A run's width is
//! therefore always between 1/64 and 1/32 of its age, whatever the sampling interval, and adding a
//! sample takes a constant amount of work (one merge on average, at most one per level).

use serde::{Deserialize, Serialize};

/// Upper limit of the time between samples and of an estimate, seconds (300 years).
pub(super) const MAX_TIME_S: f64 = 1e10;

/// Maximum number of runs of a level; beyond it, the two oldest are merged.
const WIDTH: usize = 48;
/// Number of levels: 2²⁶ × 48 samples, a century at one per second. Older samples are forgotten.
const LEVELS: usize = 26;

/// A run of consecutive samples of one series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Time of the first and of the last sample, seconds.
    pub(crate) t: [f64; 2],
    /// Value of the first and of the last sample, bytes.
    pub(crate) u: [f64; 2],
    pub(crate) max: f64,
    pub(crate) min: f64,
}

impl Run {
    fn join(self, newer: Self) -> Self {
        Self {
            t: [self.t[0], newer.t[1]],
            u: [self.u[0], newer.u[1]],
            max: self.max.max(newer.max),
            min: self.min.min(newer.min),
        }
    }
}

/// An earlier value if only the share `keep` of the growth since then had happened.
pub(crate) fn rescaled(value: f64, used: f64, keep: f64) -> f64 {
    used - keep * (used - value)
}

/// The history of one series; see the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    levels: Vec<std::collections::VecDeque<Run>>,
}

impl History {
    pub(crate) fn push(&mut self, t: f64, u: f64) {
        let mut carry = Run { t: [t, t], u: [u, u], max: u, min: u };
        for depth in 0..LEVELS {
            if self.levels.len() == depth {
                self.levels.push(std::collections::VecDeque::with_capacity(WIDTH + 1));
            }
            let level = &mut self.levels[depth];
            level.push_back(carry);
            if level.len() <= WIDTH {
                return;
            }
            let (Some(a), Some(b)) = (level.pop_front(), level.pop_front()) else { return };
            carry = a.join(b);
        }
    }

    /// Keeps only this share of all growth up to the present value `used`.
    pub(crate) fn rescale(&mut self, used: f64, keep: f64) {
        for run in self.levels.iter_mut().flatten() {
            for value in run.u.iter_mut().chain([&mut run.max, &mut run.min]) {
                *value = rescaled(*value, used, keep);
            }
        }
    }

    /// All runs, newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.levels.iter().flat_map(|l| l.iter().rev())
    }

    /// The value at a time, interpolated linearly between the samples around it; `None` before the
    /// first sample.
    pub(crate) fn at(&self, t: f64) -> Option<f64> {
        let mut newer: Option<(f64, f64)> = None;
        for level in &self.levels {
            let older = level.partition_point(|r| r.t[0] <= t);
            let next = level.get(older).map(|r| (r.t[0], r.u[0])).or(newer);
            if let Some(run) = older.checked_sub(1).and_then(|i| level.get(i)) {
                let (from, to) = if run.t[1] <= t {
                    ((run.t[1], run.u[1]), next)
                } else {
                    ((run.t[0], run.u[0]), Some((run.t[1], run.u[1])))
                };
                return Some(match to {
                    Some(to) if to.0 > from.0 => {
                        from.1 + (to.1 - from.1) * ((t - from.0) / (to.0 - from.0))
                    }
                    _ => from.1,
                });
            }
            newer = next;
        }
        None
    }

    /// Time and value of the oldest sample in memory.
    pub(crate) fn start(&self) -> Option<(f64, f64)> {
        self.levels.iter().rev().find_map(|l| l.front()).map(|r| (r.t[0], r.u[0]))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.levels.iter().map(|l| l.capacity() * size_of::<Run>()).sum::<usize>()
            + self.levels.capacity() * size_of::<std::collections::VecDeque<Run>>()
    }
}
