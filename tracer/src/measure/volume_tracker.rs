//! The mounted volumes, with their space at both ends of the interval and their forecasts.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;

use super::context::VolumeState;
use super::forecast_feed::Forecasts;
use super::hidden_volumes::HiddenVolumes;
use super::inner_limits::{InnerLimits, VolumeLimits};
use super::space_sampler;
use super::volume_details::VolumeDetails;
use crate::attribute::container_tmpfs::ContainerTmpfs;
use crate::attribute::groups::Groups;
use tracer_common::FileKey;
use tracer_host::clock;
use tracer_host::mounts;
use tracer_host::mounts::events::MountEvents;
use tracer_host::mounts::{MountedVolume, Space};
use tracer_host::open_files::mount_lookup::may_hang;
use tracer_kernel::Tracer;

/// The mounted volumes. Space is keyed by device.
pub(super) struct VolumeTracker {
    mounted: Vec<MountedVolume>,
    mount_events: MountEvents,
    space_at_start: HashMap<u32, Space>,
    /// Space at the sample before the last one.
    space_before: HashMap<u32, Space>,
    space_now: HashMap<u32, Space>,
    /// Devices that were full at some time in the interval.
    full: HashSet<u32>,
    forecasts: Forecasts,
    inner: InnerLimits,
    details: VolumeDetails,
    hidden: HiddenVolumes,
}

/// A volume with less than this share of its size, or of its inodes, is nearly full.
const NEARLY_FULL_SHARE: f64 = 0.005;
/// Below this share, a volume's space is read at every poll.
const WATCHED_SHARE: f64 = 0.02;

impl VolumeTracker {
    /// Starts to watch the mount table; [`Self::refresh`] reads it.
    pub(super) fn new() -> Self {
        Self {
            mounted: Vec::new(),
            mount_events: MountEvents::watch(),
            space_at_start: HashMap::new(),
            space_before: HashMap::new(),
            space_now: HashMap::new(),
            full: HashSet::new(),
            forecasts: Forecasts::default(),
            inner: InnerLimits::default(),
            details: VolumeDetails::default(),
            hidden: HiddenVolumes::default(),
        }
    }

    pub(super) fn mounted(&self) -> &[MountedVolume] {
        &self.mounted
    }

    /// The devices of all volumes.
    pub(super) fn devices(&self) -> HashSet<u32> {
        self.mounted.iter().map(|volume| volume.dev).collect()
    }

    /// The volumes whose space is sampled from the filesystem because no hook covers it.
    pub(super) fn sampled(&self, tracer: &Tracer) -> impl Iterator<Item = &MountedVolume> {
        self.mounted.iter().filter(|volume| is_sampled(tracer, volume))
    }

    /// Whether the mount table has changed since the last call.
    pub(super) fn mounts_changed(&mut self) -> bool {
        self.mount_events.changed()
    }

    /// Reads the mount table, and reports the mounted filesystem types to the tracer.
    ///
    /// # Errors
    /// If the mount table cannot be read.
    pub(super) fn refresh(
        &mut self,
        tracer: &mut Tracer,
        container_tmpfs: &mut ContainerTmpfs,
        groups: &Groups,
    ) -> anyhow::Result<()> {
        let mut mounted =
            mounts::read().context("cannot read /proc/self/mountinfo: is /proc mounted?")?;
        let in_containers = container_tmpfs.refresh(&mounted, groups).to_vec();
        mounted.extend(in_containers);
        if mounted != self.mounted {
            self.mounted = mounted;
            self.inner.mounts_changed();
            self.details.mounts_changed(&self.mounted);
            let space = self.space_of_all();
            self.space_now.retain(|dev, _| space.contains_key(dev));
            for (dev, space) in space {
                self.space_now.entry(dev).or_insert(space);
            }
        }
        // Even if the volumes are the same: an overlay is not a volume, but mounting it may have
        // loaded its module.
        self.details.refresh(clock::boottime_s(), &self.mounted);
        let types: Vec<&str> = self.mounted.iter().map(|volume| volume.fs_type.as_str()).collect();
        tracer.mounts_changed(&types);
        Ok(())
    }

    /// Reads the space of all volumes and updates their forecasts. `no_space` and `no_quota` are the
    /// devices on which calls have failed with ENOSPC or EDQUOT since the last sample; `now_s` is on a
    /// clock that does not step.
    pub(super) fn sample_space(&mut self, now_s: f64, no_space: Vec<u32>, no_quota: Vec<u32>) {
        let space = self.space_of_all();
        self.space_before = std::mem::replace(&mut self.space_now, space);
        let full = self.space_now.iter().filter(|(_, space)| is_full(space));
        self.full.extend(full.map(|(dev, _)| *dev));
        let has_failed = |dev| no_quota.contains(&dev) || no_space.contains(&dev);
        self.inner.sample(now_s, &self.mounted, has_failed);
        for dev in no_space {
            // xfs says so when the quota of a project is used up.
            if self.inner.of(dev).is_some_and(VolumeLimits::has_used_up_quota) {
                self.forecasts.quota_exceeded(now_s, dev);
            }
            self.forecasts.write_failed(now_s, dev);
        }
        for dev in no_quota {
            self.forecasts.quota_exceeded(now_s, dev);
        }
        self.forecasts.push(now_s, &self.space_now, &self.inner);
    }

    /// Records which processes have written, to find the space of hidden volumes: pid and file.
    pub(super) fn note_writers(&mut self, written: impl Iterator<Item = (u32, FileKey)>) {
        self.hidden.note_writers(&self.mounted, written);
    }

    /// statvfs of all volumes that have blocks, keyed by device.
    fn space_of_all(&self) -> HashMap<u32, Space> {
        let space = |volume: &MountedVolume| {
            volume.space().or_else(|| self.hidden.space(volume)).filter(|space| space.total > 0)
        };
        self.mounted.iter().filter_map(|volume| Some((volume.dev, space(volume)?))).collect()
    }

    /// Reads the space of volumes that are nearly full, which may touch zero between two samples.
    pub(super) fn look_at_nearly_full(&mut self) {
        for volume in &self.mounted {
            let dev = volume.dev;
            let watched = self.space_now.get(&dev).is_some_and(|space| {
                !is_full(space) && (space.avail as f64) < WATCHED_SHARE * space.total as f64
            });
            if watched
                && !self.full.contains(&dev)
                && !may_hang(&volume.fs_type)
                && volume.space().is_some_and(|space| is_full(&space))
            {
                self.full.insert(dev);
            }
        }
    }

    /// Whether the volume can have run out of space or inodes since the sample before the last one, of
    /// which at most `taken` bytes were taken since.
    pub(super) fn can_have_run_out(&self, dev: u32, taken: impl Fn() -> u64) -> bool {
        if self.full.contains(&dev) {
            return true;
        }
        let samples = [self.space_before.get(&dev), self.space_now.get(&dev)];
        let nearly = |space: &Space| {
            let inodes = space.inodes_total as f64 * NEARLY_FULL_SHARE;
            let no_inodes = space.inodes_total > 0 && (space.inodes_free as f64) < inodes;
            is_nearly_full(space, space.avail) || no_inodes
        };
        samples.iter().flatten().any(|space| nearly(space))
            // Both samples may be of other times: before it filled, and after it was cleaned up.
            || samples[0].is_some_and(|space| {
                is_nearly_full(space, space.avail.saturating_sub(taken()))
            })
    }

    /// Records that a device was full at some time in the interval.
    pub(super) fn was_full(&mut self, dev: u32) {
        self.full.insert(dev);
    }

    /// Whether a device is an ext4.
    pub(super) fn is_ext4(&self, dev: u32) -> bool {
        self.mounted.iter().any(|volume| volume.dev == dev && volume.fs_type == "ext4")
    }

    pub(super) fn begin_interval(&mut self) {
        self.space_at_start = self.space_now.clone();
        self.full.clear();
    }

    /// The volumes that have blocks, as of the last sample.
    pub(super) fn states(&self, tracer: &Tracer, groups: &mut Groups) -> Vec<VolumeState<'_>> {
        self.mounted
            .iter()
            .filter_map(|volume| {
                let (limits, details) = (self.inner.of(volume.dev), self.details.of(volume.dev));
                Some(VolumeState {
                    volume,
                    btrfs: limits.and_then(|limits| Some(limits.reading?.space)),
                    quotas: limits.map(VolumeLimits::nearest_quotas).unwrap_or_default(),
                    served_by: details.and_then(|details| details.served_by.clone()),
                    backing_file: details.and_then(|details| details.backing_file.clone()),
                    name: volume.name(),
                    before: self.space_at_start.get(&volume.dev).copied(),
                    now: *self.space_now.get(&volume.dev)?,
                    space_known: tracer.traces_space(&volume.fs_type) || is_sampled(tracer, volume),
                    inodes_traced: tracer.traces_inodes(&volume.fs_type),
                    was_full: self.full.contains(&volume.dev),
                    forecast: self.forecasts.of(volume.dev),
                    owner: groups.owner(volume),
                    counted_by: tracer.counted_by(&volume.fs_type),
                    gap: tracer.gap(&volume.fs_type),
                })
            })
            .collect()
    }
}

/// Whether the volume's space is sampled from the filesystem because no hook covers it.
fn is_sampled(tracer: &Tracer, volume: &MountedVolume) -> bool {
    space_sampler::can_sample(&volume.fs_type) && !tracer.traces_space(&volume.fs_type)
}

/// Whether ordinary users can write nothing more, or create nothing more.
const fn is_full(space: &Space) -> bool {
    space.avail == 0 || (space.inodes_total > 0 && space.inodes_free == 0)
}

fn is_nearly_full(space: &Space, avail: u64) -> bool {
    (avail as f64) < NEARLY_FULL_SHARE * space.total as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const TOTAL: u64 = 1000 * MIB;

    fn space(avail: u64, inodes_free: u64) -> Space {
        let used = TOTAL - avail;
        Space { total: TOTAL, used, avail, inodes_total: 10_000, inodes_free, ..Space::default() }
    }

    /// Whether the volume can have run out of space between two samples.
    fn ran_out(before: Option<Space>, now: Space, taken: u64) -> bool {
        let mut tracker = VolumeTracker::new();
        tracker.space_before.extend(before.map(|space| (7, space)));
        tracker.space_now.insert(7, now);
        tracker.can_have_run_out(7, || taken)
    }

    #[test]
    fn a_volume_ran_out_if_that_much_was_taken_or_little_is_left() {
        let roomy = space(400 * MIB, 5_000);
        assert!(!ran_out(Some(roomy), roomy, 0));
        assert!(!ran_out(Some(roomy), roomy, 300 * MIB));
        assert!(ran_out(Some(roomy), roomy, 398 * MIB), "filled and cleaned up in between");
        assert!(ran_out(Some(roomy), space(4 * MIB, 5_000), 0));
        assert!(ran_out(Some(space(0, 5_000)), roomy, 0));
        assert!(ran_out(Some(roomy), space(400 * MIB, 0), 0), "no inodes");
        assert!(!ran_out(None, roomy, u64::MAX), "nothing is known of the time before");
        let endless = Space { inodes_total: 0, inodes_free: 0, ..roomy };
        assert!(!ran_out(Some(endless), endless, 0), "no fixed number of inodes");
    }

    #[test]
    fn what_was_full_is_remembered_until_the_interval_ends() {
        let mut tracker = VolumeTracker::new();
        tracker.was_full(7);
        assert!(tracker.can_have_run_out(7, || 0));
        assert!(!tracker.can_have_run_out(8, || 0));
        tracker.begin_interval();
        assert!(!tracker.can_have_run_out(7, || 0));
        assert!(is_full(&space(0, 5)) && is_full(&space(5, 0)) && !is_full(&space(5, 5)));
    }
}
