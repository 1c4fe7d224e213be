//! Changes of each volume over the last seconds. Summing them up keeps one noisy second from
//! marking a volume as blind, and still detects a slow leak whose cause is not seen.

use std::collections::{HashMap, HashSet, VecDeque};

use tracer_model::snapshot::Moved;

/// Length of the interval that is summed up, in seconds.
const SPAN_S: f64 = 10.0;

/// Intervals of the last [`SPAN_S`] seconds, by device.
#[derive(Debug, Default)]
pub struct Recent {
    windows: HashMap<u32, VecDeque<Moved>>,
}

impl Recent {
    /// Adds an interval and returns the sum of it and those before it, over at most [`SPAN_S`]
    /// seconds, or this interval alone if it is longer.
    pub fn add(&mut self, dev: u32, window: Moved) -> Moved {
        let windows = self.windows.entry(dev).or_default();
        windows.push_back(window);
        let mut over_s: f64 = windows.iter().map(|one| one.over_s).sum();
        while over_s > SPAN_S && windows.len() > 1 {
            over_s -= windows.pop_front().map_or(0.0, |one| one.over_s);
        }
        windows.iter().copied().reduce(Moved::and).unwrap_or_default()
    }

    /// Forgets devices that are no longer mounted: another one may get the same number.
    pub fn keep(&mut self, devices: &HashSet<u32>) {
        self.windows.retain(|dev, _| devices.contains(dev));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_seconds_are_one() {
        let mut recent = Recent::default();
        let second = Moved { used_delta: 1, allocated: Some(1), written: 2, over_s: 1.0 };
        for n in 1..30_u32 {
            let all = recent.add(7, second);
            let lately = n.min(10);
            assert_eq!((all.used_delta, all.over_s), (i64::from(lately), f64::from(lately)));
        }
        let minute = Moved { over_s: 60.0, ..second };
        assert_eq!(recent.add(7, minute), minute);
        recent.keep(&HashSet::from([8]));
        assert_eq!(recent.add(7, second), second);
    }
}
