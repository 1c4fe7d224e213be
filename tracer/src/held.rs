//! Deleted-but-open files, from /proc/PID/fd: what `lsof +L1` shows and `du` cannot.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use tracer_model::{sanitize, snapshot::Held};

use crate::{
    attribute::paths::strip_deleted,
    collect::mounts::{self, MountedVolume},
};

/// What one look found.
#[derive(Debug, Default)]
pub struct HeldFiles {
    /// One per file, largest first.
    pub files: Vec<Held>,
    /// Processes whose descriptors could not be read, for want of privileges.
    pub unreadable: usize,
}

/// Looks through all processes. `before` is an earlier look, to tell what grew.
#[must_use]
pub fn scan(volumes: &[MountedVolume], before: Option<&HeldFiles>) -> HeldFiles {
    let by_mount_id: HashMap<u32, u32> = volumes
        .iter()
        .flat_map(|volume| &volume.mounts)
        .map(|mount| (mount.id, mount.dev))
        .collect();
    let mut found: BTreeMap<(u32, u64), Held> = BTreeMap::new();
    let mut unreadable = 0;
    for pid in pids() {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            // Gone meanwhile is fine; not allowed is not.
            unreadable += usize::from(Path::new(&format!("/proc/{pid}")).exists());
            continue;
        };
        for entry in entries.flatten() {
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let Ok(meta) = fs::metadata(entry.path()) else { continue };
            if meta.nlink() != 0 || !meta.is_file() {
                continue;
            }
            let Some(dev) = device(pid, fd, &by_mount_id) else { continue };
            let Some(volume) = volumes.iter().find(|volume| volume.dev == dev) else { continue };
            let known = found
                .entry((dev, meta.ino()))
                .or_insert_with(|| row(pid, fd, &entry.path(), &meta, volume));
            if known.holders.last() != Some(&pid) {
                known.holders.push(pid);
            }
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
    HeldFiles { files, unreadable }
}

fn grew(before: &HeldFiles, now: &Held) -> bool {
    let same = |earlier: &&Held| earlier.ino == now.ino && earlier.dev == now.dev;
    before.files.iter().find(same).is_some_and(|earlier| earlier.bytes < now.bytes)
}

fn row(pid: u32, fd: i32, link: &Path, meta: &fs::Metadata, volume: &MountedVolume) -> Held {
    let target = fs::read_link(link).unwrap_or_default();
    let path = strip_deleted(&target);
    // open(2): an O_TMPFILE file is shown as `/dir/#INODE (deleted)`.
    let anonymous = path
        .file_name()
        .and_then(|name| name.as_bytes().strip_prefix(b"#"))
        .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit));
    Held {
        pid,
        comm: sanitize::lossless(
            fs::read(format!("/proc/{pid}/comm")).unwrap_or_default().trim_ascii_end(),
        ),
        fd: Some(fd),
        path: sanitize::lossless(path.as_os_str().as_bytes()),
        volume: sanitize::lossless(volume.primary().mount_point.as_os_str().as_bytes()),
        bytes: meta.blocks() * 512,
        growing: false,
        kind: if anonymous { "anonymous" } else { "deleted" }.to_owned(),
        holders: vec![pid],
        dev: Some(volume.dev),
        ino: Some(meta.ino()),
    }
}

/// The kernel's device number of an open file. By the mount's id, because btrfs shows another
/// number in stat than in mountinfo.
fn device(pid: u32, fd: i32, by_mount_id: &HashMap<u32, u32>) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let id: u32 =
        info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    by_mount_id.get(&id).copied().or_else(|| {
        // A mount of another mount namespace: a container's.
        let mountinfo = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
        mounts::parse(&mountinfo).iter().find(|mount| mount.id == id).map(|mount| mount.dev)
    })
}

/// All processes, our own too.
fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_deleted_file_is_found_by_its_holder_to_the_block() {
        let volumes = mounts::read().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 300_000]).unwrap();
        file.sync_all().unwrap();
        let meta = file.metadata().unwrap();
        let held = scan(&volumes, None);
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
        let later = scan(&volumes, Some(&held));
        assert!(later.files.iter().any(|row| row.ino == Some(meta.ino()) && row.growing));
    }
}
