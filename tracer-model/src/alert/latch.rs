//! A latch with delays: it turns on after the condition has held for a while, and off after it has
//! been clear for a while.

use super::rule::Comparison;

/// The latch of one threshold of one alert.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Latch {
    pub(super) on: bool,
    breached_since: Option<f64>,
    clear_since: Option<f64>,
}

impl Latch {
    /// Applies one sample at `now`, seconds. A value that is neither past the threshold nor clear of
    /// it leaves the latch as it is; so does a clear one while the latch is `pinned`.
    pub(super) fn update(&mut self, now: f64, value: Comparison, delays: Delays) {
        if value.breached {
            self.clear_since = None;
            let since = *self.breached_since.get_or_insert(now);
            self.on |= now - since >= delays.hold_s;
            return;
        }
        self.breached_since = None;
        if !value.clear || delays.pinned {
            self.clear_since = None;
            return;
        }
        let since = *self.clear_since.get_or_insert(now);
        self.on &= now - since < delays.clear_s;
    }

    /// Whether the latch is off and the condition is not pending.
    pub(super) fn is_idle(&self) -> bool {
        !self.on && self.breached_since.is_none()
    }
}

/// The delays of a [`Latch`], seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delays {
    pub(super) hold_s: f64,
    pub(super) clear_s: f64,
    /// The volume is full: an alert must not resolve because nothing more can be written.
    pub(super) pinned: bool,
}
