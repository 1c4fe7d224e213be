//! Translates paths to what a process in a container, a chroot or its own mount namespace sees.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use tracer_common::{FileKey, ProcKey};

use tracer_host::mounts::Mount;
use tracer_host::process::stat::is_same_process;
use tracer_host::{host_root, mounts};

/// Maximum number of views that are remembered.
const MAX_VIEWS: usize = 1_024;

/// Mounts as seen from one root directory in one mount namespace.
#[derive(Debug)]
struct View {
    mounts: Vec<Mount>,
    /// Derived from the host's mounts only.
    guessed: bool,
}

/// All views that differ from the host's. Keyed by (mount namespace, root directory), so that the
/// view of an exited process can come from another process of its container.
#[derive(Default)]
pub struct Views {
    known: HashMap<(u32, FileKey), View>,
}

impl Views {
    /// Reads the mounts of a process, unless its view is known. If the process has exited, its root
    /// is searched among the overlays that the host has mounted; a container's root is usually one
    /// of them.
    pub(crate) fn read(&mut self, proc: &ProcKey, mnt_ns: u32, root: FileKey) {
        let known = self.known.get(&(mnt_ns, root));
        if known.is_some_and(|view| !view.guessed) {
            return;
        }
        let own = fs::read(format!("/proc/{}/mountinfo", proc.tgid)).ok();
        let own = own.map(|text| mounts::parse(&text)).filter(|all| !all.is_empty());
        let view = match own.filter(|_| is_same_process(proc)) {
            Some(mounts) => Some(View { mounts, guessed: false }),
            None if known.is_some() => None,
            None => {
                fs::read(host_root::mountinfo()).ok().and_then(|all| View::guess(&all, root.dev))
            }
        };
        if let Some(view) = view {
            if self.known.len() >= MAX_VIEWS {
                self.known.clear();
            }
            self.known.insert((mnt_ns, root), view);
        }
    }

    /// The mounts of a mount namespace, as read from a process in it.
    #[must_use]
    pub(crate) fn mounts(&self, mnt_ns: u32) -> Option<&[Mount]> {
        self.known
            .iter()
            .find(|((namespace, _), view)| *namespace == mnt_ns && !view.guessed)
            .map(|(_, view)| &*view.mounts)
    }

    /// The path of a file in this view. `host` is its path on the host, `in_fs` its path from the
    /// root of its filesystem `dev`, `chroot` the host path of the process's root if that is not a
    /// mount point. `None` if the file is not visible in the view, or has the same path.
    #[must_use]
    pub(crate) fn path(
        &self,
        (mnt_ns, root): (u32, FileKey),
        host: &Path,
        in_fs: &Path,
        dev: u32,
        chroot: Option<&Path>,
    ) -> Option<ViewPath> {
        self.known
            .get(&(mnt_ns, root))
            .and_then(|view| view.path(host, in_fs, dev))
            .or_else(|| {
                let path = Path::new("/").join(host.strip_prefix(chroot?).ok()?);
                Some(ViewPath { path, in_root: true })
            })
            .filter(|seen| seen.path != host)
    }
}

/// A file as seen in a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewPath {
    /// Its path in the view.
    pub path: PathBuf,
    /// Whether it is on the view's root filesystem, not on one mounted below it.
    pub in_root: bool,
}

impl View {
    /// The view of a process whose root directory is on the overlay `dev`, assumed to be that
    /// overlay's root.
    fn guess(mountinfo: &[u8], dev: u32) -> Option<Self> {
        let is_it = |mount: &Mount| mount.dev == dev && mount.upper_dir.is_some();
        let mount = mounts::parse(mountinfo).into_iter().find(is_it)?;
        Some(Self { mounts: vec![Mount { mount_point: "/".into(), ..mount }], guessed: true })
    }

    /// The path below the most specific mount that shows the file; of several, the last one, which
    /// covers the earlier ones.
    fn path(&self, host: &Path, in_fs: &Path, dev: u32) -> Option<ViewPath> {
        self.mounts
            .iter()
            .filter_map(|mount| {
                let (shown, rest) = match &mount.upper_dir {
                    // Writes to an overlay go to its upper directory.
                    Some(upper) => (upper, host.strip_prefix(upper).ok()?),
                    None if mount.dev == dev => {
                        (&mount.root, in_fs.strip_prefix(&mount.root).ok()?)
                    }
                    None => return None,
                };
                // Path::join with an empty path would add a trailing slash to a file's mount point.
                let mut path = mount.mount_point.clone();
                path.extend(rest);
                let in_root = mount.mount_point == Path::new("/");
                Some((shown.as_os_str().len(), ViewPath { path, in_root }))
            })
            .max_by_key(|(shown, _)| *shown)
            .map(|(_, seen)| seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "\
600 500 0:70 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:/x,upperdir=/var/lib/docker/overlay2/b7/diff,workdir=/var/lib/docker/overlay2/b7/work
601 600 0:71 / /proc rw - proc proc rw
602 600 254:1 /var/lib/docker/volumes/pg/_data /var/lib/postgresql rw - ext4 /dev/vda1 rw
603 600 254:1 /var/lib/docker/containers/b7/hosts /etc/hosts rw - ext4 /dev/vda1 rw
";

    fn seen(host: &str) -> Option<(String, bool)> {
        let view = View { mounts: mounts::parse(CONTAINER.as_bytes()), guessed: false };
        // The volume is the host's root: both paths are the same.
        let seen = view.path(Path::new(host), Path::new(host), 254 << 20 | 1)?;
        Some((seen.path.to_str().unwrap().to_owned(), seen.in_root))
    }

    #[test]
    fn a_container_sees_its_overlay_and_its_volumes() {
        let diff = "/var/lib/docker/overlay2/b7/diff/tmp/x";
        assert_eq!(seen(diff), Some(("/tmp/x".to_owned(), true)));
        let data = "/var/lib/docker/volumes/pg/_data/pg_wal/1";
        assert_eq!(seen(data), Some(("/var/lib/postgresql/pg_wal/1".to_owned(), false)));
        let hosts = "/var/lib/docker/containers/b7/hosts";
        assert_eq!(seen(hosts), Some(("/etc/hosts".to_owned(), false)));
        assert_eq!(seen("/var/log/syslog"), None);
    }

    #[test]
    fn the_view_of_an_exited_container_comes_from_the_hosts_overlay_mount() {
        let mountinfo = "\
500 1 254:1 / / rw - ext4 /dev/vda1 rw
501 500 0:69 / /var/lib/docker/overlay2/a1/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/var/lib/docker/overlay2/a1/diff,workdir=/w
502 500 0:70 / /var/lib/docker/overlay2/b7/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/var/lib/docker/overlay2/b7/diff,workdir=/w
";
        let view = View::guess(mountinfo.as_bytes(), 70).unwrap();
        let path = |host: &str| {
            view.path(Path::new(host), Path::new(host), 254 << 20 | 1).map(|seen| seen.path)
        };
        assert_eq!(path("/var/lib/docker/overlay2/b7/diff/x"), Some(PathBuf::from("/x")));
        assert_eq!(path("/var/lib/docker/overlay2/a1/diff/x"), None);
        assert!(View::guess(mountinfo.as_bytes(), 254 << 20 | 1).is_none());
        assert!(View::guess(mountinfo.as_bytes(), 71).is_none());
    }

    #[test]
    fn a_chroot_that_is_not_a_mount_is_stripped() {
        let views = Views::default();
        let path = |host: &str, chroot: Option<&str>| {
            let host = Path::new(host);
            let seen = views.path((1, FileKey::default()), host, host, 7, chroot.map(Path::new));
            seen.map(|seen| seen.path)
        };
        assert_eq!(path("/jail/var/x", Some("/jail")), Some(PathBuf::from("/var/x")));
        assert_eq!(path("/var/x", Some("/jail")), None);
        assert_eq!(path("/var/x", None), None);
    }
}
