//! One forecaster per volume, fed with the statvfs values of each sample.

use std::collections::HashMap;

use tracer_model::forecast::{Forecast, Forecaster, Gauge, Limit, Policy, Sample};

use tracer_host::mounts::Space;

/// Samples closer together than this are ignored, seconds.
const MIN_STEP_S: f64 = 0.02;
/// A server whose write fails for lack of space removes its partial file, so some space is left for
/// the next one and no sample of such a volume ever sees 0. Therefore, after a failed write within
/// this time, seconds, …
const REFUSED_S: f64 = 10.0;
/// … a volume with less than this share of its size available counts as full.
const AS_GOOD_AS_NONE: f64 = 0.005;

/// The forecasters of all volumes, keyed by device.
#[derive(Default)]
pub struct Forecasts {
    volumes: HashMap<u32, Forecaster>,
    /// When a write last failed for lack of space, keyed by device.
    refused_s: HashMap<u32, f64>,
    last_s: Option<f64>,
}

impl Forecasts {
    /// Records that writes to this volume have failed for lack of space since the last sample.
    /// `time_s` is on the same clock as that of [`Self::push`].
    pub fn refused(&mut self, time_s: f64, dev: u32) {
        self.refused_s.insert(dev, time_s);
    }

    /// Adds a sample of all volumes. `time_s` is in seconds, on a clock that does not step. Volumes
    /// that are not in `space` are forgotten.
    pub fn push(&mut self, time_s: f64, space: &HashMap<u32, Space>) {
        if self.last_s.is_some_and(|last| time_s - last < MIN_STEP_S) {
            return;
        }
        self.last_s = Some(time_s);
        self.volumes.retain(|dev, _| space.contains_key(dev));
        self.refused_s.retain(|_, at| time_s - *at < REFUSED_S);
        for (dev, space) in space {
            let forecaster =
                self.volumes.entry(*dev).or_insert_with(|| Forecaster::new(Policy::default()));
            let mut sample = sample(time_s, space);
            let little = AS_GOOD_AS_NONE * space.total as f64;
            if self.refused_s.contains_key(dev) && (space.avail as f64) < little {
                sample.avail = 0;
            }
            forecaster.push(&sample);
        }
    }

    /// The forecast for a volume; for one without samples, that nothing is known yet.
    #[must_use]
    pub fn of(&self, dev: u32) -> Forecast {
        self.volumes
            .get(&dev)
            .map_or_else(|| Forecaster::new(Policy::default()).forecast(), Forecaster::forecast)
    }
}

fn sample(time_s: f64, space: &Space) -> Sample {
    let inodes = (space.inodes_total > 0).then(|| Gauge {
        limit: Limit::Inodes,
        used: space.inodes_total.saturating_sub(space.inodes_free),
        max: space.inodes_total,
    });
    Sample {
        time_s,
        total: space.total,
        used: space.used,
        avail: space.avail,
        gauges: inodes.into_iter().collect(),
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
    fn a_steady_writer_is_forecast_and_a_gone_volume_forgotten() {
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
    fn whoever_is_refused_with_next_to_nothing_left_has_seen_it_full() {
        let is_full = |forecasts: &Forecasts| forecasts.of(7).outcome.eta_s() == Some(0.0);
        let mut forecasts = Forecasts::default();
        let mut look = |time_s: u32, avail, refused: bool| {
            if refused {
                forecasts.refused(f64::from(time_s), 7);
            }
            forecasts.push(f64::from(time_s), &HashMap::from([(7, space(avail))]));
            is_full(&forecasts)
        };
        assert!(!look(0, 1 << 20, false), "a little space is not full");
        assert!(look(1, 1 << 20, true));
        assert!((2..11).all(|second| look(second, 1 << 20, false)), "it flips back");
        assert!(!look(11, 1 << 20, false), "no write failed for 10 s");
        assert!(look(12, 1 << 20, true));
        assert!(!look(13, 100 << 20, false), "it was cleaned up");
        assert!(!look(14, 100 << 20, true), "one write that is too large does not fill it");
    }

    #[test]
    fn a_full_volume_is_full_at_the_first_look() {
        let mut forecasts = Forecasts::default();
        forecasts.push(0.0, &HashMap::from([(7, space(0))]));
        assert_eq!(forecasts.of(7).outcome.eta_s(), Some(0.0));
    }
}
