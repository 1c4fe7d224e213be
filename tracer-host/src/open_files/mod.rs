//! All open files, read in one pass for every consumer: deleted files, groups on a volume, and the
//! state at startup. If the eBPF side can list them, it does ([`from_bpf`]); otherwise /proc is read
//! ([`from_proc`], [`mappings_from_proc`]). What the kernel itself has open is in [`kernel_users`].
//!
//! Designed for 100,000 descriptors: one stat of the file distinguishes a regular file from a
//! socket and shows whether it has a name left; the link's permissions show whether it is open for
//! writing (proc_pid_fd(5)); the path is read only for files that are kept; and processes are
//! distributed over threads.

mod file;
pub mod kernel_users;
mod mappings;
pub mod mount_lookup;

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, open, readlink, readlinkat, statat,
};
use rustix::io::Errno;
use tracer_common::OpenFileRecord;
use tracer_model::snapshot::HeldBy;

use self::mappings::MappingPaths;
use self::mount_lookup::{FdStat, MountLookup};
use crate::process::{stat, threads};

pub use self::file::{OpenFile, OpenFiles};

/// More threads gain nothing: they contend for the same locks in the kernel.
const MAX_THREADS: usize = 8;
/// Number of processes that a thread takes at a time.
const CHUNK: usize = 16;
/// Buffer size for directory entries and mappings, bytes.
const BUFFER: usize = 32 << 10;

/// Builds the result from the records of an eBPF iterator over descriptors or mappings. Only the paths
/// are read from /proc, and the file behind an overlay's file if the eBPF side does not know it.
/// Descriptors closed meanwhile are left out.
#[must_use]
pub fn from_bpf(records: &[OpenFileRecord], lookup: &MountLookup) -> OpenFiles {
    let mut found = OpenFiles::default();
    let mut last = None;
    let mut paths = MappingPaths::default();
    let (mut mapped, mut through) = (HashSet::new(), Through::default());
    for record in records {
        if last != Some(record.pid) {
            last = Some(record.pid);
            found.processes += 1;
            mapped.clear();
        }
        let is_mapping = record.start != 0;
        let fd = (!is_mapping).then(|| record.fd.cast_signed());
        found.descriptors += usize::from(!is_mapping);
        // A file is mapped in several parts.
        if is_mapping && !mapped.insert((record.dev, record.ino)) {
            continue;
        }
        if record.overlay != 0 {
            if let Some(fd) = fd {
                let read = |tid: u32| {
                    let name = CString::new(format!("/proc/{tid}/fd/{fd}")).unwrap_or_default();
                    read_descriptor(CWD, &name, tid, fd, lookup)
                };
                match through.read(record.pid, read) {
                    Ok(file) => found.files.extend(file.map(|file| file.of(record.pid))),
                    Err(error) if stat::is_denied(&error.into(), record.pid) => {
                        found.unreadable.insert(record.pid);
                    }
                    _ => {}
                }
            }
            continue;
        }
        let link = if is_mapping {
            paths.path(record.pid, record.start)
        } else {
            let read = |tid| readlink(format!("/proc/{tid}/fd/{}", record.fd), Vec::new());
            match through.read(record.pid, read) {
                Ok(link) => PathBuf::from(OsString::from_vec(link.into_bytes())),
                Err(Errno::NOENT | Errno::SRCH) => continue,
                // Without the privilege to read it, the file is there nevertheless.
                Err(_) => PathBuf::new(),
            }
        };
        found.files.push(OpenFile {
            pid: record.pid,
            held_by: if is_mapping { HeldBy::Mapping } else { HeldBy::Descriptor },
            fd,
            device: None,
            link,
            dev: record.dev,
            ino: record.ino,
            overlay: None,
            bytes: record.bytes,
            links: record.links.into(),
            writable: record.writable != 0,
        });
    }
    found.sort();
    // Without a main thread, the kernel visits the descriptors of each thread.
    if through.has_others() {
        found.files.dedup_by_key(|file| (file.pid, file.held_by, file.fd, file.key()));
    }
    found
}

/// Through which thread each process is read, if its main thread has exited.
#[derive(Default)]
struct Through {
    /// The last process without a main thread, and its thread.
    last: Option<(u32, u32)>,
}

impl Through {
    fn of(&self, pid: u32) -> u32 {
        self.last.filter(|(last, _)| *last == pid).map_or(pid, |(_, tid)| tid)
    }

    const fn has_others(&self) -> bool {
        self.last.is_some()
    }

    /// Reads something of a process, again through another thread if its main thread has exited.
    fn read<T>(
        &mut self,
        pid: u32,
        mut read: impl FnMut(u32) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let known = self.of(pid);
        match read(known) {
            Err(error @ (Errno::NOENT | Errno::SRCH)) => match threads::running(pid) {
                tid if tid == known => Err(error),
                tid => {
                    self.last = Some((pid, tid));
                    read(tid)
                }
            },
            result => result,
        }
    }
}

/// Reads /proc/PID/fd of all processes, including filltop itself.
#[must_use]
pub fn from_proc(lookup: &MountLookup) -> OpenFiles {
    of_all_processes(|pid, buffer, found| read_process(pid, lookup, buffer, found))
}

/// Reads /proc/PID/maps of all processes. Processes that [`from_proc`] could not read are not counted
/// again.
#[must_use]
pub fn mappings_from_proc(lookup: &MountLookup) -> OpenFiles {
    of_all_processes(|pid, buffer, found| mappings::read_process(pid, lookup, buffer, found))
}

/// Reads all processes, distributed over threads.
fn of_all_processes(read: impl Fn(u32, &mut Vec<u8>, &mut OpenFiles) + Sync) -> OpenFiles {
    let mut pids = pids();
    pids.sort_unstable();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let threads = threads.min(pids.len() / CHUNK + 1);
    let work = || {
        let mut found = OpenFiles::default();
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            let Some(chunk) = pids.get(from..pids.len().min(from + CHUNK)) else { return found };
            if chunk.is_empty() {
                return found;
            }
            for pid in chunk {
                read(*pid, &mut buffer, &mut found);
            }
        }
    };
    let mut all = OpenFiles::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        all.add(work());
        for worker in workers {
            if let Ok(found) = worker.join() {
                all.add(found);
            }
        }
    });
    all.sort();
    all
}

fn read_process(pid: u32, lookup: &MountLookup, buffer: &mut Vec<u8>, found: &mut OpenFiles) {
    let before = found.descriptors;
    read_thread(pid, pid, lookup, buffer, found);
    // Kernel threads have none, either.
    if found.descriptors == before {
        let tid = threads::running(pid);
        if tid != pid {
            read_thread(pid, tid, lookup, buffer, found);
        }
    }
}

/// Reads the descriptors of a process through one of its threads.
fn read_thread(
    pid: u32,
    tid: u32,
    lookup: &MountLookup,
    buffer: &mut Vec<u8>,
    found: &mut OpenFiles,
) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match open(format!("/proc/{tid}/fd"), flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(error) => {
            if stat::is_denied(&error.into(), pid) {
                found.unreadable.insert(pid);
            }
            return;
        }
    };
    found.processes += usize::from(tid == pid);
    // Names relative to the directory avoid a path lookup in /proc and its permission checks for
    // each entry.
    buffer.clear();
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        let Some(fd) = name.to_str().ok().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        found.descriptors += 1;
        match read_descriptor(dir.as_fd(), name, tid, fd, lookup) {
            Ok(file) => found.files.extend(file.map(|file| file.of(pid))),
            // The directory may be open to the user although the links in it are not.
            Err(error) if stat::is_denied(&error.into(), pid) => {
                found.unreadable.insert(pid);
                return;
            }
            // Closed meanwhile.
            Err(_) => {}
        }
    }
}

/// Returns the file behind a descriptor, whose link is `name` in `dir`; `None` if it is not
/// relevant.
///
/// # Errors
/// If it cannot be inspected.
fn read_descriptor(
    dir: BorrowedFd<'_>,
    name: &CStr,
    pid: u32,
    fd: i32,
    lookup: &MountLookup,
) -> Result<Option<OpenFile>, Errno> {
    // Most descriptors on most hosts are sockets and pipes, which cost only this stat.
    let file = statat(dir, name, AtFlags::empty())?;
    if FileType::from_raw_mode(file.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let writable =
        statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|link| link.st_mode & 0o200 != 0);
    // The field has another width on other architectures.
    #[allow(clippy::useless_conversion, reason = "u32 on arm64")]
    let links = u64::from(file.st_nlink);
    if !writable && links != 0 {
        return Ok(None);
    }
    let link = PathBuf::from(OsString::from_vec(readlinkat(dir, name, Vec::new())?.into()));
    let fd_stat = FdStat { st_dev: file.st_dev, ino: file.st_ino, links, writable, link: &link };
    let Some((dev, overlay)) = lookup.device(pid, fd, &fd_stat) else { return Ok(None) };
    Ok(Some(OpenFile {
        pid,
        held_by: HeldBy::Descriptor,
        fd: Some(fd),
        device: None,
        dev,
        ino: file.st_ino,
        overlay,
        bytes: u64::try_from(file.st_blocks).unwrap_or(0) * 512,
        links,
        writable,
        link,
    }))
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::mounts;

    #[test]
    fn files_open_for_writing_and_deleted_files_are_found() {
        let lookup = MountLookup::new(&mounts::read().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("named");
        let mut named = fs::File::create(&path).unwrap();
        named.write_all(&[7; 10_000]).unwrap();
        named.sync_all().unwrap();
        let reader = fs::File::open(&path).unwrap();
        let gone = tempfile::tempfile().unwrap();
        let found = from_proc(&lookup);
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
