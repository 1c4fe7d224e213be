//! The mount table and volumes: /proc/self/mountinfo and statvfs.

mod cover;
pub mod events;
pub mod served;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use tracer_model::snapshot::Group;

use crate::host_root;

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount id; unique while mounted.
    pub id: u32,
    /// Id of the mount that it is mounted on.
    pub parent: u32,
    /// `major << 20 | minor` of the filesystem: the kernel's `s_dev`, also for btrfs.
    pub dev: u32,
    /// Directory of the filesystem that is mounted.
    pub root: PathBuf,
    /// Mount point, from the root of the process whose mountinfo it is.
    pub mount_point: PathBuf,
    /// Whether the mount or the filesystem is read-only.
    pub read_only: bool,
    /// `ext4`, `btrfs`, …
    pub fs_type: String,
    /// Device, or another name that the filesystem gives its source.
    pub source: String,
    /// For an overlay: the directory that takes its writes; its path as given at mount time, mostly
    /// the host's.
    pub upper_dir: Option<PathBuf>,
    /// Mount points of other mounts that hide this one, or the part of it below them. Known only for
    /// the mounts of volumes.
    pub covers: HashSet<PathBuf>,
}

/// A mounted filesystem with all its mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    /// `s_dev`.
    pub dev: u32,
    /// `ext4`, `btrfs`, …
    pub fs_type: String,
    /// Device, or another name that the filesystem gives its source.
    pub source: String,
    /// All its mounts; the first shows most of the filesystem.
    pub mounts: Vec<Mount>,
    /// Set if it is mounted only in a container; `None` for the host's own volumes.
    pub container: Option<ContainerMount>,
    /// Whether another volume is mounted at its first mount point, and hides it.
    pub shares_mount_point: bool,
}

/// The mount namespace of a container in which a volume is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMount {
    /// A process in the container; the mount is accessed through its root directory.
    pub pid: u32,
    /// Inode number of the mount namespace.
    pub mnt_ns: u32,
    /// The container.
    pub group: Group,
    /// Mount point inside the container.
    pub mount_point: PathBuf,
}

/// Sizes of a volume: statvfs(3), bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Total size, bytes: f_blocks.
    pub total: u64,
    /// f_blocks − f_bfree, bytes.
    pub used: u64,
    /// f_bavail, bytes.
    pub avail: u64,
    /// f_bfree − f_bavail, bytes.
    pub reserved: u64,
    /// Total number of inodes; 0 if it is not fixed.
    pub inodes_total: u64,
    /// Number of free inodes.
    pub inodes_free: u64,
}

/// Filesystems that hold no user data, or whose data is on another volume (overlay).
const PSEUDO: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "erofs",
    "iso9660",
    "sysfs",
    "tracefs",
];

/// Reads the host's mount table and groups it by volume.
///
/// # Errors
/// If /proc is not mounted.
pub fn read() -> io::Result<Vec<MountedVolume>> {
    Ok(volumes(parse(&std::fs::read(host_root::mountinfo())?)))
}

/// Returns the volume that contains a path.
///
/// # Errors
/// If the path cannot be accessed, or is on a pseudo filesystem.
pub fn volume_of(path: &Path) -> anyhow::Result<MountedVolume> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        .with_context(|| format!("cannot access {}", path.display()))?;
    let volumes = read().context("cannot read /proc/self/mountinfo")?;
    volumes
        .into_iter()
        .find(|volume| volume.mounts.iter().any(|mount| u64::from(mount.id) == stat.stx_mnt_id))
        .ok_or_else(|| {
            anyhow!("{} is not on a volume that can fill (a pseudo filesystem?)", path.display())
        })
}

/// Parses all lines; lines of an unexpected form are left out.
#[must_use]
pub fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let parent = text(fields.next()?).parse().ok()?;
    let dev = text(fields.next()?);
    let (major, minor) = dev.split_once(':')?;
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    let options = text(fields.next()?);
    // Optional fields end with a lone hyphen.
    fields.by_ref().find(|field| *field == b"-")?;
    let fs_type = text(fields.next()?);
    let source = text(unescape(fields.next()?).as_os_str().as_bytes());
    let super_options = fields.next().unwrap_or_default();
    let upper_dir = super_options
        .split(|byte| *byte == b',')
        .find_map(|option| option.strip_prefix(b"upperdir="))
        .filter(|_| fs_type == "overlay")
        .map(unescape);
    let super_options = text(super_options);
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        id,
        parent,
        dev: major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?,
        root,
        mount_point,
        read_only: read_only(&options) || read_only(&super_options),
        fs_type,
        source,
        upper_dir,
        covers: HashSet::new(),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Decodes `\040` and the like: space, tab, newline and backslash are escaped in octal.
pub(crate) fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &rest[4..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Groups mounts by device; pseudo filesystems and read-only volumes are left out.
#[must_use]
pub fn volumes(mut mounts: Vec<Mount>) -> Vec<MountedVolume> {
    cover::find(&mut mounts);
    let mut by_dev: BTreeMap<u32, MountedVolume> = BTreeMap::new();
    for mount in mounts {
        if PSEUDO.contains(&mount.fs_type.as_str()) {
            continue;
        }
        by_dev
            .entry(mount.dev)
            .or_insert_with(|| MountedVolume {
                dev: mount.dev,
                fs_type: mount.fs_type.clone(),
                source: mount.source.clone(),
                mounts: Vec::new(),
                container: None,
                shares_mount_point: false,
            })
            .mounts
            .push(mount);
    }
    let mut volumes: Vec<_> = by_dev.into_values().collect();
    for volume in &mut volumes {
        volume.mounts.sort_by_key(|mount| {
            (
                // Last come hidden mounts, and the mounts in which kubelet keeps a volume for its
                // pods.
                mount.is_hidden(),
                mount.mount_point.ends_with("globalmount"),
                mount.root.as_os_str().len(),
                mount.mount_point.as_os_str().len(),
            )
        });
    }
    // A volume that cannot be written to cannot fill.
    volumes.retain(|volume| volume.mounts.iter().any(|mount| !mount.read_only));
    cover::tell_apart(&mut volumes);
    volumes
}

impl MountedVolume {
    /// Creates a volume for a memory filesystem that is mounted only in a container.
    #[must_use]
    pub fn in_container(mount: &Mount, container: ContainerMount) -> Self {
        let mut named = OsString::from(&container.group.name);
        named.push(":");
        named.push(&container.mount_point);
        Self {
            dev: mount.dev,
            fs_type: mount.fs_type.clone(),
            source: mount.source.clone(),
            mounts: vec![Mount { mount_point: named.into(), ..mount.clone() }],
            container: Some(container),
            shares_mount_point: false,
        }
    }

    /// Makes the name unique if another container of the same name has a memory filesystem: adds
    /// the container's id, or the runtime. Volumes are identified by their mount points.
    pub fn disambiguate(&mut self) {
        let Some(container) = &self.container else { return };
        let Group { kind, name, .. } = &container.group;
        // LXC containers and machines have no id, and never share a name.
        let id = container.group.container_id().map_or(kind.name(), |id| &id[..12]);
        let mut named = OsString::from(format!("{name} ({id}):"));
        named.push(&container.mount_point);
        self.mounts[0].mount_point = named.into();
    }

    /// Returns the mount that shows most of the filesystem.
    #[must_use]
    pub fn primary(&self) -> &Mount {
        &self.mounts[0]
    }

    /// Converts a path from the filesystem's root to the host's path, below the first mount that
    /// shows it (mounts that show more come first); where later mounts hide it below each of them,
    /// below the first. `None` if no mount of the host contains it.
    #[must_use]
    pub fn host_path(&self, within: &Path) -> Option<PathBuf> {
        let mut paths = self.mounts.iter().filter_map(|mount| {
            let rest = within.strip_prefix(&mount.root).ok()?;
            let path = if rest.as_os_str().is_empty() {
                mount.mount_point.clone()
            } else {
                mount.mount_point.join(rest)
            };
            Some((mount, path))
        });
        let (first, path) = paths.next()?;
        if self.mounts.len() == 1 || first.hidden_by(&path).is_none() {
            return Some(path);
        }
        let shown = paths.find(|(mount, path)| mount.hidden_by(path).is_none());
        Some(shown.map_or(path, |(_, path)| path))
    }

    /// Opens its root directory, or the one that its first visible mount shows, for reading. Does
    /// not update its access time.
    ///
    /// # Errors
    /// If no mount point shows it, or it cannot be opened.
    pub fn open(&self) -> io::Result<File> {
        let mount = self.visible_mount().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK)
            .open(host_root::path(&mount.mount_point))
    }

    /// Returns the mounts whose mount points still show this volume: another mount may hide them.
    fn visible_mounts(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| is_visible(mount))
    }

    /// Returns the first mount whose mount point still shows this volume.
    #[must_use]
    pub fn visible_mount(&self) -> Option<&Mount> {
        self.visible_mounts().next()
    }

    /// Opens the first mount point that still shows this volume, with O_PATH: nothing is read.
    #[must_use]
    pub fn open_path(&self) -> Option<OwnedFd> {
        use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, open, statx};
        if let Some(container) = &self.container {
            return container.open(self.primary().id);
        }
        self.visible_mounts().find_map(|mount| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let opened = open(host_root::path(&mount.mount_point), flags, Mode::empty()).ok()?;
            // Something else may have been mounted there meanwhile.
            let stat = statx(&opened, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
            let known = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
            (!known || stat.stx_mnt_id == u64::from(mount.id)).then_some(opened)
        })
    }

    /// Returns statvfs of the first mount point that still shows this volume.
    #[must_use]
    pub fn space(&self) -> Option<Space> {
        if let Some(container) = &self.container {
            let mount = container.open(self.primary().id)?;
            return rustix::fs::fstatvfs(&mount).ok().map(|stat| Space::of(&stat));
        }
        self.visible_mounts().find_map(|mount| {
            let stat = rustix::fs::statvfs(host_root::path(&mount.mount_point)).ok()?;
            Some(Space::of(&stat))
        })
    }
}

impl Space {
    /// Returns statvfs of a path in this process's view, such as a descriptor in /proc.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        rustix::fs::statvfs(path).ok().map(|stat| Self::of(&stat))
    }

    fn of(stat: &rustix::fs::StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Self {
            total: bytes(stat.f_blocks),
            used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            avail: bytes(stat.f_bavail),
            reserved: bytes(stat.f_bfree.saturating_sub(stat.f_bavail)),
            inodes_total: stat.f_files,
            inodes_free: stat.f_ffree,
        }
    }
}

impl ContainerMount {
    /// Opens the mount point, if it still shows the mount with this id. Requires CAP_SYS_PTRACE.
    /// The path is controlled by the container: symbolic links are not followed, so it cannot lead
    /// out of the container or to a filesystem that does not answer.
    fn open(&self, id: u32) -> Option<OwnedFd> {
        use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, open, openat2, statx};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(format!("/proc/{}/root", self.pid), flags, Mode::empty()).ok()?;
        let within = self.mount_point.strip_prefix("/").ok()?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mount = openat2(&root, within, flags, Mode::empty(), resolve).ok()?;
        let stat = statx(&mount, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        (stat.stx_mnt_id == u64::from(id)).then_some(mount)
    }
}

/// Whether the path still leads to this mount, compared by mount id (statx, 5.8).
fn is_visible(mount: &Mount) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    match statx(CWD, host_root::path(&mount.mount_point), AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)
    {
        Ok(stat) if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 => {
            stat.stx_mnt_id == u64::from(mount.id)
        }
        Ok(_) => true,
        Err(_) => false,
    }
}
