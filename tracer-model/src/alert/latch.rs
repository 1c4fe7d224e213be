//! On after a while of bad, off after a while of good.

/// One threshold of one alert.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Latch {
    pub(super) on: bool,
    bad_since: Option<f64>,
    good_since: Option<f64>,
}

impl Latch {
    /// Takes in one look at `now`, seconds. Neither bad nor good keeps it as it is; `pinned` keeps
    /// it on.
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

    /// Nothing is pending.
    pub(super) fn is_idle(&self) -> bool {
        !self.on && self.bad_since.is_none()
    }
}

/// What a [`Latch`] waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    pub(super) hold_s: f64,
    pub(super) clear_s: f64,
    /// The volume is full: nothing is over because no more can be written.
    pub(super) pinned: bool,
}
