//! Samples the space of written files from the filesystem once a second, where no hook traces
//! space.
//!
//! Files are kept by their handle (name_to_handle_at(2)), so they are still found after a rename,
//! and without a name while a process has them open; a stale handle means that the file is gone.
//! Short-lived changes between two samples are not seen, and growth is charged to the process that
//! wrote most to the file last, so the resulting rows are approximate.

mod handle;
mod saved;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::time::{Duration, SystemTime};

use tracer_common::{Counters, FileKey, ProcFileKey, ProcKey, slot_flags};

use self::handle::Handle;
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
const TICK: Duration = Duration::from_millis(10);
/// Filesystems that answer immediately, without a network, and support handles.
const LOCAL: &[&str] = &[
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "tmpfs", "vfat", "xfs",
    "zfs",
];

/// The sampled files, by file.
pub struct SampledSpace {
    files: HashMap<FileKey, Known>,
    looks: u64,
    /// Time just before the counters were read for the last sample, by the clock that filesystems
    /// use.
    looked_at: SystemTime,
    /// Files created since this time that are not in `files` have not been reported yet: all their
    /// space is new. From the sample before the last one, because a file may be written to some
    /// time after it was created.
    new_since: SystemTime,
}

impl Default for SampledSpace {
    fn default() -> Self {
        let now = SystemTime::now();
        Self { files: HashMap::new(), looks: 0, looked_at: now, new_since: now }
    }
}

/// State of a sampled file.
struct Known {
    handle: Handle,
    /// Bytes that its filesystem charged to it at the last sample.
    gauge: u64,
    /// Part of them, in bytes, that is not taken from the volume because it was compressed.
    saved: u64,
    /// Process that wrote most to it in the last sample that saw it written.
    owner: ProcKey,
    /// Number of that sample.
    written_at: u64,
    /// Whether the removal of its last name was reported.
    unlinked: bool,
}

/// Activity on a file since the last sample.
struct Written {
    /// Process that wrote most.
    by: ProcKey,
    most: u64,
    /// Bytes written to it, or allocated if that is more.
    all: u64,
    /// Whether it was given space that another file shares; that is charged to no process.
    shared: bool,
}

/// Whether the space of this filesystem type can be sampled.
#[must_use]
pub fn can_sample(fs_type: &str) -> bool {
    LOCAL.contains(&fs_type)
}

impl SampledSpace {
    /// Samples the files on `volumes`. `deltas` is what the eBPF side counted since the last
    /// sample, and `began` is when its counters were read. Calls `tell` with what each pair
    /// allocated and freed.
    pub fn look(
        &mut self,
        volumes: &[&MountedVolume],
        (deltas, began): (&Deltas, SystemTime),
        names: &mut Names,
        mut tell: impl FnMut(ProcFileKey, &Counters),
    ) {
        self.looks += 1;
        let looked_at = began.checked_sub(TICK).unwrap_or(began);
        self.files.retain(|file, _| volumes.iter().any(|volume| volume.dev == file.dev));
        if volumes.is_empty() {
            (self.looked_at, self.new_since) = (looked_at, looked_at);
            return;
        }
        let (mut written, mut left_out) = self.written(volumes, deltas, &mut tell);
        written.retain(|file, written| match self.files.get_mut(file) {
            Some(known) => {
                known.owner = written.by;
                known.written_at = self.looks;
                false
            }
            None => true,
        });
        for volume in volumes {
            // Opened only briefly: an open file would keep the volume from being unmounted.
            let Ok(root) = open_quietly(volume) else { continue };
            for (file, written) in written.iter().filter(|(file, _)| file.dev == volume.dev) {
                self.take_up(file, written, volume, names, &root);
            }
            let of_volume = self.files.iter_mut().filter(|(file, _)| file.dev == volume.dev);
            let saved = saved::Savings::of(&deltas.saved, &root);
            for (file, known) in of_volume {
                let saved = saved.of_file(&known.handle, file.ino);
                if saved == 0 && !is_due(file, known, self.looks) {
                    continue;
                }
                let mut change = known.look(&root, saved);
                if deltas.shared.contains(file) {
                    change.allocated = 0;
                }
                if change != Counters::default() {
                    tell(ProcFileKey::new(known.owner, *file), &change);
                }
            }
        }
        self.files.retain(|_, known| !(known.unlinked && known.gauge == 0));
        left_out |= self.forget_old();
        let before = std::mem::replace(&mut self.looked_at, looked_at);
        self.new_since = if left_out { looked_at } else { before };
    }

    /// Returns the activity on files that are, or will be, sampled, and whether other files were
    /// left out; for those, written bytes are reported as allocated.
    fn written(
        &self,
        volumes: &[&MountedVolume],
        deltas: &Deltas,
        tell: &mut impl FnMut(ProcFileKey, &Counters),
    ) -> (HashMap<FileKey, Written>, bool) {
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
        let mut room = MAX_NEW;
        let mut left_out = false;
        let mut files: HashMap<FileKey, Written> = HashMap::new();
        for (pair, counters) in sampled() {
            let bytes = bytes(counters);
            if is_new(pair) {
                if bytes < least || room == 0 {
                    left_out = true;
                    if !shared.contains(&pair.file()) {
                        let flags = slot_flags::APPROXIMATE;
                        tell(*pair, &Counters { allocated: bytes, flags, ..Counters::default() });
                    }
                    continue;
                }
                room -= 1;
            }
            let by = pair.process();
            let shared = shared.contains(&pair.file());
            let nothing = Written { by, most: 0, all: 0, shared };
            let written = files.entry(pair.file()).or_insert(nothing);
            written.all += bytes;
            if bytes > written.most {
                written.most = bytes;
                written.by = by;
            }
        }
        (files, left_out)
    }

    /// Starts sampling a file. Space that it had before it was written to does not count for this
    /// interval.
    fn take_up(
        &mut self,
        file: &FileKey,
        written: &Written,
        volume: &MountedVolume,
        names: &mut Names,
        root: &File,
    ) {
        let named = names.within(file).filter(|within| within.complete);
        let path = named.and_then(|within| volume.host_path(&within.path));
        let handle = path.and_then(|path| Handle::of(&host_root::path(&path)).ok());
        let mut found = handle.and_then(|handle| Some((handle, handle.open(root).ok()?)));
        if !found.as_ref().is_some_and(|(_, opened)| is_it(opened, file)) {
            // Renamed meanwhile, or it never had a name.
            let handle =
                descriptors::fd_path(written.by.tgid, file).and_then(|path| Handle::of(&path).ok());
            found = handle.and_then(|handle| Some((handle, handle.open(root).ok()?)));
        }
        let Some((handle, opened)) = found.filter(|(_, opened)| is_it(opened, file)) else {
            return;
        };
        let Ok(meta) = opened.metadata() else { return };
        let now = meta.blocks() * 512;
        // A file that is still being written grows meanwhile, so the written bytes are not a
        // reliable estimate.
        let is_new = meta.created().is_ok_and(|born| born >= self.new_since);
        let gauge = match (written.shared, is_new) {
            (true, _) => now,
            (false, true) => 0,
            (false, false) => before(now, meta.len(), written.all),
        };
        let (owner, written_at) = (written.by, self.looks);
        let known = Known { handle, gauge, saved: 0, owner, written_at, unlinked: false };
        self.files.insert(*file, known);
    }

    /// Drops the files not written to for longest. Returns whether one of them was written to in
    /// the last two samples.
    fn forget_old(&mut self) -> bool {
        if self.files.len() <= MAX_FILES {
            return false;
        }
        let mut ages: Vec<u64> = self.files.values().map(|known| known.written_at).collect();
        let excess = ages.len() - MAX_FILES;
        let (_, last, _) = ages.select_nth_unstable(excess - 1);
        let (last, mut rest) = (*last, excess);
        self.files.retain(|_, known| {
            let goes = rest > 0 && known.written_at <= last;
            rest -= usize::from(goes);
            !goes
        });
        last + 1 >= self.looks
    }
}

impl Known {
    /// Returns the changes since the last sample; `saved` is the number of the file's bytes that
    /// compression saved meanwhile.
    fn look(&mut self, root: &File, saved: u64) -> Counters {
        let (now, names) = match self.handle.open(root).and_then(|opened| opened.metadata()) {
            Ok(meta) => (meta.blocks() * 512, meta.nlink()),
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => (0, 0),
            // The state is unknown.
            Err(_) => return Counters::default(),
        };
        let mut change = Counters {
            allocated: now.saturating_sub(self.gauge),
            freed: self.settle(now, saved),
            ..Counters::default()
        };
        self.gauge = now;
        if names == 0 && !self.unlinked {
            self.unlinked = true;
            change.unlinked = 1;
        }
        if change != Counters::default() {
            change.flags = slot_flags::APPROXIMATE;
        }
        change
    }
}

impl Known {
    /// Returns what the volume got back when the file's space became `now` and compression `saved`
    /// bytes.
    fn settle(&mut self, now: u64, saved: u64) -> u64 {
        let shrunk = self.gauge.saturating_sub(now);
        let kept = if shrunk == 0 {
            self.saved
        } else {
            // In proportion, because it is unknown which extents were freed.
            (u128::from(self.saved) * u128::from(now) / u128::from(self.gauge)) as u64
        };
        let released = self.saved - kept;
        // For files that are overwritten, at most their whole size.
        let saved = saved.min(now.saturating_sub(kept));
        self.saved = kept + saved;
        shrunk.saturating_sub(released) + saved
    }
}

/// Recently written files are sampled every time, others in turns.
const fn is_due(file: &FileKey, known: &Known, looks: u64) -> bool {
    const LATELY: u64 = 10;
    looks - known.written_at <= LATELY || (file.ino + looks).is_multiple_of(LATELY)
}

/// Estimates the space of a file before `written` bytes were written to it: none if they are its
/// whole length, otherwise all but what they can have allocated.
const fn before(gauge: u64, len: u64, written: u64) -> u64 {
    const BLOCK: u64 = 4096;
    if len <= written { 0 } else { gauge.saturating_sub(written.next_multiple_of(BLOCK)) }
}

fn is_it(opened: &File, file: &FileKey) -> bool {
    opened.metadata().is_ok_and(|meta| meta.is_file() && meta.ino() == file.ino)
}

/// Opens a directory of the volume without updating its access time.
fn open_quietly(volume: &MountedVolume) -> io::Result<File> {
    let mount = volume.visible_mount().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK)
        .open(host_root::path(&mount.mount_point))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::handle::MAX_HANDLE_SZ;
    use super::*;

    #[test]
    fn a_file_is_found_under_another_name_and_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let path = dir.path().join("a");
        let mut open = File::create(&path).unwrap();
        let Ok(handle) = Handle::of(&path) else {
            println!("SKIP this filesystem has no handles");
            return;
        };
        if handle.open(&root).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
            println!("SKIP no CAP_DAC_READ_SEARCH");
            return;
        }
        let owner = ProcKey { start_ns: 1, tgid: 1, pad: 0 };
        let mut known = Known { handle, gauge: 0, saved: 0, owner, written_at: 0, unlinked: false };
        open.write_all(&vec![1; 1 << 20]).unwrap();
        open.sync_all().unwrap();
        fs::rename(&path, dir.path().join("b")).unwrap();
        let change = known.look(&root, 0);
        assert!(
            change.allocated >= 1 << 20 && change.freed == 0 && change.unlinked == 0,
            "{change:?}"
        );
        assert_eq!(change.flags, slot_flags::APPROXIMATE);
        assert_eq!(known.look(&root, 0), Counters::default());
        fs::remove_file(dir.path().join("b")).unwrap();
        let unlinked = known.look(&root, 0);
        assert_eq!((unlinked.unlinked, unlinked.freed), (1, 0));
        drop(open);
        let freed = known.look(&root, 0);
        assert_eq!((freed.freed, freed.unlinked), (change.allocated, 0));
    }

    #[test]
    fn what_compression_saved_is_freed_once() {
        let handle = Handle { bytes: 0, kind: 0, handle: [0; MAX_HANDLE_SZ] };
        let owner = ProcKey { start_ns: 1, tgid: 1, pad: 0 };
        let mut known =
            Known { handle, gauge: 1000, saved: 0, owner, written_at: 0, unlinked: false };
        let mut became = |now, saved| {
            let freed = known.settle(now, saved);
            known.gauge = now;
            freed
        };
        assert_eq!(became(1000, 600), 600);
        // More than there is: it was overwritten.
        assert_eq!(became(1000, 600), 400);
        assert_eq!(became(2000, 0), 0);
        // Half of 2000 are freed, of which 500 were given back already.
        assert_eq!(became(1000, 0), 500);
        assert_eq!(became(0, 0), 500);
        assert_eq!(became(0, 7), 0);
    }

    #[test]
    fn what_was_there_before_is_not_counted() {
        assert_eq!(before(8192, 5000, 5000), 0);
        assert_eq!(before(8192, 5000, 100), 4096);
        assert_eq!(before(0, 1 << 30, 100), 0);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let handle = Handle { bytes: 0, kind: 0, handle: [0; MAX_HANDLE_SZ] };
        let owner = ProcKey { start_ns: 1, tgid: 1, pad: 0 };
        let mut space = SampledSpace::default();
        for ino in 1..=MAX_FILES as u64 + 10 {
            let written_at = ino / 4;
            let known = Known { handle, gauge: 1, saved: 0, owner, written_at, unlinked: false };
            space.files.insert(FileKey { ino, generation: 0, dev: 8 }, known);
        }
        assert!(space.forget_old());
        assert!(!space.forget_old());
        assert_eq!(space.files.len(), MAX_FILES);
        let newest = FileKey { ino: MAX_FILES as u64 + 10, generation: 0, dev: 8 };
        assert!(space.files.contains_key(&newest));
    }
}
