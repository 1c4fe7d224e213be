//! Paths of the cgroup v2 hierarchy, by cgroup id. Those that exist at the start are read from the
//! mounted hierarchy; the eBPF side reports later ones.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tracer_common::records::{CGROUP_DEV, NAME_BUFFER, NAME_MAX, name_flags};
use tracer_common::{FileKey, NameRecord, RecordHeader, RecordKind};

use crate::attribute::paths::Names;
use tracer_host::host_root;

/// Maximum depth that is read; deeper cgroups are ignored. The kernel's limit is
/// `cgroup.max.depth`, but paths cannot be longer than 4,096 bytes.
const MAX_DEPTH: usize = 64;

/// Names of cgroups. Keyed by inode number in the v2 hierarchy, which is the cgroup's id.
#[derive(Default)]
pub struct Cgroups {
    names: Names,
}

impl Cgroups {
    /// Reads the cgroups that exist now.
    #[must_use]
    pub fn read() -> Self {
        let mountinfo = fs::read_to_string(host_root::mountinfo()).unwrap_or_default();
        let mounted = mount_point(&mountinfo).map(|point| host_root::path(&point));
        mounted.map_or_else(Self::default, |root| Self::below(&root))
    }

    fn below(root: &Path) -> Self {
        let mut cgroups = Self::default();
        if let Ok(meta) = fs::metadata(root) {
            cgroups.insert(&record(meta.ino(), meta.ino(), b"", name_flags::ROOT));
            cgroups.read_below(root, meta.ino(), MAX_DEPTH);
        }
        cgroups
    }

    fn read_below(&mut self, directory: &Path, ino: u64, depth: usize) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            if depth > 0
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(meta) = entry.metadata()
            {
                self.insert(&record(meta.ino(), ino, entry.file_name().as_bytes(), 0));
                self.read_below(&entry.path(), meta.ino(), depth - 1);
            }
        }
    }

    /// Adds a cgroup that the eBPF side reported.
    pub fn insert(&mut self, record: &NameRecord) {
        self.names.insert(record);
    }

    /// The path of a cgroup in the hierarchy; `None` if unknown.
    pub fn path(&mut self, id: u64) -> Option<PathBuf> {
        let found = self.names.path(&key(id))?;
        found.complete.then_some(found.path)
    }

    /// Begins a new interval. If there are too many, the least recently used are forgotten.
    pub fn next_interval(&mut self) {
        self.names.next_interval();
    }
}

fn key(ino: u64) -> FileKey {
    FileKey { ino, generation: 0, dev: CGROUP_DEV }
}

fn record(ino: u64, parent: u64, name: &[u8], flags: u32) -> NameRecord {
    let len = name.len().min(NAME_MAX);
    let mut buffer = [0; NAME_BUFFER];
    buffer[..len].copy_from_slice(&name[..len]);
    NameRecord {
        header: RecordHeader { kind: RecordKind::Name as u32, len: len as u32 },
        file: key(ino),
        parent: key(parent),
        flags,
        magic: 0,
        name: buffer,
    }
}

/// The mount point of the whole v2 hierarchy, not of a part of it.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (kind.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_found_by_inode_number() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("system.slice/web.service");
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        let ino = |path: &Path| fs::metadata(path).unwrap().ino();
        let mut cgroups = Cgroups::below(root.path());
        let path = cgroups.path(ino(&deep)).unwrap();
        assert_eq!(path, Path::new("/system.slice/web.service"));
        assert_eq!(cgroups.path(ino(root.path())).unwrap(), Path::new("/"));
        let file = ino(&root.path().join("cgroup.procs"));
        assert_eq!(cgroups.path(file), None);
        // Reported later, by the eBPF side.
        cgroups.insert(&record(u64::MAX, ino(&deep), b"worker", 0));
        let path = cgroups.path(u64::MAX).unwrap();
        assert_eq!(path, Path::new("/system.slice/web.service/worker"));
    }

    #[test]
    fn the_mount_of_version_2_is_found() {
        let hybrid = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 /part /mnt rw - cgroup2 cgroup2 rw
33 30 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw,nsdelegate
";
        assert_eq!(mount_point(hybrid).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"), None);
    }
}
