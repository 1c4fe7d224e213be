//! One walk over all open descriptors, for all who want to know of them: held files, residents, the
//! picture at start-up. Where the kernel side can tell them, it does ([`told`]); else /proc is asked
//! ([`walk`]).
//!
//! Made for 100,000 descriptors: a look at the file tells a regular one from a socket, and whether it
//! has a name left; a look at the link tells by its permissions whether it is open for writing
//! (proc_pid_fd(5)); only what is kept has its path read; and processes are shared out among threads.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, open, readlink, readlinkat, statat};

use tracer_common::OpenFileRecord;

use crate::collect::mounts::{self, MountedVolume};

/// More threads than that gain nothing: they meet in the same locks of the kernel.
const MAX_THREADS: usize = 8;
/// Processes that a thread takes at once.
const CHUNK: usize = 16;
/// Room for the entries of a directory, bytes.
const DIRECTORY_BUFFER: usize = 32 << 10;

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

/// The same from what the kernel side told: only the paths are asked of /proc. A
/// descriptor that was closed meanwhile is left out.
#[must_use]
pub fn told(records: &[OpenFileRecord]) -> OpenFiles {
    let mut found = OpenFiles { descriptors: records.len(), ..OpenFiles::default() };
    let mut last = None;
    for record in records {
        found.processes += usize::from(last != Some(record.pid));
        last = Some(record.pid);
        let Ok(link) = readlink(format!("/proc/{}/fd/{}", record.pid, record.fd), Vec::new())
        else {
            continue;
        };
        found.files.push(OpenFile {
            pid: record.pid,
            fd: record.fd as i32,
            link: PathBuf::from(OsString::from_vec(link.into_bytes())),
            dev: record.dev,
            ino: record.ino,
            bytes: record.bytes,
            links: record.links.into(),
            writable: record.writable != 0,
        });
    }
    found.files.sort_by_key(|file| (file.pid, file.fd));
    found
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
        let mut buffer = Vec::with_capacity(DIRECTORY_BUFFER);
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            let Some(chunk) = pids.get(from..pids.len().min(from + CHUNK)) else { return found };
            if chunk.is_empty() {
                return found;
            }
            for pid in chunk {
                look_into(*pid, &volumes, &mut buffer, &mut found);
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
    fn device(&self, pid: u32, fd: i32, st_dev: u64) -> Option<u32> {
        if let Some(dev) = self.plain.get(&st_dev) {
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

fn look_into(pid: u32, volumes: &Volumes, buffer: &mut Vec<u8>, found: &mut OpenFiles) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = open(format!("/proc/{pid}/fd"), flags, Mode::empty()) else {
        // Gone meanwhile is fine; not allowed is not.
        found.unreadable += usize::from(Path::new(&format!("/proc/{pid}")).exists());
        return;
    };
    found.processes += 1;
    // Names relative to the directory: /proc is not walked, and its rights not checked, once more
    // for each.
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        let Some(fd) = name.to_str().ok().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        found.descriptors += 1;
        // Most descriptors of most hosts are sockets and pipes: this is all that they cost.
        let Ok(file) = statat(&dir, name, AtFlags::empty()) else { continue };
        if FileType::from_raw_mode(file.st_mode) != FileType::RegularFile {
            continue;
        }
        let writable = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|link| link.st_mode & 0o200 != 0);
        if !writable && file.st_nlink != 0 {
            continue;
        }
        let Some(dev) = volumes.device(pid, fd, file.st_dev) else { continue };
        let Ok(link) = readlinkat(&dir, name, Vec::new()) else { continue };
        found.files.push(OpenFile {
            pid,
            fd,
            link: PathBuf::from(OsString::from_vec(link.into_bytes())),
            dev,
            ino: file.st_ino,
            bytes: u64::try_from(file.st_blocks).unwrap_or(0) * 512,
            links: file.st_nlink,
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
    use std::{io::Write as _, os::unix::fs::MetadataExt as _};

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
