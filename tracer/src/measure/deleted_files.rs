//! Files without a name that still take space, and what holds them: what `lsof +L1` shows, and more,
//! and `du` cannot see.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use tracer_model::sanitize;
use tracer_model::sanitize::lossless_path;
use tracer_model::snapshot::{Group, Held, HeldBy, HeldKind};

use super::held_now::Now;
use super::open_files::OpenFileScan;
use crate::attribute::groups::Groups;
use tracer_host::mounts::MountedVolume;
use tracer_host::open_files::OpenFile;
use tracer_host::open_files::mount_lookup::MountLookup;

/// The result of one scan.
#[derive(Debug, Default)]
pub struct DeletedFiles {
    /// One entry per file, largest first.
    pub files: Vec<Held>,
    /// Number of processes whose open files could not be read completely for lack of privileges.
    pub unreadable: usize,
    /// Whether processes are hidden: /proc does not even show their number.
    pub hides_processes: bool,
    /// Devices of the volumes whose files are all in `files`.
    known: HashSet<u32>,
    /// Space of the files whose holder is unknown, by device, bytes: for the volumes on which all files
    /// without a name are known.
    unknown_holder: HashMap<u32, u64>,
}

/// Maximum number of files that are looked at between two scans.
const MAX_RECHECKED: usize = 64;

/// Name of the holder of a file whose holder is unknown.
const NOBODY: &str = "?";

impl DeletedFiles {
    /// Space of all files of a volume, bytes; `None` if some of them may be unknown.
    #[must_use]
    pub fn bytes_on(&self, dev: u32) -> Option<u64> {
        let on_it = self.files.iter().filter(|file| file.dev == Some(dev));
        self.known.contains(&dev).then(|| on_it.map(|file| file.bytes).sum())
    }

    /// The part of it whose holder is unknown, bytes; `None` if that is unknown.
    #[must_use]
    pub fn unknown_holder_bytes_on(&self, dev: u32) -> Option<u64> {
        self.unknown_holder.get(&dev).copied()
    }

    /// Looks at the largest files again: those that are held no longer are removed, and those that were
    /// truncated shrink. Returns whether something has changed hands, so that only a scan can tell.
    pub(super) fn recheck(&mut self, mut look: impl FnMut(&Held) -> Now) -> bool {
        let mut needs_scan = false;
        let mut at = 0;
        self.files.retain_mut(|file| {
            at += 1;
            if at > MAX_RECHECKED {
                return true;
            }
            let before = file.bytes;
            let now = look(file);
            match now {
                Now::Holds(bytes) => file.bytes = bytes,
                Now::Elsewhere => {}
                Now::Gone => file.bytes = 0,
            }
            needs_scan |= now == Now::Elsewhere;
            if file.held_by == HeldBy::Unknown
                && let Some(sum) = file.dev.and_then(|dev| self.unknown_holder.get_mut(&dev))
            {
                *sum = sum.saturating_sub(before - file.bytes);
            }
            now != Now::Gone
        });
        self.files.sort_by_key(|file| std::cmp::Reverse(file.bytes));
        needs_scan
    }

    /// Whether files of some volume may be missing.
    #[must_use]
    pub fn is_incomplete(&self, volumes: &[MountedVolume]) -> bool {
        volumes.iter().any(|volume| !self.known.contains(&volume.dev))
    }
}

/// Selects the open files that have no name left. `before` is an earlier result, to detect growth.
#[must_use]
pub fn find(
    scan: &OpenFileScan,
    volumes: &[MountedVolume],
    lookup: &MountLookup,
    groups: &mut Groups,
    before: Option<&DeletedFiles>,
) -> DeletedFiles {
    let mut found: BTreeMap<_, Held> = BTreeMap::new();
    let mut last: Option<(u32, Option<Group>)> = None;
    for file in scan.open.files.iter().filter(|file| file.links == 0) {
        let Some(volume) = volumes.iter().find(|volume| volume.dev == file.dev) else { continue };
        if last.as_ref().is_none_or(|(pid, _)| *pid != file.pid) {
            let group = if file.pid == 0 { None } else { groups.of_pid(file.pid) };
            last = Some((file.pid, group));
        }
        let group = || last.as_ref().and_then(|(_, group)| group.clone());
        let known = found.entry(file.key()).or_insert_with(|| row(file, volume, lookup, group()));
        // The row shows a descriptor if there is one: the file can be truncated through it.
        if file.held_by < known.held_by {
            let holders = std::mem::take(&mut known.holders);
            *known = Held { holders, ..row(file, volume, lookup, group()) };
        }
        if file.pid != 0 && !known.holders.contains(&file.pid) {
            known.holders.push(file.pid);
        }
    }
    let mut files: Vec<Held> = found
        .into_values()
        .map(|mut file| {
            file.growing = before.is_some_and(|before| grew(before, &file));
            file
        })
        .collect();
    files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let mut unknown_holder: HashMap<u32, u64> = scan.complete.iter().map(|dev| (*dev, 0)).collect();
    for file in files.iter().filter(|file| file.held_by == HeldBy::Unknown) {
        if let Some(sum) = file.dev.and_then(|dev| unknown_holder.get_mut(&dev)) {
            *sum += file.bytes;
        }
    }
    let known = volumes.iter().map(|volume| volume.dev).filter(|dev| scan.knows_held(*dev));
    DeletedFiles {
        files,
        unreadable: scan.open.unreadable.len(),
        hides_processes: scan.hides_processes,
        known: known.collect(),
        unknown_holder,
    }
}

/// Returns the name of a process, escaped; empty if it has exited.
pub(super) fn name_of(pid: u32) -> String {
    sanitize::lossless(fs::read(format!("/proc/{pid}/comm")).unwrap_or_default().trim_ascii_end())
}

fn grew(before: &DeletedFiles, now: &Held) -> bool {
    let same = |earlier: &&Held| match now.ino {
        Some(_) => (earlier.dev, earlier.ino) == (now.dev, now.ino),
        None => {
            let key = |held: &Held| (held.dev, held.ino, held.pid, held.fd);
            key(earlier) == key(now) && earlier.path == now.path
        }
    };
    before.files.iter().find(same).is_some_and(|earlier| earlier.bytes < now.bytes)
}

fn row(
    file: &OpenFile,
    volume: &MountedVolume,
    lookup: &MountLookup,
    group: Option<Group>,
) -> Held {
    let paths = lookup.paths(file);
    // open(2): an O_TMPFILE file is shown as `/dir/#INODE (deleted)`.
    let anonymous = paths
        .host
        .file_name()
        .and_then(|name| name.as_bytes().strip_prefix(b"#"))
        .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit));
    let comm = match &file.device {
        Some(device) => device.clone(),
        None if file.pid == 0 => NOBODY.to_owned(),
        None => name_of(file.pid),
    };
    Held {
        held_by: file.held_by,
        pid: file.pid,
        comm,
        fd: file.fd,
        path: lossless_path(&paths.host),
        path_in_container: paths.in_container.as_deref().map(lossless_path),
        group,
        volume: volume.name(),
        bytes: file.bytes,
        growing: false,
        kind: if anonymous { HeldKind::Anonymous } else { HeldKind::Deleted },
        holders: Vec::new(),
        dev: Some(volume.dev),
        ino: file.overlay.is_none().then_some(file.ino),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::measure::open_files::{ScanInput, scan};
    use tracer_host::mounts;

    #[test]
    fn what_is_held_no_longer_is_removed_without_a_scan() {
        let row = |ino: u64, held_by: HeldBy| Held {
            held_by,
            pid: 7,
            comm: "x".to_owned(),
            fd: None,
            path: format!("/{ino}"),
            path_in_container: None,
            group: None,
            volume: "/".to_owned(),
            bytes: 100,
            growing: false,
            kind: HeldKind::Deleted,
            holders: Vec::new(),
            dev: Some(8),
            ino: Some(ino),
        };
        let by = [HeldBy::Descriptor, HeldBy::Unknown, HeldBy::Unknown, HeldBy::Mapping];
        let mut held = DeletedFiles {
            files: (1..).zip(by).map(|(ino, by)| row(ino, by)).collect(),
            known: HashSet::from([8]),
            unknown_holder: HashMap::from([(8, 200)]),
            ..DeletedFiles::default()
        };
        let needs_scan = held.recheck(|file| match file.ino {
            Some(1 | 2) => Now::Gone,
            Some(3) => Now::Holds(40),
            _ => Now::Elsewhere,
        });
        let left: Vec<_> = held.files.iter().map(|file| (file.ino, file.bytes)).collect();
        assert_eq!(left, [(Some(4), 100), (Some(3), 40)]);
        assert_eq!((held.bytes_on(8), held.unknown_holder_bytes_on(8)), (Some(140), Some(40)));
        assert!(needs_scan);
    }

    #[test]
    fn a_deleted_file_is_found_with_its_holder_and_exact_size() {
        let volumes = mounts::read().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 300_000]).unwrap();
        file.sync_all().unwrap();
        let meta = file.metadata().unwrap();
        let (lookup, mut groups) = (MountLookup::new(&volumes), Groups::default());
        let scan = || {
            scan(ScanInput {
                source: None,
                volumes: &volumes,
                lookup: &lookup,
                names: &mut |_| None,
                want_mappings: true,
            })
        };
        let held = find(&scan(), &volumes, &lookup, &mut groups, None);
        let ours: Vec<&Held> = held
            .files
            .iter()
            .filter(|row| row.ino == Some(meta.ino()) && row.holders.contains(&std::process::id()))
            .collect();
        assert_eq!(ours.len(), 1, "one row for the file");
        assert_eq!(ours[0].bytes, meta.blocks() * 512);
        assert!(!ours[0].growing);
        file.write_all(&vec![7; 300_000]).unwrap();
        file.sync_all().unwrap();
        let later = find(&scan(), &volumes, &lookup, &mut groups, Some(&held));
        assert!(later.files.iter().any(|row| row.ino == Some(meta.ino()) && row.growing));
    }
}
