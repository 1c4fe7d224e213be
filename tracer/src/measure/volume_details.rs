//! What is behind each volume: the process that serves a FUSE filesystem, the file behind a loop
//! device.

use std::collections::HashMap;

use tracer_host::mounts::MountedVolume;
use tracer_host::mounts::served::{self, FuseServers};
use tracer_host::process::stat;
use tracer_model::sanitize::lossless_path;
use tracer_model::snapshot::Parent;

/// After a search that found nothing, the next one is this much later, and each further one twice as
/// much: it reads the descriptors of all processes.
const RETRY_S: f64 = 5.0;
const MAX_RETRY_S: f64 = 320.0;

/// The details of all volumes, keyed by device.
#[derive(Default)]
pub(super) struct VolumeDetails {
    volumes: HashMap<u32, Details>,
    /// When to search again for servers that were not found, and how long that took to wait.
    search_at_s: f64,
    waited_s: f64,
}

/// What is behind a volume.
#[derive(Default)]
pub(super) struct Details {
    /// The process that serves it.
    pub(super) served_by: Option<Parent>,
    /// When that process started, clock ticks since boot: its pid may be used again.
    start_ticks: Option<u64>,
    /// Path of the file behind it.
    pub(super) backing_file: Option<String>,
}

impl VolumeDetails {
    /// Examines all volumes, because the mount table has changed.
    pub(super) fn mounts_changed(&mut self, mounted: &[MountedVolume]) {
        self.volumes.clear();
        (self.search_at_s, self.waited_s) = (0.0, RETRY_S / 2.0);
        for volume in mounted {
            let backing_file = served::backing_file(volume).as_deref().map(lossless_path);
            self.volumes.insert(volume.dev, Details { backing_file, ..Details::default() });
        }
    }

    /// Searches for servers that are not known, or have ended. `now_s` is on a clock that does not
    /// step.
    pub(super) fn refresh(&mut self, now_s: f64, mounted: &[MountedVolume]) {
        for details in self.volumes.values_mut() {
            let pid = details.served_by.as_ref().map(|process| process.pid);
            if pid.is_some_and(|pid| started(pid) != details.start_ticks) {
                (details.served_by, details.start_ticks) = (None, None);
            }
        }
        let volumes = &mut self.volumes;
        let mut unknown = mounted.iter().filter(|volume| {
            served::is_fuse(&volume.fs_type)
                && volumes.get(&volume.dev).is_some_and(|known| known.served_by.is_none())
        });
        let Some(first) = unknown.next().filter(|_| now_s >= self.search_at_s) else { return };
        let unknown: Vec<&MountedVolume> = [first].into_iter().chain(unknown).collect();
        let servers = FuseServers::find();
        for volume in unknown {
            let Some(details) = volumes.get_mut(&volume.dev) else { continue };
            details.served_by = servers.of(volume);
            details.start_ticks =
                details.served_by.as_ref().and_then(|process| started(process.pid));
        }
        self.waited_s = (self.waited_s * 2.0).min(MAX_RETRY_S);
        self.search_at_s = now_s + self.waited_s;
    }

    /// What is behind a volume.
    pub(super) fn of(&self, dev: u32) -> Option<&Details> {
        self.volumes.get(&dev)
    }
}

fn started(pid: u32) -> Option<u64> {
    Some(stat::stat(pid)?.start_ticks)
}
