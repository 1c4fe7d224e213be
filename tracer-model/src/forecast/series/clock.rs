//! Separates growth from everything else in a sample: clock jumps, resized volumes and clean-ups.

use super::super::Refill;
use super::super::scales::length;
use super::{CleanUp, FOREVER, Look, SPACE_AGAIN, Series};

/// Share of the size that must be freed in one sample to count as a clean-up if the volume is not
/// full.
const CLEANED: f64 = 0.02;

impl Series {
    /// Advances the effective time, and keeps the series continuous across changes that are not
    /// growth. Returns the change of the usage.
    pub(super) fn advance(&mut self, look: &Look) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let mut dt = look.time_s - last.time_s;
        if !(dt > 0.0 && dt < FOREVER) {
            dt = self.typical;
        }
        let moved = look.taken as f64 - last.taken as f64;
        if look.size != last.size {
            // Enlarged, shrunk or another volume: the difference in usage is not growth.
            self.shift -= moved;
            self.due = None;
            self.resized = true;
        } else if self.typical > 0.0 && dt > 8.0 * self.typical && moved < self.nap(dt) {
            // The machine was suspended, or the clock was set: this time does not count.
            dt = self.typical;
        }
        if self.full_since.is_some() && moved < 0.0 {
            self.shift -= moved;
        }
        self.typical = if self.typical == 0.0 {
            dt
        } else {
            self.typical + 0.1 * (dt.min(8.0 * self.typical) - self.typical)
        };
        self.now += dt;
        moved
    }

    pub(super) fn clean_ups(&mut self, look: &Look, u: f64, moved: f64) {
        if let Some(c) = self.clean_up
            && u >= c.level - 0.02 * c.freed
        {
            self.refill = Some(Refill { freed_bytes: c.freed as u64, gone_in_s: self.now - c.at });
            self.clean_up = None;
        }
        // A clean-up takes some time: as long as usage falls, it is the same one.
        if let Some(c) = self.clean_up.as_mut().filter(|c| c.goes_on) {
            c.goes_on = moved < 0.0;
            if c.goes_on {
                (c.freed, c.at) = (c.freed - moved, self.now);
                return;
            }
        }
        let least = if self.full_since.is_some() { SPACE_AGAIN } else { CLEANED };
        // Drops like this that happen all the time are a sawtooth, not a clean-up.
        let usual = || self.scales.iter().any(|s| s.before().is_some_and(|b| b.1 < 0.5 * moved));
        if moved < -least * look.size as f64
            && (self.full_since.is_some() || (self.due.is_some() && !usual()))
        {
            self.clean_up =
                Some(CleanUp { level: u - moved, freed: -moved, at: self.now, goes_on: true });
        }
    }

    /// Growth, in bytes, below which a gap of `dt` seconds counts as one usual interval. It is the
    /// geometric mean of the growth expected in one interval and in `dt`; without a forecast, the
    /// most that an interval or two have brought before.
    fn nap(&self, dt: f64) -> f64 {
        if self.due.is_some() {
            return self.rate() * (dt * self.typical).sqrt();
        }
        let mut seen = self.scales.iter().enumerate().filter(|s| length(s.0) >= 2.0 * self.typical);
        seen.find_map(|s| s.1.before()).map_or(0.0, |(most, _)| most.max(0.0))
    }

    /// Growth that the published estimate implies, bytes per second.
    fn rate(&self) -> f64 {
        match (self.due, self.last) {
            (Some(due), Some(last)) => last.room as f64 / (due[1] - self.now).max(self.typical),
            _ => f64::INFINITY,
        }
    }
}
