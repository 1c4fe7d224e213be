//! Locates an open file: the volume that contains its space, and its path as seen by the host and
//! by the process that has it open.
//!
//! Both follow from the descriptor's mount (`mnt_id` in /proc/PID/fdinfo), looked up in the
//! process's mountinfo. Files of an overlay are stored in its upper directory, which is on a volume
//! of the host; the overlay's own device number belongs to no volume.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use tracer_model::snapshot::HeldBy;

use crate::mounts::{Mount, MountedVolume};
use crate::process::descriptors::strip_deleted;
use crate::process::{stat, threads};
use crate::{host_root, mounts};

use super::file::OpenFile;

/// Maximum number of parent processes that are tried for a directory that the host does not have.
const MAX_ANCESTORS: usize = 16;
/// Inode numbers from here on belong to lower layers: overlayfs puts the layer's number into the
/// upper bits (`xino`), which no filesystem uses.
const XINO: u64 = 1 << 56;

/// All mounts seen in one pass over open files: the host's, and those of containers as they are
/// found.
pub struct MountLookup {
    volumes: Vec<MountedVolume>,
    /// stat's device number → `s_dev`, for filesystems where the two are the same device.
    plain: HashMap<u64, u32>,
    /// The host's own mounts, by mount id.
    host: HashMap<u32, Mount>,
    /// Mounts found so far, by mount id, which is unique across mount namespaces.
    cache: Mutex<HashMap<u32, Option<Arc<FileMount>>>>,
}

/// A mount that a file was opened through.
struct FileMount {
    /// `s_dev` of the volume that stores what is written.
    dev: u32,
    /// For an overlay, its own device number.
    overlay: Option<u32>,
    /// Mount point as it appears in the links in /proc/PID/fd.
    shown: PathBuf,
    /// The host's path of what is mounted; `None` if it is the same as in the links, or unknown.
    host: Option<PathBuf>,
}

/// Size of a filesystem: blocks, and bytes per block.
type Size = (u64, u64);

/// Result of stat on a descriptor.
pub(super) struct FdStat<'a> {
    pub(super) st_dev: u64,
    pub(super) ino: u64,
    pub(super) links: u64,
    pub(super) writable: bool,
    pub(super) link: &'a Path,
}

/// Both paths of a file, without ` (deleted)`.
#[derive(Debug, PartialEq, Eq)]
pub struct Paths {
    /// Path from the host's root.
    pub host: PathBuf,
    /// Path from the process's root, if it is different.
    pub in_container: Option<PathBuf>,
}

impl MountLookup {
    /// Starts with the host's mounts.
    #[must_use]
    pub fn new(volumes: &[MountedVolume]) -> Self {
        let all =
            fs::read(host_root::mountinfo()).map(|text| mounts::parse(&text)).unwrap_or_default();
        Self {
            plain: volumes
                .iter()
                .filter(|volume| volume.fs_type != "btrfs")
                .map(|volume| {
                    (rustix::fs::makedev(volume.dev >> 20, volume.dev & 0xf_ffff), volume.dev)
                })
                .collect(),
            host: all.into_iter().map(|mount| (mount.id, mount)).collect(),
            volumes: volumes.to_vec(),
            cache: Mutex::default(),
        }
    }

    /// Returns the kernel's device number of an open file's volume, and stat's number if it is an
    /// overlay's. If stat's number belongs to no volume, the mount decides: btrfs shows another
    /// number there than in mountinfo, and overlayfs shows its own, or one for each filesystem of
    /// its layers.
    pub(super) fn device(
        &self,
        pid: u32,
        fd: i32,
        fd_stat: &FdStat<'_>,
    ) -> Option<(u32, Option<u64>)> {
        if let Some(dev) = self.plain.get(&fd_stat.st_dev) {
            return Some((*dev, None));
        }
        let found = self.mount_of_fd(pid, fd)?;
        let Some(overlay) = found.overlay else { return Some((found.dev, None)) };
        // A file without names whose link is not marked as deleted was removed from a layer below
        // the overlay: it may be on a lower layer. If all layers are on one filesystem, that makes no difference.
        let below =
            fd_stat.links == 0 && !fd_stat.writable && strip_deleted(fd_stat.link) == fd_stat.link;
        let one = fd_stat.st_dev == rustix::fs::makedev(overlay >> 20, overlay & 0xf_ffff)
            && fd_stat.ino < XINO;
        (one || !below).then_some((found.dev, Some(fd_stat.st_dev)))
    }

    /// Whether files of this device (as /proc/PID/maps shows it) may be on a volume: on one directly, or
    /// through an overlay, whose number is anonymous.
    pub(super) fn may_be_on_volume(&self, dev: u32) -> bool {
        dev >> 20 == 0 || self.volume(dev).is_some()
    }

    /// Like [`MountLookup::device`], for a mapping. `shown` is the device in /proc/PID/maps (the
    /// kernel's, also for btrfs), `link` the link in map_files.
    pub(super) fn device_of_mapping(
        &self,
        pid: u32,
        shown: u32,
        st_dev: u64,
        link: &str,
    ) -> Option<(u32, Option<u64>)> {
        if self.volume(shown).is_some() {
            return Some((shown, None));
        }
        if let Some(dev) = self.plain.get(&st_dev) {
            return Some((*dev, None));
        }
        let mountinfo = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
        let is_it = |mount: &Mount| mount.dev == shown && mount.upper_dir.is_some();
        let mount = mounts::parse(&mountinfo).into_iter().find(is_it)?;
        let (dev, _) = self.upper(&mount, pid, size(Path::new(link))?)?;
        Some((dev, Some(st_dev)))
    }

    /// Returns the volume that contains a path of the host.
    pub(super) fn volume_of_path(&self, path: &Path) -> Option<u32> {
        let holds = |mount: &&Mount| path.starts_with(&mount.mount_point);
        let mount =
            self.host.values().filter(holds).max_by_key(|it| it.mount_point.as_os_str().len());
        Some(self.volume(mount?.dev)?.dev)
    }

    /// Returns the `s_dev` of a filesystem from the device number that stat shows; `None` if the two
    /// differ, or it is not a volume.
    pub(super) fn device_of_stat(&self, st_dev: u64) -> Option<u32> {
        self.plain.get(&st_dev).copied()
    }

    /// Returns the paths of a file.
    #[must_use]
    pub fn paths(&self, file: &OpenFile) -> Paths {
        let link = strip_deleted(&file.link);
        if link.as_os_str().is_empty() {
            return Paths { host: self.unnamed(file.dev, file.ino, None), in_container: None };
        }
        if file.pid == 0 || file.held_by == HeldBy::Socket {
            return Paths { host: link.to_path_buf(), in_container: None };
        }
        let root_of = |pid: u32| fs::read_link(format!("/proc/{pid}/root")).ok();
        let (mut pid, mut root) = (file.pid, root_of(file.pid));
        if root.is_none() {
            pid = threads::running(pid);
            root = root_of(pid);
        }
        let found = match file.fd {
            Some(fd) => self.mount_of_fd(pid, fd),
            None => self.mount_of_path(pid, link),
        };
        let found = found.filter(|found| found.dev == file.dev);
        let host = found.and_then(|found| {
            let rest = link.strip_prefix(&found.shown).ok()?;
            Some(joined(found.host.as_deref()?, rest))
        });
        let host = host.unwrap_or_else(|| link.to_path_buf());
        let seen = root
            .and_then(|root| Some(joined(Path::new("/"), link.strip_prefix(root).ok()?)))
            .unwrap_or_else(|| link.to_path_buf());
        Paths { in_container: (seen != host).then_some(seen), host }
    }

    /// Returns a path for a file whose directory is unknown: its name, or its inode number, below `?`.
    #[must_use]
    pub fn unnamed(&self, dev: u32, ino: u64, name: Option<&Path>) -> PathBuf {
        let mount = self.volume(dev).map(|volume| volume.primary().mount_point.clone());
        let last = name.map_or_else(|| PathBuf::from(format!("inode {ino}")), Path::to_path_buf);
        mount.unwrap_or_default().join("?").join(last)
    }

    /// Returns the mount that shows what a process has mapped, from the path of the mapping.
    fn mount_of_path(&self, pid: u32, path: &Path) -> Option<Arc<FileMount>> {
        let root = fs::read_link(format!("/proc/{pid}/root")).ok()?;
        let mountinfo = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
        let shows = |mount: &&Mount| path.starts_with(below(&root, &mount.mount_point));
        let all = mounts::parse(&mountinfo);
        let mount = all.iter().filter(shows).max_by_key(|it| it.mount_point.as_os_str().len())?;
        if self.host.contains_key(&mount.id) && mount.upper_dir.is_none() {
            // The path is the host's.
            return None;
        }
        let size = || {
            size(
                &Path::new("/proc")
                    .join(pid.to_string())
                    .join("root")
                    .join(mount.mount_point.strip_prefix("/").ok()?),
            )
        };
        let shown = below(&root, &mount.mount_point);
        let found = match mount.upper_dir {
            Some(_) => {
                let (dev, upper) = self.upper(mount, pid, size()?)?;
                let host = Some(below(&upper, &mount.root));
                FileMount { dev, overlay: Some(mount.dev), shown, host }
            }
            None => {
                let host = self.volume(mount.dev).and_then(|volume| volume.host_path(&mount.root));
                FileMount { dev: mount.dev, overlay: None, shown, host }
            }
        };
        Some(Arc::new(found))
    }

    /// Returns the mount that a descriptor was opened through.
    fn mount_of_fd(&self, pid: u32, fd: i32) -> Option<Arc<FileMount>> {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
        let id: u32 =
            info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cache().get(&id) {
            return known.clone();
        }
        let through = (pid, fd);
        let found = match self.host.get(&id) {
            Some(mount) => self.host_mount(mount, through),
            None => {
                let mountinfo = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
                let mount = mounts::parse(&mountinfo).into_iter().find(|mount| mount.id == id)?;
                // Mount points are relative to the process's root, links to the root of its mount
                // namespace.
                let root = fs::read_link(format!("/proc/{pid}/root")).ok()?;
                self.foreign_mount(&mount, &root, through)
            }
        };
        let found = found.map(Arc::new);
        cache().insert(id, found.clone());
        found
    }

    fn host_mount(&self, mount: &Mount, through: (u32, i32)) -> Option<FileMount> {
        let shown = mount.mount_point.clone();
        match mount.upper_dir {
            Some(_) => self.overlay(mount, shown, through),
            None => Some(FileMount { dev: mount.dev, overlay: None, shown, host: None }),
        }
    }

    fn foreign_mount(&self, mount: &Mount, root: &Path, through: (u32, i32)) -> Option<FileMount> {
        let shown = below(root, &mount.mount_point);
        match mount.upper_dir {
            Some(_) => self.overlay(mount, shown, through),
            None => {
                let host = self.volume(mount.dev).and_then(|volume| volume.host_path(&mount.root));
                Some(FileMount { dev: mount.dev, overlay: None, shown, host })
            }
        }
    }

    fn overlay(&self, mount: &Mount, shown: PathBuf, (pid, fd): (u32, i32)) -> Option<FileMount> {
        let size = size(Path::new(&format!("/proc/{pid}/fd/{fd}")))?;
        let (dev, upper) = self.upper(mount, pid, size)?;
        let host = Some(below(&upper, &mount.root));
        Some(FileMount { dev, overlay: Some(mount.dev), shown, host })
    }

    /// Returns the volume of an overlay's upper directory, and its path on the host. mountinfo
    /// shows the path as given at mount time: mostly the host's path; in a nested container, that
    /// of the outer container; relative if the paths of many layers would not have fitted into the
    /// mount options. So a directory found by that path must have the same filesystem size as the
    /// overlay itself.
    fn upper(&self, mount: &Mount, pid: u32, size: Size) -> Option<(u32, PathBuf)> {
        let upper = mount.upper_dir.as_deref()?;
        if upper.is_absolute() {
            let on_host = self.on_host(upper, size);
            return on_host.or_else(|| self.of_an_ancestor(upper, pid, size));
        }
        // docker and podman specify it relative to a parent directory of the overlay's mount point.
        let mounted = self.host.values().filter(|other| other.dev == mount.dev);
        let mut dirs = mounted.flat_map(|other| other.mount_point.ancestors().skip(1));
        dirs.find_map(|dir| self.on_host(&dir.join(upper), size))
    }

    fn on_host(&self, dir: &Path, size: Size) -> Option<(u32, PathBuf)> {
        let id = mount_of(&host_root::path(dir), dir, self.host.values(), size)?;
        let volume = self.volume(self.host.get(&id)?.dev)?;
        Some((volume.dev, dir.to_path_buf()))
    }

    /// Resolves the directory as a parent process sees it, whose mounts are neither the host's nor
    /// the container's own.
    fn of_an_ancestor(&self, dir: &Path, pid: u32, size: Size) -> Option<(u32, PathBuf)> {
        let mut pid = pid;
        for _ in 0..MAX_ANCESTORS {
            pid = stat::stat(pid).map(|stat| stat.ppid).filter(|ppid| *ppid > 1)?;
            let Ok(text) = fs::read(format!("/proc/{pid}/mountinfo")) else { continue };
            let all = mounts::parse(&text);
            let path = below(&PathBuf::from(format!("/proc/{pid}/root")), dir);
            let Some(id) = mount_of(&path, dir, all.iter(), size) else { continue };
            let Some(mount) = all.iter().find(|mount| mount.id == id) else { continue };
            let Some(volume) = self.volume(mount.dev) else { continue };
            let rest = dir.strip_prefix(&mount.mount_point).unwrap_or(dir);
            let host = volume.host_path(&joined(&mount.root, rest));
            return Some((volume.dev, host.unwrap_or_else(|| dir.to_path_buf())));
        }
        None
    }

    fn volume(&self, dev: u32) -> Option<&MountedVolume> {
        self.volumes.iter().find(|volume| volume.dev == dev)
    }
}

/// Returns the id of the mount that contains a directory. `path` is its path for this process,
/// `name` its path in the namespace of `mounts`. `None` if its filesystem is not of the size
/// `wanted`, or may hang.
fn mount_of<'m>(
    path: &Path,
    name: &Path,
    mut mounts: impl Iterator<Item = &'m Mount>,
    wanted: Size,
) -> Option<u32> {
    // The root is exempt: a host does not run without it.
    let hangs = |mount: &Mount| {
        may_hang(&mount.fs_type)
            && mount.mount_point != Path::new("/")
            && name.starts_with(&mount.mount_point)
    };
    if mounts.any(hangs) {
        return None;
    }
    let fields = StatxFlags::TYPE | StatxFlags::MNT_ID;
    let stat = statx(CWD, path, AtFlags::NO_AUTOMOUNT, fields).ok()?;
    let is_dir = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
    let known = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let is_it = is_dir && known && size(path) == Some(wanted);
    is_it.then(|| u32::try_from(stat.stx_mnt_id).ok())?
}

/// Returns the size from statfs(2): an overlay shows that of its upper layer (`ovl_statfs`).
fn size(path: &Path) -> Option<Size> {
    let stat = rustix::fs::statfs(path).ok()?;
    // The field has another width on other architectures.
    #[allow(clippy::unnecessary_cast, reason = "i64, u64 or u32")]
    Some((stat.f_blocks as u64, stat.f_bsize as u64))
}

/// Whether a server or a userspace process answers for this filesystem.
#[must_use]
pub fn may_hang(fs_type: &str) -> bool {
    let types = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "fuse", "fuseblk", "autofs"];
    types.contains(&fs_type) || fs_type.starts_with("fuse.")
}

/// Returns an absolute path as seen below another directory.
fn below(root: &Path, path: &Path) -> PathBuf {
    joined(root, path.strip_prefix("/").unwrap_or(path))
}

/// Joins two paths. `Path::join` with an empty path would append a slash to a file's mount point.
fn joined(dir: &Path, rest: &Path) -> PathBuf {
    let mut path = dir.to_path_buf();
    path.extend(rest);
    path
}
