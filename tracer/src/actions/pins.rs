//! A cgroup that cannot be confused with a later one at the same path: a restarted container has a
//! directory of the same name but with another inode number. The kernel does not reuse that number
//! (fs/kernfs/dir.c, `kernfs_ino`; it is the cgroup's id).

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{Mode, OFlags, fstat, open};
use serde::{Deserialize, Serialize};

use super::fence::{FenceSpec, FencedCgroup};
use super::members::Scope;
use super::suspend::SuspendMethod;
use tracer_host::cgroup::{Freezer, Hierarchies};

/// Identifies a cgroup by its directory and inode number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CgroupId {
    /// The directory, as seen by the process that recorded it.
    pub dir: PathBuf,
    /// Inode number of the directory.
    pub inode: u64,
    /// Device number of the hierarchy, because each hierarchy of cgroup v1 numbers its inodes
    /// separately. 0 if unknown.
    #[serde(default)]
    pub device: u64,
    /// Inode number of the cgroup namespace in which the directory was seen.
    pub namespace: u64,
}

/// Whether and where a cgroup exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The cgroup is visible at this directory.
    At(PathBuf),
    /// The cgroup was removed.
    Gone,
    /// The cgroup is not visible in this process's namespaces.
    Hidden,
}

impl CgroupId {
    /// Returns the cgroups that currently have these directories. Missing ones are left out.
    #[must_use]
    pub(crate) fn of(dirs: &[PathBuf]) -> Vec<Self> {
        let namespace = namespace();
        let id = |dir: &PathBuf| {
            let meta = fs::metadata(dir).ok()?;
            Some(Self { dir: dir.clone(), inode: meta.ino(), device: meta.dev(), namespace })
        };
        dirs.iter().filter_map(id).collect()
    }

    fn has(&self, inode: u64, device: u64) -> bool {
        inode == self.inode && (self.device == 0 || device == self.device)
    }

    /// Looks for the cgroup, even if cgroups are mounted elsewhere than for the process that recorded
    /// it.
    #[must_use]
    pub(crate) fn presence(&self) -> Presence {
        let is_it =
            |dir: &Path| fs::metadata(dir).is_ok_and(|meta| self.has(meta.ino(), meta.dev()));
        if is_it(&self.dir) {
            return Presence::At(self.dir.clone());
        }
        let mounts = Hierarchies::read();
        let mounts: Vec<PathBuf> =
            mounts.v2.into_iter().chain(mounts.v1.into_iter().map(|(_, at)| at)).collect();
        if self.namespace == namespace() && mounts.iter().any(|at| self.dir.starts_with(at)) {
            return Presence::Gone;
        }
        let Some(name) = self.dir.file_name() else { return Presence::Hidden };
        let mut waiting = mounts;
        while let Some(dir) = waiting.pop() {
            let below = fs::read_dir(&dir).into_iter().flatten().flatten();
            for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                if entry.file_name() == name && is_it(&entry.path()) {
                    return Presence::At(entry.path());
                }
                waiting.push(entry.path());
            }
        }
        Presence::Hidden
    }
}

/// Returns the inode number of this process's cgroup namespace; 0 if it cannot be read.
fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/cgroup").map_or(0, |meta| meta.ino())
}

/// Error: a cgroup of the target was removed, or another one has its path.
#[derive(Debug, thiserror::Error)]
#[error("{} is not the intended cgroup: it has ended or was restarted", .0.display())]
pub(crate) struct Replaced(PathBuf);

/// Cgroups that are pinned by descriptors: reads and writes through them reach these cgroups or none,
/// even if other cgroups have their paths by then.
#[derive(Debug)]
pub(crate) struct Pins(Vec<(PathBuf, OwnedFd)>);

impl Pins {
    /// Opens the directories of these cgroups.
    ///
    /// # Errors
    /// [`Replaced`] if one of the cgroups no longer exists.
    pub(crate) fn open(ids: &[CgroupId]) -> io::Result<Self> {
        let mut pins = Vec::new();
        for id in ids {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = open(&id.dir, flags, Mode::empty())
                .ok()
                .filter(|fd| fstat(fd).is_ok_and(|stat| id.has(stat.st_ino, stat.st_dev)))
                .ok_or_else(|| io::Error::other(Replaced(id.dir.clone())))?;
            pins.push((id.dir.clone(), fd));
        }
        Ok(Self(pins))
    }

    /// Returns the path through the descriptor of a pinned cgroup; any other path is returned as is.
    #[must_use]
    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        let held = self.0.iter().find(|(held, _)| held == dir);
        held.map_or_else(
            || dir.to_owned(),
            |(_, fd)| format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
        )
    }

    /// Returns the same target with its paths through descriptors.
    #[must_use]
    pub(crate) fn scope(&self, scope: &Scope) -> Scope {
        match scope {
            Scope::Cgroup(dirs) => Scope::Cgroup(dirs.iter().map(|dir| self.path(dir)).collect()),
            Scope::Alone(_) | Scope::Tree(_) => scope.clone(),
        }
    }

    /// Returns the same method with its paths through descriptors.
    #[must_use]
    pub(crate) fn method(&self, method: &SuspendMethod) -> SuspendMethod {
        match method {
            SuspendMethod::Freezer(Freezer::V2(dir)) => {
                SuspendMethod::Freezer(Freezer::V2(self.path(dir)))
            }
            SuspendMethod::Freezer(Freezer::V1(dir)) => {
                SuspendMethod::Freezer(Freezer::V1(self.path(dir)))
            }
            SuspendMethod::Fence(fence_spec) => {
                let by_fd =
                    |cgroup: &FencedCgroup| FencedCgroup { dir: self.path(&cgroup.dir), ..*cgroup };
                SuspendMethod::Fence(FenceSpec {
                    cgroup: fence_spec.cgroup.as_ref().map(by_fd),
                    ..fence_spec.clone()
                })
            }
            SuspendMethod::Signals => SuspendMethod::Signals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_of_the_same_name_is_another_cgroup() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("web");
        fs::create_dir(&dir).unwrap();
        let ids = CgroupId::of(&[dir.clone(), root.path().join("none")]);
        assert_eq!(ids.len(), 1);
        let pins = Pins::open(&ids).unwrap();
        let by_fd = pins.path(&dir);
        assert_eq!(ids[0].presence(), Presence::At(dir.clone()));
        // The same inode number in another hierarchy is another cgroup; older records have no device.
        let elsewhere = CgroupId { device: ids[0].device + 1, ..ids[0].clone() };
        assert_eq!(elsewhere.presence(), Presence::Hidden);
        assert!(Pins::open(&[elsewhere]).is_err());
        let older = CgroupId { device: 0, ..ids[0].clone() };
        assert_eq!(older.presence(), Presence::At(dir.clone()));
        assert!(by_fd.starts_with("/proc/self/fd") && by_fd.is_dir());
        // The open descriptor prevents reuse of the inode number meanwhile.
        fs::remove_dir(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.freeze"), "0").unwrap();
        // It is below no mounted hierarchy, so its state is unknown.
        assert_eq!(ids[0].presence(), Presence::Hidden);
        let error = Pins::open(&ids).unwrap_err();
        assert!(
            error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Replaced>),
            "{error}"
        );
        assert!(fs::read(by_fd.join("cgroup.freeze")).is_err(), "it is the new one's");
        let elsewhere = Path::new("/elsewhere");
        assert_eq!(pins.path(elsewhere), elsewhere);
    }
}
