//! The mounted volumes, with their space at both ends of the interval and their forecasts.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;

use super::context::VolumeState;
use super::forecast_feed::Forecasts;
use super::space_sampler;
use crate::attribute::container_tmpfs::ContainerTmpfs;
use crate::attribute::groups::Groups;
use tracer_host::mounts;
use tracer_host::mounts::events::MountEvents;
use tracer_host::mounts::{MountedVolume, Space};
use tracer_kernel::Tracer;
use tracer_model::sanitize::lossless_path;

/// The mounted volumes. Space is keyed by device.
pub(super) struct VolumeTracker {
    mounted: Vec<MountedVolume>,
    mount_events: MountEvents,
    space_at_start: HashMap<u32, Space>,
    space_now: HashMap<u32, Space>,
    forecasts: Forecasts,
}

impl VolumeTracker {
    /// Starts to watch the mount table; [`Self::refresh`] reads it.
    pub(super) fn new() -> Self {
        Self {
            mounted: Vec::new(),
            mount_events: MountEvents::watch(),
            space_at_start: HashMap::new(),
            space_now: HashMap::new(),
            forecasts: Forecasts::default(),
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
            let space = space_of(&self.mounted);
            self.space_now.retain(|dev, _| space.contains_key(dev));
            for (dev, space) in space {
                self.space_now.entry(dev).or_insert(space);
            }
        }
        // Even if the volumes are the same: an overlay is not a volume, but mounting it may have
        // loaded its module.
        let types: Vec<&str> = self.mounted.iter().map(|volume| volume.fs_type.as_str()).collect();
        tracer.mounts_changed(&types);
        Ok(())
    }

    /// Reads the space of all volumes and updates their forecasts. `no_space` are the devices on
    /// which writes have failed with ENOSPC since the last sample; `now_s` is on a clock that does
    /// not step.
    pub(super) fn sample_space(&mut self, now_s: f64, no_space: impl Iterator<Item = u32>) {
        self.space_now = space_of(&self.mounted);
        for dev in no_space {
            self.forecasts.write_failed(now_s, dev);
        }
        self.forecasts.push(now_s, &self.space_now);
    }

    pub(super) fn begin_interval(&mut self) {
        self.space_at_start = self.space_now.clone();
    }

    /// The volumes that have blocks, as of the last sample.
    pub(super) fn states(&self, tracer: &Tracer, groups: &mut Groups) -> Vec<VolumeState<'_>> {
        self.mounted
            .iter()
            .filter_map(|volume| {
                Some(VolumeState {
                    volume,
                    name: lossless_path(&volume.primary().mount_point),
                    before: self.space_at_start.get(&volume.dev).copied(),
                    now: *self.space_now.get(&volume.dev)?,
                    space_known: tracer.traces_space(&volume.fs_type) || is_sampled(tracer, volume),
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

/// statvfs of all volumes that have blocks, keyed by device.
fn space_of(volumes: &[MountedVolume]) -> HashMap<u32, Space> {
    volumes
        .iter()
        .filter_map(|volume| Some((volume.dev, volume.space().filter(|space| space.total > 0)?)))
        .collect()
}
