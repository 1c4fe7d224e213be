//! Whether files without a name that a scan has found are still held. Scans are some seconds apart, and
//! a step must not be suggested for space that is free by now.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use tracer_host::mounts::MountedVolume;
use tracer_host::open_files::mount_lookup::may_hang;
use tracer_host::process::threads;
use tracer_model::snapshot::{Held, HeldBy};

use super::interval::IntervalCounts;

/// Maximum number of descriptors of one process that are looked at for a file that another descriptor no
/// longer leads to.
const MAX_DESCRIPTORS: usize = 1024;

/// Maximum number of processes that are looked at for it.
const MAX_HOLDERS: usize = 8;

/// What is known of a file that was held at the last scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    /// It is held, and takes at most this space, bytes.
    Holds(u64),
    /// Its descriptor leads elsewhere, but another process may hold it.
    Elsewhere,
    /// It is held no longer.
    Gone,
}

/// What was allocated and freed of each of these files in an interval, bytes; by device and inode number.
#[derive(Debug, Default)]
pub(super) struct Changes(HashMap<(u32, u64), (u64, u64)>);

impl Changes {
    /// The changes of the files that the interval counted.
    pub(super) fn of(counts: &IntervalCounts, held: &[Held]) -> Self {
        let known = held.iter().filter_map(|file| Some(((file.dev?, file.ino?), (0, 0))));
        let mut changes: HashMap<(u32, u64), (u64, u64)> = known.collect();
        if !changes.is_empty() {
            for (key, sum) in counts.pairs().iter().filter(|(_, sum)| sum.freed > 0) {
                if let Some((allocated, freed)) = changes.get_mut(&(key.dev, key.ino)) {
                    *allocated = allocated.saturating_add(sum.allocated);
                    *freed = freed.saturating_add(sum.freed);
                }
            }
        }
        Self(changes)
    }

    /// What is left of a file of which something was freed, bytes; else what it had.
    fn left(&self, file: &Held) -> u64 {
        let key = file.dev.zip(file.ino);
        let (allocated, freed) = key.and_then(|key| self.0.get(&key)).copied().unwrap_or_default();
        if freed == 0 {
            return file.bytes;
        }
        file.bytes.saturating_add(allocated).saturating_sub(freed).min(file.bytes)
    }
}

/// Looks whether the file is still held, through its descriptor if it has one, and by what was freed.
pub(super) fn look(file: &Held, volumes: &[MountedVolume], changes: &Changes) -> Now {
    let left = changes.left(file);
    let now = match descriptor(file, volumes) {
        Some(Now::Holds(bytes)) => return Now::Holds(bytes.min(file.bytes)),
        Some(now) => now,
        // A mapping, or the kernel.
        None => Now::Holds(left),
    };
    if left == 0 { Now::Gone } else { now }
}

/// What the file's descriptor leads to; `None` if it has none, or it cannot be inspected without risk.
fn descriptor(file: &Held, volumes: &[MountedVolume]) -> Option<Now> {
    let fd = file.fd.filter(|_| file.pid != 0 && file.held_by == HeldBy::Descriptor)?;
    let volume = volumes.iter().find(|volume| Some(volume.dev) == file.dev)?;
    if may_hang(&volume.fs_type) {
        return None;
    }
    let tid = threads::running(file.pid);
    let is_it =
        |found: &fs::Metadata| found.nlink() == 0 && file.ino.is_none_or(|ino| ino == found.ino());
    match fs::metadata(format!("/proc/{tid}/fd/{fd}")) {
        Ok(found) if is_it(&found) => return Some(Now::Holds(found.blocks() * 512)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
        _ => {}
    }
    // A file of an overlay has no number by which another descriptor could be known for its.
    let elsewhere = if file.holders.len() > 1 { Now::Elsewhere } else { Now::Gone };
    if file.ino.is_none() || file.holders.len() > MAX_HOLDERS {
        return Some(elsewhere);
    }
    let mut goes_on = false;
    for pid in std::iter::once(&file.pid).chain(file.holders.iter().filter(|pid| **pid != file.pid))
    {
        let entries = fs::read_dir(format!("/proc/{}/fd", threads::running(*pid)));
        // A process that goes on may have the file mapped.
        goes_on |= *pid != file.pid && entries.is_ok();
        let others = entries.into_iter().flatten().flatten().take(MAX_DESCRIPTORS);
        let same = others.filter_map(|entry| fs::metadata(entry.path()).ok()).find(is_it);
        if let Some(found) = same {
            return Some(Now::Holds(found.blocks() * 512));
        }
    }
    Some(if goes_on { Now::Elsewhere } else { Now::Gone })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use tracer_common::{Counters, FileKey, ProcFileKey, ProcKey};
    use tracer_host::mounts;
    use tracer_model::snapshot::HeldKind;

    use super::*;

    fn held(by: HeldBy, fd: Option<i32>, dev: u32, ino: u64, bytes: u64) -> Held {
        let pid = std::process::id();
        Held {
            held_by: by,
            pid,
            comm: "test".to_owned(),
            fd,
            path: "/x".to_owned(),
            path_in_container: None,
            group: None,
            volume: "/".to_owned(),
            bytes,
            growing: false,
            kind: HeldKind::Deleted,
            holders: vec![pid],
            dev: Some(dev),
            ino: Some(ino),
        }
    }

    fn changed(dev: u32, ino: u64, allocated: u64, freed: u64) -> IntervalCounts {
        let mut counts = IntervalCounts::default();
        let key = ProcFileKey::new(
            ProcKey { start_ns: 1, tgid: 9, pad: 0 },
            FileKey { ino, generation: 3, dev },
        );
        counts.add(key, &Counters { allocated, freed, ..Counters::default() });
        counts
    }

    #[test]
    fn a_file_is_held_until_its_last_descriptor_is_closed() {
        let volumes = mounts::read().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let (ino, fd) = (file.metadata().unwrap().ino(), file.as_raw_fd());
        // Any volume that does not hang: the descriptor is looked at, whatever it is on.
        let dev = volumes.iter().find(|volume| !may_hang(&volume.fs_type)).unwrap().dev;
        let row = held(HeldBy::Descriptor, Some(fd), dev, ino, 1 << 20);
        let now = |row: &Held| look(row, &volumes, &Changes::default());
        assert_eq!(now(&row), Now::Holds(1 << 20));
        file.set_len(300_000).unwrap();
        let Now::Holds(left) = now(&row) else { panic!("it is held") };
        assert!((300_000..400_000).contains(&left), "{left}");
        let again = file.try_clone().unwrap();
        drop(file);
        assert!(matches!(now(&row), Now::Holds(_)), "another descriptor leads to it");
        let shared = Held { holders: vec![std::process::id(), 1], ..row.clone() };
        drop(again);
        assert_eq!(now(&row), Now::Gone);
        assert_eq!(now(&shared), Now::Elsewhere, "the other process may have it mapped");
        // No process has this number.
        let ended = Held { holders: vec![std::process::id(), u32::MAX], ..row.clone() };
        assert_eq!(now(&ended), Now::Gone, "the other process has ended");
        let evicted = changed(dev, ino, 0, 1 << 20);
        let changes = Changes::of(&evicted, std::slice::from_ref(&shared));
        assert_eq!(look(&shared, &volumes, &changes), Now::Gone, "all of it was freed");
    }

    #[test]
    fn what_has_no_descriptor_shrinks_by_what_was_freed() {
        let now = |counts: &IntervalCounts| {
            let row = held(HeldBy::Mapping, None, 8, 12, 1000);
            look(&row, &[], &Changes::of(counts, std::slice::from_ref(&row)))
        };
        assert_eq!(now(&IntervalCounts::default()), Now::Holds(1000));
        assert_eq!(now(&changed(8, 12, 500, 0)), Now::Holds(1000), "the next scan finds that");
        assert_eq!(now(&changed(8, 12, 100, 400)), Now::Holds(700));
        assert_eq!(now(&changed(8, 12, 0, 1000)), Now::Gone);
        assert_eq!(now(&changed(8, 13, 0, 1000)), Now::Holds(1000), "another file");
    }
}
