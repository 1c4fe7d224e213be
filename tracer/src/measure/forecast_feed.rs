//! One forecaster per volume, fed with the statvfs values of each sample.

use std::collections::HashMap;

use tracer_model::forecast::{Forecast, Forecaster, Limit, LimitUsage, Policy, Sample};

use tracer_host::mounts::Space;

/// Samples closer together than this are ignored, seconds.
const MIN_STEP_S: f64 = 0.02;
/// For this many seconds after a write failed for lack of space, a nearly full volume counts as
/// full. A server whose write fails removes its partial file, so some space is left for the next
/// write, and no sample of such a volume ever sees 0.
const FULL_AFTER_ENOSPC_S: f64 = 10.0;
/// A volume with less than this share of its size available is nearly full.
const NEARLY_FULL_SHARE: f64 = 0.005;

/// The forecasters of all volumes, keyed by device.
#[derive(Default)]
pub(super) struct Forecasts {
    volumes: HashMap<u32, Forecaster>,
    /// When a write last failed for lack of space, keyed by device.
    enospc_at_s: HashMap<u32, f64>,
    last_s: Option<f64>,
}

impl Forecasts {
    /// Records that writes to this volume have failed for lack of space since the last sample.
    /// `time_s` is on the same clock as that of [`Self::push`].
    pub(super) fn write_failed(&mut self, time_s: f64, dev: u32) {
        self.enospc_at_s.insert(dev, time_s);
    }

    /// Adds a sample of all volumes. `time_s` is in seconds, on a clock that does not step. Volumes
    /// that are not in `space` are forgotten.
    pub(super) fn push(&mut self, time_s: f64, space: &HashMap<u32, Space>) {
        if self.last_s.is_some_and(|last| time_s - last < MIN_STEP_S) {
            return;
        }
        self.last_s = Some(time_s);
        self.volumes.retain(|dev, _| space.contains_key(dev));
        self.enospc_at_s.retain(|_, at| time_s - *at < FULL_AFTER_ENOSPC_S);
        for (dev, space) in space {
            let forecaster =
                self.volumes.entry(*dev).or_insert_with(|| Forecaster::new(Policy::default()));
            let mut sample = sample(time_s, space);
            let nearly_full = NEARLY_FULL_SHARE * space.total as f64;
            if self.enospc_at_s.contains_key(dev) && (space.avail as f64) < nearly_full {
                sample.avail = 0;
            }
            forecaster.push(&sample);
        }
    }

    /// The forecast for a volume; without samples, the one of a forecaster without any history.
    pub(super) fn of(&self, dev: u32) -> Forecast {
        self.volumes
            .get(&dev)
            .map_or_else(|| Forecaster::new(Policy::default()).forecast(), Forecaster::forecast)
    }
}

fn sample(time_s: f64, space: &Space) -> Sample {
    let inodes = (space.inodes_total > 0).then(|| LimitUsage {
        limit: Limit::Inodes,
        used: space.inodes_total.saturating_sub(space.inodes_free),
        max: space.inodes_total,
    });
    Sample {
        time_s,
        total: space.total,
        used: space.used,
        avail: space.avail,
        limits: inodes.into_iter().collect(),
        flow: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(avail: u64) -> Space {
        Space { total: 1 << 30, used: (1 << 30) - avail, avail, ..Space::default() }
    }

    #[test]
    fn a_steady_writer_is_forecast_and_an_unmounted_volume_forgotten() {
        let mut forecasts = Forecasts::default();
        for second in 0..60u32 {
            let avail = (900 << 20) - u64::from(second) * (10 << 20);
            forecasts.push(f64::from(second), &HashMap::from([(7, space(avail))]));
        }
        // 310 MiB left at 10 MiB/s.
        let eta = forecasts.of(7).outcome.eta_s().expect("it fills");
        assert!((20.0..=45.0).contains(&eta), "{eta}");
        forecasts.push(60.0, &HashMap::new());
        assert_eq!(forecasts.of(7).outcome.eta_s(), None);
    }

    #[test]
    fn a_failed_write_with_almost_no_space_left_means_full() {
        let is_full = |forecasts: &Forecasts| forecasts.of(7).outcome.eta_s() == Some(0.0);
        let mut forecasts = Forecasts::default();
        let mut push = |time_s: u32, avail, failed: bool| {
            if failed {
                forecasts.write_failed(f64::from(time_s), 7);
            }
            forecasts.push(f64::from(time_s), &HashMap::from([(7, space(avail))]));
            is_full(&forecasts)
        };
        assert!(!push(0, 1 << 20, false), "a little space is not full");
        assert!(push(1, 1 << 20, true));
        assert!((2..11).all(|second| push(second, 1 << 20, false)), "it flips back");
        assert!(!push(11, 1 << 20, false), "no write failed for 10 s");
        assert!(push(12, 1 << 20, true));
        assert!(!push(13, 100 << 20, false), "it was cleaned up");
        assert!(!push(14, 100 << 20, true), "one write that is too large does not fill it");
    }

    #[test]
    fn a_full_volume_is_full_at_the_first_sample() {
        let mut forecasts = Forecasts::default();
        forecasts.push(0.0, &HashMap::from([(7, space(0))]));
        assert_eq!(forecasts.of(7).outcome.eta_s(), Some(0.0));
    }
}
