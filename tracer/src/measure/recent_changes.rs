//! Changes of each volume over the last seconds. Summing them up keeps one noisy second from
//! marking a volume as blind, and still detects a slow leak whose cause is not seen.

use std::collections::{HashMap, VecDeque};

use tracer_model::snapshot::SpaceChange;

/// Length of the interval that is summed up, in seconds.
const SPAN_S: f64 = 10.0;
/// The same where the filesystem's used space follows with a delay: btrfs commits every 30 s.
const LATE_SPAN_S: f64 = 60.0;

/// Intervals of the last [`SPAN_S`] or [`LATE_SPAN_S`] seconds, by device.
#[derive(Debug, Default)]
pub(super) struct RecentChanges {
    changes: HashMap<u32, VecDeque<SpaceChange>>,
}

impl RecentChanges {
    /// Adds an interval and returns the sum of it and those before it, over at most [`SPAN_S`]
    /// seconds ([`LATE_SPAN_S`] if `is_late`), or this interval alone if it is longer.
    pub(super) fn add(&mut self, dev: u32, change: SpaceChange, is_late: bool) -> SpaceChange {
        let span_s = if is_late { LATE_SPAN_S } else { SPAN_S };
        let changes = self.changes.entry(dev).or_default();
        changes.push_back(change);
        let mut over_s: f64 = changes.iter().map(|one| one.over_s).sum();
        while over_s > span_s && changes.len() > 1 {
            over_s -= changes.pop_front().map_or(0.0, |one| one.over_s);
        }
        changes.iter().copied().reduce(SpaceChange::and).unwrap_or_default()
    }

    /// Forgets devices that are no longer mounted: another one may get the same number.
    pub(super) fn retain(&mut self, is_mounted: impl Fn(u32) -> bool) {
        self.changes.retain(|dev, _| is_mounted(*dev));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_the_last_seconds_are_summed() {
        let mut recent = RecentChanges::default();
        let second = SpaceChange { used_delta: 1, allocated: Some(1), written: 2, over_s: 1.0 };
        for n in 1..30_u32 {
            let all = recent.add(7, second, false);
            let lately = n.min(10);
            assert_eq!((all.used_delta, all.over_s), (i64::from(lately), f64::from(lately)));
        }
        let minute = SpaceChange { over_s: 60.0, ..second };
        assert_eq!(recent.add(7, minute, false), minute);
        for n in 1..90_u32 {
            let all = recent.add(8, second, true);
            assert_eq!(all.over_s, f64::from(n.min(60)));
        }
        recent.retain(|dev| dev == 8);
        assert_eq!(recent.add(7, second, false), second);
    }
}
