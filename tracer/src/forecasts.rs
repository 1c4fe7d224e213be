//! One forecaster per volume, fed with what statvfs shows at each look.

use std::collections::HashMap;

use tracer_model::forecast::{Forecast, Forecaster, Gauge, Limit, Policy, Sample};

use crate::collect::mounts::Space;

/// Shorter steps than this say nothing.
const MIN_STEP_S: f64 = 0.02;

/// Keyed by device.
#[derive(Default)]
pub struct Forecasts {
    volumes: HashMap<u32, Forecaster>,
    last_s: Option<f64>,
}

impl Forecasts {
    /// Takes a look at all volumes, at a time in seconds of a clock that does not step. Volumes that
    /// are gone are forgotten.
    pub fn push(&mut self, time_s: f64, space: &HashMap<u32, Space>) {
        if self.last_s.is_some_and(|last| time_s - last < MIN_STEP_S) {
            return;
        }
        self.last_s = Some(time_s);
        self.volumes.retain(|dev, _| space.contains_key(dev));
        for (dev, space) in space {
            let forecaster =
                self.volumes.entry(*dev).or_insert_with(|| Forecaster::new(Policy::default()));
            forecaster.push(&sample(time_s, space));
        }
    }

    /// What is to be expected of a volume; of one that was not seen yet, that nothing is known.
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
    fn a_full_volume_is_full_at_the_first_look() {
        let mut forecasts = Forecasts::default();
        forecasts.push(0.0, &HashMap::from([(7, space(0))]));
        assert_eq!(forecasts.of(7).outcome.eta_s(), Some(0.0));
    }
}
