//! A volume's past in bounded memory: fine where it is recent, coarse where it is old.
//!
//! An exponential histogram: level 0 keeps single samples, level *n* runs of 2ⁿ of them. A level that
//! is full gives its two oldest to the next. So a run's width is always between 1/64 and 1/32 of its
//! age, whatever the sampling interval, and a sample costs a constant amount of work (one merge on
//! average, at most one per level).

use serde::{Deserialize, Serialize};

/// Runs a level holds before its two oldest are merged.
const WIDTH: usize = 48;
/// Levels: 2²⁶ × 48 samples, a century at one a second. What is older is forgotten.
const LEVELS: usize = 26;

/// Consecutive samples of one series, summed up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Time of the first and of the last sample, seconds.
    pub(crate) t: [f64; 2],
    /// Value at the first and at the last sample, bytes.
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

/// See the module.
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

    /// Newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.levels.iter().flat_map(|l| l.iter().rev())
    }

    /// Value at a time, on the line between the two looks around it; `None` before the first.
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

    /// Time and value of the oldest look that is remembered.
    pub(crate) fn start(&self) -> Option<(f64, f64)> {
        self.levels.iter().rev().find_map(|l| l.front()).map(|r| (r.t[0], r.u[0]))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.levels.iter().map(|l| l.capacity() * size_of::<Run>()).sum::<usize>()
            + self.levels.capacity() * size_of::<std::collections::VecDeque<Run>>()
    }
}
