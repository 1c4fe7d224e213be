//! One walk over all open descriptors, for all who want to know of them: held files, residents, the
//! picture at start-up.
//!
//! Made for 100,000 descriptors: a look at the link tells a path from a socket and, by its
//! permissions, whether it is open for writing (proc_pid_fd(5)); only files that are, or that have
//! no name left, are looked at themselves; and processes are shared out among threads.

use std::{
    collections::HashMap,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::collect::mounts::{self, MountedVolume};

/// More threads than that gain nothing: they meet in the same locks of the kernel.
const MAX_THREADS: usize = 8;
/// Processes that a thread takes at once.
const CHUNK: usize = 16;

/// A descriptor of a regular file that is open for writing, or whose file has no name left.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// Holder.
    pub pid: u32,
    /// Descriptor.
    pub fd: i32,
    /// As the link shows it: with ` (deleted)` if the file has no name left.
    pub link: PathBuf,
    /// `s_dev` of its volume.
    pub dev: u32,
    /// Inode number.
    pub ino: u64,
    /// st_blocks × 512.
    pub bytes: u64,
    /// Names left.
    pub links: u64,
    /// Is it open for writing?
    pub writable: bool,
}

/// What one walk found.
#[derive(Debug, Default)]
pub struct OpenFiles {
    /// By process, then by descriptor.
    pub files: Vec<OpenFile>,
    /// Descriptors of all kinds.
    pub descriptors: usize,
    /// Processes that were looked into.
    pub processes: usize,
    /// Processes whose descriptors could not be read, for want of privileges.
    pub unreadable: usize,
}

/// Looks through all processes, our own too.
#[must_use]
pub fn walk(volumes: &[MountedVolume]) -> OpenFiles {
    let volumes = Volumes::new(volumes);
    let mut pids = pids();
    pids.sort_unstable();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let threads = threads.min(pids.len() / CHUNK + 1);
    let work = || {
        let mut found = OpenFiles::default();
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            let Some(chunk) = pids.get(from..pids.len().min(from + CHUNK)) else { return found };
            if chunk.is_empty() {
                return found;
            }
            for pid in chunk {
                look_into(*pid, &volumes, &mut found);
            }
        }
    };
    let mut all = OpenFiles::default();
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        all.add(work());
        for helper in helpers {
            if let Ok(found) = helper.join() {
                all.add(found);
            }
        }
    });
    all.files.sort_by_key(|file| (file.pid, file.fd));
    all
}

impl OpenFiles {
    fn add(&mut self, other: Self) {
        self.files.extend(other.files);
        self.descriptors += other.descriptors;
        self.processes += other.processes;
        self.unreadable += other.unreadable;
    }
}

/// Device numbers of the host's volumes.
struct Volumes {
    /// `s_dev` by the number that stat shows, of filesystems where they are the same.
    plain: HashMap<u64, u32>,
    by_mount_id: HashMap<u32, u32>,
}

impl Volumes {
    fn new(volumes: &[MountedVolume]) -> Self {
        Self {
            plain: volumes
                .iter()
                .filter(|volume| volume.fs_type != "btrfs")
                .map(|volume| {
                    (rustix::fs::makedev(volume.dev >> 20, volume.dev & 0xf_ffff), volume.dev)
                })
                .collect(),
            by_mount_id: volumes
                .iter()
                .flat_map(|volume| &volume.mounts)
                .map(|mount| (mount.id, mount.dev))
                .collect(),
        }
    }

    /// The kernel's device number of an open file. By the mount's id where stat's number is none of
    /// a volume's, because btrfs shows another number there than in mountinfo.
    fn device(&self, pid: u32, fd: i32, meta: &fs::Metadata) -> Option<u32> {
        if let Some(dev) = self.plain.get(&meta.dev()) {
            return Some(*dev);
        }
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
        let id: u32 =
            info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
        self.by_mount_id.get(&id).copied().or_else(|| {
            // A mount of another mount namespace: a container's.
            let mountinfo = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
            mounts::parse(&mountinfo).iter().find(|mount| mount.id == id).map(|mount| mount.dev)
        })
    }
}

fn look_into(pid: u32, volumes: &Volumes, found: &mut OpenFiles) {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        // Gone meanwhile is fine; not allowed is not.
        found.unreadable += usize::from(Path::new(&format!("/proc/{pid}")).exists());
        return;
    };
    found.processes += 1;
    for entry in entries.flatten() {
        found.descriptors += 1;
        let path = entry.path();
        let Ok(link) = fs::read_link(&path) else { continue };
        let name = link.as_os_str().as_bytes();
        // Else `socket:[1]`, `pipe:[2]`, `anon_inode:…`; and devices, which are many.
        if !name.starts_with(b"/") || name.starts_with(b"/dev/pts/") || name == b"/dev/null" {
            continue;
        }
        let writable = entry.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o200 != 0);
        if !writable && !name.ends_with(b" (deleted)") {
            continue;
        }
        let Ok(meta) = fs::metadata(&path) else { continue };
        if !meta.is_file() || meta.file_type().is_char_device() || (!writable && meta.nlink() != 0)
        {
            continue;
        }
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some(dev) = volumes.device(pid, fd, &meta) else { continue };
        found.files.push(OpenFile {
            pid,
            fd,
            link,
            dev,
            ino: meta.ino(),
            bytes: meta.blocks() * 512,
            links: meta.nlink(),
            writable,
        });
    }
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn finds_what_is_open_for_writing_and_what_has_no_name() {
        let volumes = mounts::read().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("named");
        let mut named = fs::File::create(&path).unwrap();
        named.write_all(&[7; 10_000]).unwrap();
        named.sync_all().unwrap();
        let reader = fs::File::open(&path).unwrap();
        let gone = tempfile::tempfile().unwrap();
        let found = walk(&volumes);
        let ours: Vec<_> = found.files.iter().filter(|f| f.pid == std::process::id()).collect();
        let by_ino = |file: &fs::File| {
            let ino = file.metadata().unwrap().ino();
            ours.iter().filter(|f| f.ino == ino).collect::<Vec<_>>()
        };
        let rows = by_ino(&named);
        assert_eq!(rows.len(), 1, "the reader is left out");
        assert_eq!((rows[0].bytes, rows[0].links, rows[0].writable), (12_288, 1, true));
        assert_eq!(rows[0].link, path);
        let rows = by_ino(&gone);
        assert_eq!((rows.len(), rows[0].links), (1, 0));
        assert!(found.descriptors > found.files.len() && found.processes > 0);
        drop(reader);
    }
}
