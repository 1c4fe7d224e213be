//! A latch with delays: it turns on after the condition has held for a while, and off after it has
//! been clear for a while.

/// The latch of one threshold of one alert.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Latch {
    pub(super) on: bool,
    bad_since: Option<f64>,
    good_since: Option<f64>,
}

impl Latch {
    /// Applies one sample at `now`, seconds. A value that is neither bad nor good leaves the latch
    /// as it is; `pinned` keeps it on.
    pub(super) fn see(&mut self, now: f64, (bad, good): (bool, bool), waits: Waits) {
        if bad {
            self.good_since = None;
            let since = *self.bad_since.get_or_insert(now);
            self.on |= now - since >= waits.hold_s;
            return;
        }
        self.bad_since = None;
        if !good || waits.pinned {
            self.good_since = None;
            return;
        }
        let since = *self.good_since.get_or_insert(now);
        self.on &= now - since < waits.clear_s;
    }

    /// Whether the latch is off and the condition is not pending.
    pub(super) fn is_idle(&self) -> bool {
        !self.on && self.bad_since.is_none()
    }
}

/// The delays of a [`Latch`], seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    pub(super) hold_s: f64,
    pub(super) clear_s: f64,
    /// The volume is full: an alert must not resolve because nothing more can be written.
    pub(super) pinned: bool,
}
