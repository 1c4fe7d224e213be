//! Per-volume and per-directory state that the rules keep from one Snapshot to the next.

use std::collections::VecDeque;

use super::culprits::Blame;
use crate::snapshot::{Refill, Volume, Writer};

/// Time constant of the smoothed growth, seconds.
const GROWTH_FADE_S: f64 = 10.0;
/// Available space is compared with its value this long ago, seconds...
const LOOK_BACK_S: f64 = 600.0;
/// ... and recorded in steps of this, seconds.
const STEP_S: f64 = 30.0;
/// Losing this share of the available space within [`LOOK_BACK_S`] counts as shrinking, whatever
/// the forecast; less is the noise of a volume that is not growing.
const SHRINKS: f64 = 0.05;
/// A clean-up whose space was used up again is reported for at least this long, seconds.
const REFILL_NEWS_S: f64 = 600.0;

/// The state of one volume.
#[derive(Debug, Clone, Default)]
pub(super) struct VolumeMemory {
    pub(super) blame: Blame,
    pub(super) growth: f64,
    /// Failed writes of the interval: for lack of space, and all.
    pub(super) errors: [u64; 2],
    /// The longest fsync of the interval, seconds.
    pub(super) fsync_s: f64,
    avail: VecDeque<(f64, u64)>,
    /// The last refill seen, including one that was already known at the start.
    refill: Option<Refill>,
    refill_until: f64,
    seen: bool,
}

impl VolumeMemory {
    /// Adds a sample taken at `now`, `dt` seconds after the last one, with the volume's writers.
    pub(super) fn see(&mut self, now: f64, dt: f64, volume: &Volume, writers: &[&Writer]) {
        self.errors = [0; 2];
        self.fsync_s = 0.0;
        for row in writers {
            self.errors[0] += row.errors.no_space();
            self.errors[1] += row.errors.total();
            self.fsync_s = row.fsync.map_or(0.0, |fsync| fsync.max_ms / 1000.0).max(self.fsync_s);
        }
        let weight = if self.seen { 1.0 - (-dt / GROWTH_FADE_S).exp() } else { 1.0 };
        self.growth += weight * (volume.growth_bytes_per_s - self.growth);
        if self.avail.back().is_none_or(|(last, _)| now - last >= STEP_S) {
            self.avail.push_back((now, volume.avail_bytes));
        }
        while self.avail.len() > 1 && now - self.avail[0].0 > LOOK_BACK_S {
            self.avail.pop_front();
        }
        if volume.refill != self.refill {
            let gone_in = volume.refill.map_or(0.0, |refill| refill.gone_in_s);
            // A refill from before filltop started is not reported.
            if self.seen && volume.refill.is_some() {
                self.refill_until = now + gone_in.max(REFILL_NEWS_S);
            }
            self.refill = volume.refill;
        }
        self.seen = true;
    }

    /// Whether the available space shrinks, or none is left.
    pub(super) fn shrinks(&self, volume: &Volume) -> bool {
        let lost = self
            .avail
            .front()
            .is_some_and(|(_, then)| (volume.avail_bytes as f64) < (1.0 - SHRINKS) * *then as f64);
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
pub(super) struct DirMemory {
    /// Inflow and outflow, bytes, decaying.
    flow: [f64; 2],
    sizes: VecDeque<(f64, u64)>,
}

impl DirMemory {
    /// Adds the flow of an interval of `dt` seconds. `fade_s` is the time constant of the decay; it
    /// follows the rule's own delay.
    pub(super) fn flowed(&mut self, dt: f64, fade_s: f64, inflow: u64, outflow: u64) {
        let keep = (-dt.max(0.0) / fade_s).exp();
        for (sum, new) in self.flow.iter_mut().zip([inflow, outflow]) {
            *sum = *sum * keep + new as f64;
        }
    }

    /// outflow / inflow; infinite if the inflow is negligible.
    pub(super) fn drain(&self) -> f64 {
        const NOTHING: f64 = 1e6;
        if self.flow[0] < NOTHING { f64::INFINITY } else { self.flow[1] / self.flow[0] }
    }

    /// Growth within the last `per_s` seconds, or since the first sample, bytes.
    pub(super) fn grown(&mut self, now: f64, per_s: f64, bytes: u64) -> f64 {
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
