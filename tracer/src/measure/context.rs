//! The inputs of a Snapshot other than the counts.

use std::collections::HashMap;

use jiff::Timestamp;
use tracer_model::forecast::Forecast;
use tracer_model::snapshot::{
    Backend, BtrfsSpace, CountedBy, Gap, Parent, QuotaUse, Resident, Suspect,
};

use super::attribution::Attribution;
use super::deleted_files::DeletedFiles;
use super::recent_changes::RecentChanges;
use super::turnovers::Turnovers;
use crate::attribute::groups::volumes::Owner;
use tracer_host::mounts::{MountedVolume, Space};

/// Inputs of a Snapshot other than the counts.
pub(super) struct Context<'a> {
    /// Name of the host, from [`tracer_host::host_root::host_name`].
    pub(super) host: &'a str,
    /// End of the interval.
    pub(super) taken_at: Timestamp,
    /// Length of the interval, seconds.
    pub(super) interval_s: f64,
    /// The tracer's health. `unattributed_bytes` and `folded_files` are filled in from the counts.
    pub(super) backend: Backend,
    /// All mounted volumes.
    pub(super) volumes: Volumes<'a>,
    /// Files without a name that still take space.
    pub(super) held: &'a DeletedFiles,
    /// Processes with files open or mapped for writing, by device.
    pub(super) suspects: &'a HashMap<u32, Vec<Suspect>>,
    /// Groups with files open for writing.
    pub(super) residents: Vec<Resident>,
    /// Describes the processes and files.
    pub(super) attribution: &'a mut Attribution,
    /// Recent changes of each volume's space.
    pub(super) recent: &'a mut RecentChanges,
    /// Which directories come and go.
    pub(super) turnovers: &'a mut Turnovers,
    /// Whether renames are traced.
    pub(super) traces_renames: bool,
    /// Whether the removal of a regular file is part of its counters; else of the entries of its directory.
    pub(super) unlinks_counted: bool,
}

/// A volume over one interval.
pub(super) struct VolumeState<'a> {
    /// The device and its mounts.
    pub(super) volume: &'a MountedVolume,
    /// Its primary mount point, as the rows of the Snapshot name it.
    pub(super) name: String,
    /// Space at the start of the interval, if the volume was mounted then.
    pub(super) before: Option<Space>,
    /// Space at the end of the interval.
    pub(super) now: Space,
    /// Whether allocated and freed bytes are known here, not only written ones.
    pub(super) space_known: bool,
    /// Whether created and removed inodes are traced here.
    pub(super) inodes_traced: bool,
    /// Whether it was full at some time in the interval.
    pub(super) was_full: bool,
    /// Forecast of when it will be full.
    pub(super) forecast: Forecast,
    /// The container or pod that it belongs to.
    pub(super) owner: Owner,
    /// How a btrfs divides its space.
    pub(super) btrfs: Option<BtrfsSpace>,
    /// Its fullest quotas, fullest first.
    pub(super) quotas: Vec<QuotaUse>,
    /// The process that serves a FUSE filesystem.
    pub(super) served_by: Option<Parent>,
    /// Path of the file behind a loop device.
    pub(super) backing_file: Option<String>,
    /// At which level its writes are counted.
    pub(super) counted_by: Option<CountedBy>,
    /// Why they are not counted at the filesystem's own functions, if that can be changed.
    pub(super) gap: Option<Gap>,
}

impl VolumeState<'_> {
    /// Change of the number of inodes in use over the interval; 0 if the volume was not mounted before.
    pub(super) fn inodes_delta(&self) -> i64 {
        let in_use = |space: &Space| space.inodes_total.saturating_sub(space.inodes_free);
        self.before
            .map_or(0, |before| in_use(&self.now).cast_signed() - in_use(&before).cast_signed())
    }

    /// Change of the used space over the interval, bytes; 0 if the volume was not mounted before.
    pub(super) fn used_delta(&self) -> i64 {
        self.before.map_or(0, |before| self.now.used.cast_signed() - before.used.cast_signed())
    }
}

/// The volumes of an interval, also by device.
pub(super) struct Volumes<'a> {
    states: Vec<VolumeState<'a>>,
    by_dev: HashMap<u32, usize>,
}

impl<'a> Volumes<'a> {
    pub(super) fn new(states: Vec<VolumeState<'a>>) -> Self {
        let by_dev = states.iter().enumerate().map(|(at, state)| (state.volume.dev, at)).collect();
        Self { states, by_dev }
    }

    pub(super) fn get(&self, dev: u32) -> Option<&VolumeState<'a>> {
        Some(&self.states[*self.by_dev.get(&dev)?])
    }

    pub(super) fn contains(&self, dev: u32) -> bool {
        self.by_dev.contains_key(&dev)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &VolumeState<'a>> {
        self.states.iter()
    }
}
