//! One forecaster per volume, fed with the statvfs values of each sample.

use std::collections::HashMap;

use tracer_model::forecast::{Forecast, Forecaster, Limit, LimitUsage, Policy, Sample};

use super::inner_limits::InnerLimits;
use tracer_host::btrfs::Reading;
use tracer_host::mounts::Space;

/// Samples closer together than this are ignored, seconds.
const MIN_STEP_S: f64 = 0.02;
/// For this many seconds after a write failed for lack of space, a nearly full volume counts as
/// full. A server whose write fails removes its partial file, so some space is left for the next
/// write, and no sample of such a volume ever sees 0.
const FULL_AFTER_ENOSPC_S: f64 = 10.0;
/// A volume with less than this share of its size available is nearly full.
const NEARLY_FULL_SHARE: f64 = 0.005;

/// If less metadata of a btrfs than this is left, bytes, what fails for lack of space fails for lack
/// of metadata: what one transaction may reserve beyond what is kept for that anyway.
const NEARLY_USED_METADATA: u64 = 8 << 20;

/// A quota with less than this share of its limit left is nearly used up. More than for a volume:
/// btrfs reserves space in larger steps.
const NEARLY_USED_QUOTA_SHARE: f64 = 0.05;

/// The forecasters of all volumes, keyed by device.
#[derive(Default)]
pub(super) struct Forecasts {
    volumes: HashMap<u32, Forecaster>,
    /// When a write last failed for lack of space, keyed by device.
    enospc_at_s: HashMap<u32, f64>,
    /// The same for a quota.
    edquot_at_s: HashMap<u32, f64>,
    last_s: Option<f64>,
}

impl Forecasts {
    /// Records that writes to this volume have failed for lack of space since the last sample.
    /// `time_s` is on the same clock as that of [`Self::push`].
    pub(super) fn write_failed(&mut self, time_s: f64, dev: u32) {
        self.enospc_at_s.insert(dev, time_s);
    }

    /// The same for writes that exceeded a quota.
    pub(super) fn quota_exceeded(&mut self, time_s: f64, dev: u32) {
        self.edquot_at_s.insert(dev, time_s);
    }

    /// Adds a sample of all volumes. `time_s` is in seconds, on a clock that does not step. Volumes
    /// that are not in `space` are forgotten.
    pub(super) fn push(&mut self, time_s: f64, space: &HashMap<u32, Space>, inner: &InnerLimits) {
        if self.last_s.is_some_and(|last| time_s - last < MIN_STEP_S) {
            return;
        }
        self.last_s = Some(time_s);
        self.volumes.retain(|dev, _| space.contains_key(dev));
        for failed in [&mut self.enospc_at_s, &mut self.edquot_at_s] {
            failed.retain(|_, at| time_s - *at < FULL_AFTER_ENOSPC_S);
        }
        for (dev, space) in space {
            let forecaster =
                self.volumes.entry(*dev).or_insert_with(|| Forecaster::new(Policy::default()));
            let mut sample = sample(time_s, space);
            let nearly_full = NEARLY_FULL_SHARE * space.total as f64;
            let has_failed = self.enospc_at_s.contains_key(dev);
            if has_failed && (space.avail as f64) < nearly_full {
                sample.avail = 0;
            }
            if let Some(limits) = inner.of(*dev) {
                if let Some(reading) = &limits.reading {
                    add_metadata(&mut sample, reading, has_failed, nearly_full);
                }
                let has_exceeded = self.edquot_at_s.contains_key(dev);
                sample.limits.extend(
                    limits.quota_usage().map(|quota| LimitUsage {
                        used: quota_used(&quota, has_exceeded),
                        ..quota
                    }),
                );
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

/// Adds the metadata of a btrfs. `has_failed`: a write failed for lack of space in the last seconds.
fn add_metadata(sample: &mut Sample, reading: &Reading, has_failed: bool, nearly_full: f64) {
    let max = reading.metadata_max_bytes;
    let left = reading.metadata_left_bytes();
    let data_left = reading.data_left_bytes() + reading.space.unallocated_bytes;
    let data_is_free = data_left as f64 >= nearly_full;
    let nearly_used = left <= NEARLY_USED_METADATA.max(max / 50);
    // What failed did not fail for lack of space for data.
    let is_used = left == 0 || (has_failed && data_is_free && nearly_used);
    if is_used && data_is_free && sample.avail == 0 {
        // btrfs reports 0 although only the metadata is used up (btrfs_statfs).
        sample.avail = data_left;
    }
    let used = if is_used { max } else { reading.space.metadata_used_bytes };
    sample.limits.push(LimitUsage { limit: Limit::Metadata, used, max });
}

/// The used part of a quota. `has_exceeded`: a write exceeded a quota of the volume in the last
/// seconds. What is left of it is then too little for a write, as on a nearly full volume.
fn quota_used(quota: &LimitUsage, has_exceeded: bool) -> u64 {
    let nearly_used = (quota.max as f64 * (1.0 - NEARLY_USED_QUOTA_SHARE)) as u64;
    if has_exceeded && quota.used >= nearly_used { quota.used.max(quota.max) } else { quota.used }
}

#[cfg(test)]
mod tests {
    use tracer_model::snapshot::BtrfsSpace;

    use super::*;

    fn space(avail: u64) -> Space {
        Space { total: 1 << 30, used: (1 << 30) - avail, avail, ..Space::default() }
    }

    #[test]
    fn a_steady_writer_is_forecast_and_an_unmounted_volume_forgotten() {
        let mut forecasts = Forecasts::default();
        for second in 0..60u32 {
            let avail = (900 << 20) - u64::from(second) * (10 << 20);
            forecasts.push(
                f64::from(second),
                &HashMap::from([(7, space(avail))]),
                &InnerLimits::default(),
            );
        }
        // 310 MiB left at 10 MiB/s.
        let eta = forecasts.of(7).outcome.eta_s().expect("it fills");
        assert!((20.0..=45.0).contains(&eta), "{eta}");
        forecasts.push(60.0, &HashMap::new(), &InnerLimits::default());
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
            forecasts.push(
                f64::from(time_s),
                &HashMap::from([(7, space(avail))]),
                &InnerLimits::default(),
            );
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
        forecasts.push(0.0, &HashMap::from([(7, space(0))]), &InnerLimits::default());
        assert_eq!(forecasts.of(7).outcome.eta_s(), Some(0.0));
    }

    /// The forecast of a btrfs with so much of its metadata and data left.
    fn btrfs(metadata_left: u64, data_left: u64, avail: u64, has_failed: bool) -> Forecast {
        let space = space(avail);
        let mut sample = sample(0.0, &space);
        let reading = Reading {
            space: BtrfsSpace {
                data_total_bytes: 1 << 30,
                data_used_bytes: (1 << 30) - data_left,
                metadata_total_bytes: 128 << 20,
                metadata_used_bytes: (100 << 20) - metadata_left,
                unallocated_bytes: 0,
            },
            metadata_max_bytes: 100 << 20,
        };
        add_metadata(&mut sample, &reading, has_failed, 5e6);
        let mut forecaster = Forecaster::new(Policy::default());
        forecaster.push(&sample);
        forecaster.forecast()
    }

    #[test]
    fn a_btrfs_without_metadata_is_full_whatever_data_is_free() {
        let limit = |forecast: Forecast| forecast.outcome.eta_s().map(|_| forecast.limit);
        const MIB: u64 = 1 << 20;
        assert_eq!(limit(btrfs(0, 200 * MIB, 200 * MIB, false)), Some(Limit::Metadata));
        assert_eq!(limit(btrfs(3 * MIB, 200 * MIB, 200 * MIB, true)), Some(Limit::Metadata));
        assert_eq!(limit(btrfs(3 * MIB, 200 * MIB, 200 * MIB, false)), None);
        assert_eq!(limit(btrfs(60 * MIB, 200 * MIB, 200 * MIB, true)), None);
        // statvfs says 0, but 200 MiB of data are free.
        assert_eq!(limit(btrfs(0, 200 * MIB, 0, true)), Some(Limit::Metadata));
        assert_eq!(limit(btrfs(60 * MIB, MIB, 0, true)), Some(Limit::Avail));
    }

    #[test]
    fn a_quota_that_is_exceeded_is_used_up() {
        let quota = |used| LimitUsage { limit: Limit::Quota("q".to_owned()), used, max: 1_000 };
        let cases = [(990, true), (990, false), (500, true), (1_001, false)];
        let used = cases.map(|(used, has_exceeded)| quota_used(&quota(used), has_exceeded));
        assert_eq!(used, [1_000, 990, 500, 1_001]);
    }
}
