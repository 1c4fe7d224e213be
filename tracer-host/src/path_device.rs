//! The filesystem on which a directory is that another process named in a system call.
//!
//! The path is that process's own choice, and may lead to a filesystem that does not answer. So it is
//! looked up in the kernel's cache of names only (RESOLVE_CACHED, 5.12), where the process has just
//! looked it up itself; that never waits.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, open, openat2, statx};
use tracer_common::ProcKey;

use crate::host_root;
use crate::mounts::{self, Mount};
use crate::process::stat::is_same_process;

/// Where a directory's path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the process's root directory: an absolute path.
    Root,
    /// At its working directory, with this inode number.
    WorkingDirectory(u64),
    /// At a directory that it has open as this descriptor, with this inode number.
    Descriptor(i32, u64),
}

/// What mounts depend on: the mount namespace, and the inode and device of the root directory.
pub type View = (u32, u64, u32);
/// The host's own view, which has no such numbers here.
const HOST: View = (0, 0, 0);

/// What was read lately: reading it takes ten times as long as everything else here.
#[derive(Default)]
pub struct RecentMounts {
    read: HashMap<View, (Instant, Arc<[Mount]>)>,
    /// Root directories, of processes that were the same after they were opened. Only for a moment: an
    /// open directory keeps its filesystem from being unmounted.
    roots: HashMap<View, OwnedFd>,
}

impl RecentMounts {
    /// How long mounts are used. If one is missing, because it is newer, they are read again.
    const MAX_AGE: Duration = Duration::from_secs(2);
    /// Maximum number of views.
    const MAX_VIEWS: usize = 256;

    /// Closes what is open. To be called after each batch of look-ups.
    pub fn close(&mut self) {
        self.roots.clear();
    }

    fn get(&self, view: View) -> Option<Arc<[Mount]>> {
        let (at, mounts) = self.read.get(&view)?;
        (at.elapsed() < Self::MAX_AGE).then(|| Arc::clone(mounts))
    }

    fn insert(&mut self, view: View, mountinfo: &[u8]) -> Arc<[Mount]> {
        let mounts: Arc<[Mount]> = mounts::parse(mountinfo).into();
        if self.read.len() >= Self::MAX_VIEWS {
            self.read.clear();
        }
        self.read.insert(view, (Instant::now(), Arc::clone(&mounts)));
        mounts
    }

    fn of_the_host(&mut self) -> Option<Arc<[Mount]>> {
        if let Some(mounts) = self.get(HOST) {
            return Some(mounts);
        }
        Some(self.insert(HOST, &fs::read(host_root::mountinfo()).ok()?))
    }
}

/// Returns `s_dev` of the filesystem that takes what is created in a directory; `None` if it cannot be
/// found. `known` are the mounts of its view, if another process with that view was seen.
#[must_use]
pub fn device(
    proc: &ProcKey,
    view: View,
    dir: &Path,
    start: Start,
    known: Option<&[Mount]>,
    recent: &mut RecentMounts,
) -> Option<u32> {
    let of_process = PathBuf::from(format!("/proc/{}", proc.tgid));
    let mut is_it = start == Start::Root && recent.roots.contains_key(&view);
    let mut found = None;
    if !is_it && let Some(from) = open_start(&of_process, start) {
        // Checked last, so that what was opened belongs to this process or is discarded.
        is_it = is_same_process(proc);
        if start == Start::Root && is_it {
            recent.roots.insert(view, from);
        } else {
            found = cached(&from, dir);
        }
    }
    if let Some(root) = recent.roots.get(&view).filter(|_| start == Start::Root) {
        found = cached(root, dir);
    }
    let mut mounts = recent.get(view);
    if is_it {
        let host = recent.of_the_host();
        // A directory in a subvolume has a device of its own, and one in an overlay takes space elsewhere.
        if let Some(dev) = found.as_ref().and_then(device_of)
            && [&host, &mounts].into_iter().flatten().any(|mounts| has_plain(mounts, dev))
        {
            return Some(dev);
        }
        let id = found.as_ref().and_then(|found| info(found, "mnt_id:"));
        let is_missing = |mounts: &Arc<[Mount]>| id.is_some_and(|id| with_id(mounts, id).is_none());
        if mounts.as_ref().is_none_or(is_missing) {
            let mountinfo = fs::read(of_process.join("mountinfo"));
            let mountinfo = mountinfo.ok().filter(|_| is_same_process(proc));
            mounts = mountinfo.map(|mountinfo| recent.insert(view, &mountinfo)).or(mounts);
        }
        let Some(found) = found else { return volume_of(None, dir, start, &mounts?, recent) };
        // No two namespaces have a mount with the same id.
        for mounts in [mounts, host].into_iter().flatten() {
            if id.is_some_and(|id| with_id(&mounts, id).is_some()) {
                return volume_of(id, dir, start, &mounts, recent);
            }
        }
        // After a chroot, a process does not see the mount that contains its root directory.
        return device_of(&found);
    }
    if start != Start::Root {
        return None;
    }
    if is_of_the_host(view.0) {
        let mounts = recent.of_the_host()?;
        let found = cached(&open_dir(host_root::root())?, dir);
        let id = found.and_then(|found| info(&found, "mnt_id:"));
        return volume_of(id, dir, start, &mounts, recent);
    }
    match mounts {
        Some(mounts) => volume_of(None, dir, start, &mounts, recent),
        None => volume_of(None, dir, start, known?, recent),
    }
}

/// Whether something that is no overlay is mounted from this device.
fn has_plain(mounts: &[Mount], dev: u32) -> bool {
    mounts.iter().any(|mount| mount.dev == dev && mount.upper_dir.is_none())
}

/// The device of what is open, as far as the kernel knows it without asking the filesystem.
fn device_of(fd: &OwnedFd) -> Option<u32> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, c"", flags, StatxFlags::empty()).ok()?;
    Some(stat.stx_dev_major << 20 | stat.stx_dev_minor)
}

fn with_id(mounts: &[Mount], id: u64) -> Option<&Mount> {
    mounts.iter().find(|mount| u64::from(mount.id) == id)
}

/// Whether a mount namespace is the host's.
fn is_of_the_host(mnt_ns: u32) -> bool {
    let own = host_root::mountinfo().with_file_name("ns").join("mnt");
    let link = fs::read_link(own).unwrap_or_default();
    link == Path::new(&format!("mnt:[{mnt_ns}]"))
}

/// Opens the directory where the process's paths start.
fn open_start(of_process: &Path, start: Start) -> Option<OwnedFd> {
    let (from, ino) = match start {
        Start::Root => (of_process.join("root"), None),
        Start::WorkingDirectory(ino) => (of_process.join("cwd"), Some(ino)),
        Start::Descriptor(fd, ino) => (of_process.join(format!("fd/{fd}")), Some(ino)),
    };
    let from = open_dir(&from)?;
    // It may have gone elsewhere meanwhile, or have closed the descriptor. Before 5.14, that is not
    // known.
    let is_other = ino.is_some_and(|ino| info(&from, "ino:").is_some_and(|found| found != ino));
    (!is_other).then_some(from)
}

fn open_dir(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).ok()
}

/// Opens a directory below another one, whose root the path does not leave, if the kernel knows all of
/// it.
fn cached(from: &OwnedFd, dir: &Path) -> Option<OwnedFd> {
    let dir = dir.strip_prefix("/").unwrap_or(dir);
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let how = ResolveFlags::CACHED | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(from, dir, flags, Mode::empty(), how).ok()
}

/// A number in the information on an open file. Unlike stat(2), it asks no filesystem.
fn info(fd: &OwnedFd, field: &str) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix(field))?.trim().parse().ok()
}

/// The volume of a directory by the id of the mount that was found. An absolute path that was not found is on
/// the mount that its text leads to.
fn volume_of(
    id: Option<u64>,
    dir: &Path,
    start: Start,
    mounts: &[Mount],
    recent: &mut RecentMounts,
) -> Option<u32> {
    let mount = match id {
        Some(id) => with_id(mounts, id)?,
        None if start == Start::Root => by_text(dir, mounts)?,
        None => return None,
    };
    match &mount.upper_dir {
        None => Some(mount.dev),
        // What is created in an overlay is in its upper directory, mostly given as a path of the host.
        Some(upper) => {
            let host = recent.of_the_host()?;
            by_text(upper, &host).map(|mount| mount.dev)
        }
    }
}

/// The mount with the longest mount point above a path; of several, the last one, which covers the
/// others.
fn by_text<'a>(path: &Path, mounts: &'a [Mount]) -> Option<&'a Mount> {
    let path: PathBuf = path.components().collect();
    if !path.is_absolute() {
        return None;
    }
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.mount_point));
    above.max_by_key(|mount| mount.mount_point.components().count())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::process::stat::{NS_PER_TICK, stat};

    fn own() -> ProcKey {
        let pid = std::process::id();
        ProcKey { start_ns: stat(pid).unwrap().start_ticks * NS_PER_TICK, tgid: pid, pad: 0 }
    }

    /// The device of a directory as mountinfo has it.
    fn truth(dir: &Path) -> u32 {
        let mounts = mounts::parse(&fs::read("/proc/self/mountinfo").unwrap());
        let id = info(&open_dir(dir).unwrap(), "mnt_id:").unwrap();
        mounts.iter().find(|mount| u64::from(mount.id) == id).unwrap().dev
    }

    #[test]
    fn paths_of_a_process_that_runs() {
        let of = |dir: &str, start| {
            let recent = &mut RecentMounts::default();
            device(&own(), (0, 1, 0), Path::new(dir), start, None, recent)
        };
        assert_eq!(of("/proc/", Start::Root), Some(truth(Path::new("/proc"))));
        assert_eq!(of("/dev/../proc/", Start::Root), Some(truth(Path::new("/proc"))));
        assert_eq!(of("/", Start::Root), Some(truth(Path::new("/"))));
        // Not there: where it would be.
        assert_eq!(of("/proc/no such/x/", Start::Root), Some(truth(Path::new("/proc"))));
        // Only what the kernel has in memory is found. Not below /proc: its names can be uncached at
        // any time.
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("sub")).unwrap();
        fs::metadata(parent.path().join("sub")).unwrap();
        let opened = open_dir(parent.path()).unwrap();
        let (fd, ino) = (opened.as_raw_fd(), fs::metadata(parent.path()).unwrap().ino());
        let by_fd = |dir, ino| of(dir, Start::Descriptor(fd, ino));
        assert_eq!(by_fd("sub/", ino), Some(truth(parent.path())));
        assert_eq!(by_fd("sub/", ino + 1), None, "it is another directory now");
        assert_eq!(by_fd("no such/", ino), None);
        let cwd = std::env::current_dir().unwrap();
        let start = Start::WorkingDirectory(fs::metadata(&cwd).unwrap().ino());
        assert_eq!(of("./", start), Some(truth(&cwd)));
    }

    #[test]
    fn a_symbolic_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        fs::metadata(link.join("self")).unwrap();
        let recent = &mut RecentMounts::default();
        let found = device(&own(), (0, 1, 0), &link, Start::Root, None, recent);
        assert_eq!(found, Some(truth(Path::new("/proc"))));
    }

    #[test]
    fn paths_of_a_process_that_is_gone() {
        let gone = ProcKey { start_ns: 1, ..own() };
        let ns = fs::read_link("/proc/self/ns/mnt").unwrap();
        let ns = ns.to_str().unwrap().trim_start_matches("mnt:[").trim_end_matches(']');
        let ns: u32 = ns.parse().unwrap();
        let mut recent = RecentMounts::default();
        let mut of = |ns, dir: &str, known| {
            device(&gone, (ns, 2, 0), Path::new(dir), Start::Root, known, &mut recent)
        };
        assert_eq!(of(ns, "/proc/", None), Some(truth(Path::new("/proc"))));
        assert_eq!(of(1, "/proc/", None), None);
        let mounts = mounts::parse(
            b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /srv rw - xfs b rw\n3 1 8:3 / /srv/x rw - xfs c rw\n",
        );
        let known = Some(mounts.as_slice());
        assert_eq!(of(1, "/srv//xy/", known), Some(8 << 20 | 2));
        assert_eq!(of(1, "/srv/x/y/", known), Some(8 << 20 | 3));
        assert_eq!(of(1, "/", known), Some(8 << 20 | 1));
        let start = Start::WorkingDirectory(1);
        let found = device(&gone, (ns, 2, 0), Path::new("a/"), start, known, &mut recent);
        assert_eq!(found, None);
    }
}
