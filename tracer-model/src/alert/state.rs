//! Per-volume and per-directory state that the rules keep from one Snapshot to the next.

use std::collections::VecDeque;

use crate::snapshot::{Refill, Volume, Writer};
use crate::verdict::Conclusion;

/// Time constant of the smoothed growth, seconds.
const GROWTH_TIME_CONSTANT_S: f64 = 10.0;
/// Available space is compared with its value this long ago, seconds...
const SHRINK_WINDOW_S: f64 = 600.0;
/// ... and recorded in steps of this, seconds.
const SAMPLE_INTERVAL_S: f64 = 30.0;
/// Losing this share of the available space within [`SHRINK_WINDOW_S`] counts as shrinking, whatever
/// the forecast; less is the noise of a volume that is not growing.
const SHRINKING_SHARE: f64 = 0.05;
/// A clean-up whose space was used up again is reported for at least this long, seconds.
const REFILL_REPORT_S: f64 = 600.0;

/// The state of one volume.
#[derive(Debug, Clone, Default)]
pub(super) struct VolumeState {
    /// What is concluded from the last Snapshot.
    pub(super) conclusion: Option<Conclusion>,
    /// Smoothed growth.
    pub(super) growth_bytes_per_s: f64,
    /// Writes of the interval that failed for lack of space or quota.
    pub(super) no_space_errors: u64,
    /// Writes of the interval that failed for any reason.
    pub(super) write_errors: u64,
    /// The longest fsync of the interval, seconds.
    pub(super) fsync_s: f64,
    avail: VecDeque<(f64, u64)>,
    /// The last refill seen, including one that was already known at the start.
    refill: Option<Refill>,
    refill_until: f64,
    has_sample: bool,
}

impl VolumeState {
    /// Adds a sample taken at `now`, `dt` seconds after the last one, with the volume's writers.
    pub(super) fn update(&mut self, now: f64, dt: f64, volume: &Volume, writers: &[&Writer]) {
        (self.no_space_errors, self.write_errors) = (0, 0);
        self.fsync_s = 0.0;
        for row in writers {
            self.no_space_errors += row.errors.no_space();
            self.write_errors += row.errors.total();
            self.fsync_s = row.fsync.map_or(0.0, |fsync| fsync.max_ms / 1000.0).max(self.fsync_s);
        }
        let weight = if self.has_sample { 1.0 - (-dt / GROWTH_TIME_CONSTANT_S).exp() } else { 1.0 };
        self.growth_bytes_per_s += weight * (volume.growth_bytes_per_s - self.growth_bytes_per_s);
        if self.avail.back().is_none_or(|(last, _)| now - last >= SAMPLE_INTERVAL_S) {
            self.avail.push_back((now, volume.avail_bytes));
        }
        while self.avail.len() > 1 && now - self.avail[0].0 > SHRINK_WINDOW_S {
            self.avail.pop_front();
        }
        if volume.refill != self.refill {
            let gone_in = volume.refill.map_or(0.0, |refill| refill.gone_in_s);
            // A refill from before filltop started is not reported.
            if self.has_sample && volume.refill.is_some() {
                self.refill_until = now + gone_in.max(REFILL_REPORT_S);
            }
            self.refill = volume.refill;
        }
        self.has_sample = true;
    }

    /// Whether the available space shrinks, or none is left.
    pub(super) fn shrinks(&self, volume: &Volume) -> bool {
        let lost = self.avail.front().is_some_and(|(_, then)| {
            (volume.avail_bytes as f64) < (1.0 - SHRINKING_SHARE) * *then as f64
        });
        volume.full || volume.eta_s.is_some() || lost
    }

    /// Seconds until the space freed by the last clean-up was used up again; infinite if there was
    /// no such clean-up lately.
    pub(super) fn refilled_in_s(&self, now: f64) -> f64 {
        match self.refill {
            Some(refill) if now < self.refill_until => refill.gone_in_s,
            _ => f64::INFINITY,
        }
    }
}

/// The state of one directory.
#[derive(Debug, Clone, Default)]
pub(super) struct DirectoryState {
    /// Inflow and outflow, bytes, decaying.
    flow: [f64; 2],
    sizes: VecDeque<(f64, u64)>,
}

impl DirectoryState {
    /// Adds the flow of an interval of `dt` seconds. The caller derives `time_constant_s`, that of the
    /// decay, from the rule's own delay.
    pub(super) fn add_flow(&mut self, dt: f64, time_constant_s: f64, inflow: u64, outflow: u64) {
        let keep = (-dt.max(0.0) / time_constant_s).exp();
        for (sum, new) in self.flow.iter_mut().zip([inflow, outflow]) {
            *sum = *sum * keep + new as f64;
        }
    }

    /// outflow / inflow; infinite if the inflow is negligible.
    pub(super) fn drain(&self) -> f64 {
        const NEGLIGIBLE_BYTES: f64 = 1e6;
        if self.flow[0] < NEGLIGIBLE_BYTES { f64::INFINITY } else { self.flow[1] / self.flow[0] }
    }

    /// Growth within the last `per_s` seconds, or since the first sample, bytes.
    pub(super) fn growth_within(&mut self, now: f64, per_s: f64, bytes: u64) -> f64 {
        if self.sizes.back().is_none_or(|(last, _)| now - last >= per_s / 120.0) {
            self.sizes.push_back((now, bytes));
        }
        while self.sizes.len() > 1 && now - self.sizes[0].0 > per_s {
            self.sizes.pop_front();
        }
        let then = self.sizes.front().map_or(bytes, |(_, then)| *then);
        bytes as f64 - then as f64
    }
}
