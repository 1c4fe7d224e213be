//! Deleted files that are still open, from /proc/PID/fd: what `lsof +L1` shows and `du` cannot see.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use tracer_model::sanitize;
use tracer_model::sanitize::lossless_path;
use tracer_model::snapshot::{Group, Held, HeldKind};

use crate::attribute::groups::Groups;
use tracer_host::mounts::MountedVolume;
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_host::open_files::{OpenFile, OpenFiles};

/// The result of one pass over all open files.
#[derive(Debug, Default)]
pub struct DeletedFiles {
    /// One entry per file, largest first.
    pub files: Vec<Held>,
    /// Number of processes whose descriptors could not be read for lack of privileges.
    pub unreadable: usize,
}

/// Selects the open files that have no name left. `before` is an earlier result, to detect growth.
#[must_use]
pub fn find(
    open: &OpenFiles,
    volumes: &[MountedVolume],
    lookup: &MountLookup,
    groups: &mut Groups,
    before: Option<&DeletedFiles>,
) -> DeletedFiles {
    let mut found: BTreeMap<_, Held> = BTreeMap::new();
    let mut last: Option<(u32, Option<Group>)> = None;
    for file in open.files.iter().filter(|file| file.links == 0) {
        let Some(volume) = volumes.iter().find(|volume| volume.dev == file.dev) else { continue };
        if last.as_ref().is_none_or(|(pid, _)| *pid != file.pid) {
            last = Some((file.pid, groups.of_pid(file.pid)));
        }
        let group = || last.as_ref().and_then(|(_, group)| group.clone());
        let known = found.entry(file.key()).or_insert_with(|| row(file, volume, lookup, group()));
        if known.holders.last() != Some(&file.pid) {
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
    DeletedFiles { files, unreadable: open.unreadable }
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
    Held {
        pid: file.pid,
        comm: sanitize::lossless(
            fs::read(format!("/proc/{}/comm", file.pid)).unwrap_or_default().trim_ascii_end(),
        ),
        fd: Some(file.fd),
        path: lossless_path(&paths.host),
        path_in_container: paths.in_container.as_deref().map(lossless_path),
        group,
        volume: lossless_path(&volume.primary().mount_point),
        bytes: file.bytes,
        growing: false,
        kind: if anonymous { HeldKind::Anonymous } else { HeldKind::Deleted },
        holders: vec![file.pid],
        dev: Some(volume.dev),
        ino: file.overlay.is_none().then_some(file.ino),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use tracer_host::mounts;
    use tracer_host::open_files::from_proc;

    #[test]
    fn a_deleted_file_is_found_with_its_holder_and_exact_size() {
        let volumes = mounts::read().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 300_000]).unwrap();
        file.sync_all().unwrap();
        let meta = file.metadata().unwrap();
        let (lookup, mut groups) = (MountLookup::new(&volumes), Groups::default());
        let held = find(&from_proc(&lookup), &volumes, &lookup, &mut groups, None);
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
        let later = find(&from_proc(&lookup), &volumes, &lookup, &mut groups, Some(&held));
        assert!(later.files.iter().any(|row| row.ino == Some(meta.ino()) && row.growing));
    }
}
