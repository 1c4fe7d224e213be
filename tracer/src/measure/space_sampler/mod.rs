//! Samples the space of written files from the filesystem once a second, where no hook traces
//! space.
//!
//! Files are kept by their handle (name_to_handle_at(2)), so they are still found after a rename,
//! and without a name while a process has them open; a stale handle means that the file is gone.
//! Short-lived changes between two samples are not seen, and growth is charged to the process that
//! wrote most to the file last, so the resulting rows are approximate.

mod compression;
mod handle;
mod sampled_file;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use tracer_common::{Counters, FileKey, ProcFileKey, ProcKey, slot_flags};

use self::compression::CompressionSavings;
use self::handle::Handle;
use self::sampled_file::SampledFile;
use crate::attribute::paths::Names;
use tracer_host::host_root;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::descriptors;
use tracer_kernel::read::Deltas;

/// Maximum number of sampled files; each costs some 4 µs per sample. Above that, the files that
/// were not written to for longest are dropped.
const MAX_FILES: usize = 2_048;
/// Maximum number of files added per sample, those with most bytes written first. For other files,
/// written bytes count as allocated.
const MAX_NEW: usize = 512;
/// File birth times are those of the kernel's last tick (`ktime_get_coarse_real_ts64`), at most 10
/// ms ago.
const BIRTH_TIME_ERROR: Duration = Duration::from_millis(10);
/// Filesystems that answer immediately, without a network, and support handles.
const LOCAL_TYPES: &[&str] = &[
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "tmpfs", "vfat", "xfs",
    "zfs",
];

/// The sampled files, by file.
pub(super) struct SpaceSampler {
    files: HashMap<FileKey, SampledFile>,
    /// Number of samples so far.
    samples: u64,
    /// Time just before the counters were read for the last sample, by the clock that filesystems
    /// use.
    sampled_at: SystemTime,
    /// Files created since this time that are not in `files` have not been reported yet: all their
    /// space is new. From the sample before the last one, because a file may be written to some
    /// time after it was created.
    new_since: SystemTime,
}

impl Default for SpaceSampler {
    fn default() -> Self {
        let now = SystemTime::now();
        Self { files: HashMap::new(), samples: 0, sampled_at: now, new_since: now }
    }
}

/// Activity on a file since the last sample.
struct Activity {
    /// Process that wrote most.
    writer: ProcKey,
    most: u64,
    /// Bytes written to it, or allocated if that is more.
    all: u64,
    /// Whether it was given space that another file shares; that is charged to no process.
    shared: bool,
}

/// Whether the space of this filesystem type can be sampled.
pub(super) fn can_sample(fs_type: &str) -> bool {
    LOCAL_TYPES.contains(&fs_type)
}

impl SpaceSampler {
    /// Samples the files on `volumes`. `deltas` is what the eBPF side counted since the last
    /// sample, and `began` is when its counters were read. Calls `report` with what each pair
    /// allocated and freed.
    pub(super) fn sample(
        &mut self,
        volumes: &[&MountedVolume],
        (deltas, began): (&Deltas, SystemTime),
        names: &mut Names,
        mut report: impl FnMut(ProcFileKey, &Counters),
    ) {
        self.samples += 1;
        let sampled_at = began.checked_sub(BIRTH_TIME_ERROR).unwrap_or(began);
        self.files.retain(|file, _| volumes.iter().any(|volume| volume.dev == file.dev));
        if volumes.is_empty() {
            (self.sampled_at, self.new_since) = (sampled_at, sampled_at);
            return;
        }
        let (mut written, mut left_out) = self.written(volumes, deltas, &mut report);
        written.retain(|file, written| match self.files.get_mut(file) {
            Some(known) => {
                known.owner = written.writer;
                known.written_at = self.samples;
                false
            }
            None => true,
        });
        for volume in volumes {
            // Opened only briefly: an open file would keep the volume from being unmounted.
            let Ok(root) = volume.open() else { continue };
            for (file, written) in written.iter().filter(|(file, _)| file.dev == volume.dev) {
                self.start_sampling(file, written, volume, names, &root);
            }
            let of_volume = self.files.iter_mut().filter(|(file, _)| file.dev == volume.dev);
            let saved = CompressionSavings::of(&deltas.saved, &root);
            for (file, known) in of_volume {
                let saved = saved.of_file(&known.handle, file.ino);
                if saved == 0 && !is_due(file, known, self.samples) {
                    continue;
                }
                let mut change = known.sample(&root, saved);
                if deltas.shared.contains(file) {
                    change.allocated = 0;
                }
                if change != Counters::default() {
                    report(ProcFileKey::new(known.owner, *file), &change);
                }
            }
        }
        self.files.retain(|_, known| !(known.unlinked && known.usage == 0));
        left_out |= self.evict_oldest();
        let before = std::mem::replace(&mut self.sampled_at, sampled_at);
        self.new_since = if left_out { sampled_at } else { before };
    }

    /// Returns the activity on files that are, or will be, sampled, and whether other files were
    /// left out; for those, written bytes are reported as allocated.
    fn written(
        &self,
        volumes: &[&MountedVolume],
        deltas: &Deltas,
        report: &mut impl FnMut(ProcFileKey, &Counters),
    ) -> (HashMap<FileKey, Activity>, bool) {
        let Deltas { pairs, shared, .. } = deltas;
        let bytes = |counters: &Counters| counters.written.max(counters.allocated);
        let sampled = || {
            pairs.iter().filter(|(pair, counters)| {
                bytes(counters) > 0 && volumes.iter().any(|volume| volume.dev == pair.dev)
            })
        };
        let is_new = |pair: &ProcFileKey| !self.files.contains_key(&pair.file());
        let new = sampled().filter(|(pair, _)| is_new(pair));
        let mut sizes: Vec<u64> = new.map(|(_, counters)| bytes(counters)).collect();
        let least = if sizes.len() > MAX_NEW {
            *sizes.select_nth_unstable_by_key(MAX_NEW - 1, |size| Reverse(*size)).1
        } else {
            0
        };
        let mut slots = MAX_NEW;
        let mut left_out = false;
        let mut files: HashMap<FileKey, Activity> = HashMap::new();
        for (pair, counters) in sampled() {
            let bytes = bytes(counters);
            if is_new(pair) {
                if bytes < least || slots == 0 {
                    left_out = true;
                    if !shared.contains(&pair.file()) {
                        let flags = slot_flags::APPROXIMATE;
                        report(*pair, &Counters { allocated: bytes, flags, ..Counters::default() });
                    }
                    continue;
                }
                slots -= 1;
            }
            let writer = pair.process();
            let shared = shared.contains(&pair.file());
            let nothing = Activity { writer, most: 0, all: 0, shared };
            let written = files.entry(pair.file()).or_insert(nothing);
            written.all += bytes;
            if bytes > written.most {
                written.most = bytes;
                written.writer = writer;
            }
        }
        (files, left_out)
    }

    /// Starts sampling a file. Space that it had before it was written to does not count for this
    /// interval.
    fn start_sampling(
        &mut self,
        file: &FileKey,
        written: &Activity,
        volume: &MountedVolume,
        names: &mut Names,
        root: &File,
    ) {
        let named = names.path(file).filter(|path| path.complete);
        let path = named.and_then(|path| volume.host_path(&path.path));
        let handle = path.and_then(|path| Handle::of(&host_root::path(&path)).ok());
        let mut found = handle.and_then(|handle| Some((handle, handle.open(root).ok()?)));
        if !found.as_ref().is_some_and(|(_, opened)| is_same_file(opened, file)) {
            // Renamed meanwhile, or it never had a name.
            let handle = descriptors::fd_path(written.writer.tgid, file)
                .and_then(|path| Handle::of(&path).ok());
            found = handle.and_then(|handle| Some((handle, handle.open(root).ok()?)));
        }
        let Some((handle, opened)) = found.filter(|(_, opened)| is_same_file(opened, file)) else {
            return;
        };
        let Ok(meta) = opened.metadata() else { return };
        let now = meta.blocks() * 512;
        // A file that is still being written grows meanwhile, so the written bytes are not a
        // reliable estimate.
        let is_new = meta.created().is_ok_and(|born| born >= self.new_since);
        let usage = match (written.shared, is_new) {
            (true, _) => now,
            (false, true) => 0,
            (false, false) => usage_before(now, meta.len(), written.all),
        };
        let (owner, written_at) = (written.writer, self.samples);
        let known = SampledFile { handle, usage, saved: 0, owner, written_at, unlinked: false };
        self.files.insert(*file, known);
    }

    /// Drops the files not written to for longest. Returns whether one of them was written to in
    /// the last two samples.
    fn evict_oldest(&mut self) -> bool {
        if self.files.len() <= MAX_FILES {
            return false;
        }
        let mut ages: Vec<u64> = self.files.values().map(|known| known.written_at).collect();
        let excess = ages.len() - MAX_FILES;
        let (_, last, _) = ages.select_nth_unstable(excess - 1);
        let (last, mut rest) = (*last, excess);
        self.files.retain(|_, known| {
            let evict = rest > 0 && known.written_at <= last;
            rest -= usize::from(evict);
            !evict
        });
        last + 1 >= self.samples
    }
}

/// Recently written files are sampled every time, others in turns.
const fn is_due(file: &FileKey, known: &SampledFile, samples: u64) -> bool {
    const RECENT_SAMPLES: u64 = 10;
    samples - known.written_at <= RECENT_SAMPLES
        || (file.ino + samples).is_multiple_of(RECENT_SAMPLES)
}

/// Estimates the space of a file before `written` bytes were written to it: none if they are its
/// whole length, otherwise all but what they can have allocated.
const fn usage_before(usage: u64, len: u64, written: u64) -> u64 {
    const BLOCK: u64 = 4096;
    if len <= written { 0 } else { usage.saturating_sub(written.next_multiple_of(BLOCK)) }
}

fn is_same_file(opened: &File, file: &FileKey) -> bool {
    opened.metadata().is_ok_and(|meta| meta.is_file() && meta.ino() == file.ino)
}

#[cfg(test)]
mod tests {
    use super::handle::MAX_HANDLE_SZ;
    use super::*;

    #[test]
    fn space_used_before_is_not_counted() {
        assert_eq!(usage_before(8192, 5000, 5000), 0);
        assert_eq!(usage_before(8192, 5000, 100), 4096);
        assert_eq!(usage_before(0, 1 << 30, 100), 0);
    }

    #[test]
    fn the_oldest_files_are_dropped() {
        let handle = Handle { bytes: 0, kind: 0, handle: [0; MAX_HANDLE_SZ] };
        let owner = ProcKey { start_ns: 1, tgid: 1, pad: 0 };
        let mut space = SpaceSampler::default();
        for ino in 1..=MAX_FILES as u64 + 10 {
            let written_at = ino / 4;
            let known =
                SampledFile { handle, usage: 1, saved: 0, owner, written_at, unlinked: false };
            space.files.insert(FileKey { ino, generation: 0, dev: 8 }, known);
        }
        assert!(space.evict_oldest());
        assert!(!space.evict_oldest());
        assert_eq!(space.files.len(), MAX_FILES);
        let newest = FileKey { ino: MAX_FILES as u64 + 10, generation: 0, dev: 8 };
        assert!(space.files.contains_key(&newest));
    }
}
