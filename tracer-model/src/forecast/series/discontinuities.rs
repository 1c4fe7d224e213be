//! Separates growth from everything else in a sample: clock jumps, resized volumes and clean-ups.

use super::super::Refill;
use super::super::history::MAX_TIME_S;
use super::super::scales::length;
use super::{CleanUp, LimitSample, SPACE_AGAIN_SHARE, Series};

/// Share of the size that must be freed in one sample to count as a clean-up if the volume is not
/// full.
const CLEAN_UP_SHARE: f64 = 0.02;

impl Series {
    /// Advances the effective time, and keeps the series continuous across changes that are not
    /// growth. Returns the change of the usage.
    pub(super) fn advance(&mut self, sample: &LimitSample) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let mut dt = sample.time_s - last.time_s;
        if !(dt > 0.0 && dt < MAX_TIME_S) {
            dt = self.usual_step;
        }
        let change = sample.used as f64 - last.used as f64;
        if sample.size != last.size {
            // Enlarged, shrunk or another volume: the difference in usage is not growth.
            self.offset -= change;
            self.full_at = None;
            self.was_resized = true;
        } else if self.usual_step > 0.0
            && dt > 8.0 * self.usual_step
            && change < self.idle_growth(dt)
        {
            // The machine was suspended, or the clock was set: this time does not count.
            dt = self.usual_step;
        }
        if self.full_since.is_some() && change < 0.0 {
            self.offset -= change;
        }
        self.usual_step = if self.usual_step == 0.0 {
            dt
        } else {
            self.usual_step + 0.1 * (dt.min(8.0 * self.usual_step) - self.usual_step)
        };
        self.now += dt;
        change
    }

    /// Detects clean-ups, and that the space of one has been used up again. `used` is the usage in
    /// the series, `change` its change in this sample.
    pub(super) fn track_clean_ups(&mut self, sample: &LimitSample, used: f64, change: f64) {
        if let Some(clean_up) = self.clean_up
            && used >= clean_up.level - 0.02 * clean_up.freed
        {
            let gone_in_s = self.now - clean_up.at;
            self.refill = Some(Refill { freed_bytes: clean_up.freed as u64, gone_in_s });
            self.clean_up = None;
        }
        // A clean-up takes some time: as long as usage falls, it is the same one.
        if let Some(clean_up) = self.clean_up.as_mut().filter(|clean_up| clean_up.is_running) {
            clean_up.is_running = change < 0.0;
            if clean_up.is_running {
                (clean_up.freed, clean_up.at) = (clean_up.freed - change, self.now);
                return;
            }
        }
        let least = if self.full_since.is_some() { SPACE_AGAIN_SHARE } else { CLEAN_UP_SHARE };
        // Drops like this that happen all the time are a sawtooth, not a clean-up.
        let is_usual = || {
            self.scales.iter().any(|s| s.past_extremes().is_some_and(|past| past.1 < 0.5 * change))
        };
        if change < -least * sample.size as f64
            && (self.full_since.is_some() || (self.full_at.is_some() && !is_usual()))
        {
            self.clean_up = Some(CleanUp {
                level: used - change,
                freed: -change,
                at: self.now,
                is_running: true,
            });
        }
    }

    /// Growth, in bytes, below which a gap of `dt` seconds counts as one usual interval. It is the
    /// geometric mean of the growth expected in one interval and in `dt`; without a forecast, the
    /// largest growth so far over one or two intervals.
    fn idle_growth(&self, dt: f64) -> f64 {
        if self.full_at.is_some() {
            return self.implied_rate() * (dt * self.usual_step).sqrt();
        }
        let mut scales =
            self.scales.iter().enumerate().filter(|s| length(s.0) >= 2.0 * self.usual_step);
        scales.find_map(|s| s.1.past_extremes()).map_or(0.0, |(most, _)| most.max(0.0))
    }

    /// Growth that the published estimate implies, bytes per second.
    fn implied_rate(&self) -> f64 {
        match (self.full_at, self.last) {
            (Some(full_at), Some(last)) => {
                last.available as f64 / (full_at[1] - self.now).max(self.usual_step)
            }
            _ => f64::INFINITY,
        }
    }
}
