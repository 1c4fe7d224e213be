//! Volumes: /proc/self/mountinfo and statvfs.

pub mod events;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use tracer_model::snapshot::Group;

use crate::host_root;

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Unique while mounted.
    pub id: u32,
    /// The mount that it is mounted on.
    pub parent: u32,
    /// `major << 20 | minor` of the filesystem: the kernel's `s_dev`, also for btrfs.
    pub dev: u32,
    /// Which directory of the filesystem is mounted.
    pub root: PathBuf,
    /// Where.
    pub mount_point: PathBuf,
    /// Mounted read-only?
    pub read_only: bool,
    /// `ext4`, `btrfs`, …
    pub fs_type: String,
    /// Device, or whatever the filesystem calls its source.
    pub source: String,
    /// Of an overlay: where what is written lands, as the host named it when it was mounted.
    pub upper_dir: Option<PathBuf>,
}

/// A mounted filesystem with all its mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    /// `s_dev`.
    pub dev: u32,
    /// `ext4`, `btrfs`, …
    pub fs_type: String,
    /// Device.
    pub source: String,
    /// All of them; the first shows most of the filesystem.
    pub mounts: Vec<Mount>,
    /// Where it is mounted in a container alone; `None` of the host's own volumes.
    pub inside: Option<Inside>,
}

/// The mount namespace of a container in which a volume is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// A process that runs there, by whose root directory the mount is reached.
    pub pid: u32,
    /// Number of the mount namespace.
    pub mnt_ns: u32,
    /// The container.
    pub group: Group,
    /// The mount point in there.
    pub mount_point: PathBuf,
}

/// Sizes of a volume: statvfs(3), bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// All.
    pub total: u64,
    /// blocks − bfree.
    pub used: u64,
    /// bavail.
    pub avail: u64,
    /// bfree − bavail.
    pub reserved: u64,
    /// 0 where the number is not fixed.
    pub inodes_total: u64,
    /// Free ones.
    pub inodes_free: u64,
}

/// Filesystems that hold no data of anybody's, or whose data is another volume's (overlay).
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

/// Reads the host's mounts.
///
/// # Errors
/// If /proc is not mounted.
pub fn read() -> io::Result<Vec<MountedVolume>> {
    Ok(volumes(parse(&std::fs::read(host_root::mountinfo())?)))
}

/// The volume that holds a path.
///
/// # Errors
/// If the path cannot be looked at, or lies on a pseudo filesystem.
pub fn holding(path: &Path) -> anyhow::Result<MountedVolume> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        .with_context(|| format!("cannot look at {}", path.display()))?;
    let volumes = read().context("cannot read /proc/self/mountinfo")?;
    volumes
        .into_iter()
        .find(|volume| volume.mounts.iter().any(|mount| u64::from(mount.id) == stat.stx_mnt_id))
        .ok_or_else(|| {
            anyhow!("{} is not on a volume that can fill (a pseudo filesystem?)", path.display())
        })
}

/// All lines; what is not of the expected form is left out.
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
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Space, tab, newline and backslash are written as `\040` and so on.
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

/// Groups mounts by device; pseudo filesystems are left out.
#[must_use]
pub fn volumes(mounts: Vec<Mount>) -> Vec<MountedVolume> {
    let hidden = hidden(&mounts);
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
                inside: None,
            })
            .mounts
            .push(mount);
    }
    let mut volumes: Vec<_> = by_dev.into_values().collect();
    for volume in &mut volumes {
        volume.mounts.sort_by_key(|mount| {
            (
                // What nobody can reach comes last, and where kubelet keeps a volume for its pods.
                hidden.contains(&mount.id),
                mount.mount_point.ends_with("globalmount"),
                mount.root.as_os_str().len(),
                mount.mount_point.as_os_str().len(),
            )
        });
    }
    // What cannot be written cannot fill.
    volumes.retain(|volume| volume.mounts.iter().any(|mount| !mount.read_only));
    volumes
}

/// Ids of the mounts that another one covers: on the same point, or on a directory above it.
fn hidden(mounts: &[Mount]) -> HashSet<u32> {
    let by_id: HashMap<u32, &Mount> = mounts.iter().map(|mount| (mount.id, mount)).collect();
    // What is mounted on each mount, by point.
    let mut on: HashMap<(u32, &Path), Vec<u32>> = HashMap::new();
    for mount in mounts.iter().filter(|mount| mount.parent != mount.id) {
        on.entry((mount.parent, &mount.mount_point)).or_default().push(mount.id);
    }
    let is_hidden = |mount: &Mount| {
        // Something on its own root.
        if on.contains_key(&(mount.id, &mount.mount_point)) {
            return true;
        }
        let mut child = mount;
        for _ in 0..mounts.len() {
            let Some(parent) = by_id.get(&child.parent).filter(|parent| parent.id != child.id)
            else {
                return false;
            };
            // On the way from the parent's root to the child, something else is mounted on the parent.
            let covers = |point: &Path| {
                on.get(&(parent.id, point)).is_some_and(|ids| ids.iter().any(|id| *id != child.id))
            };
            let way = child.mount_point.ancestors();
            if way.take_while(|at| at.starts_with(&parent.mount_point)).any(covers) {
                return true;
            }
            child = parent;
        }
        false
    };
    mounts.iter().filter(|mount| is_hidden(mount)).map(|mount| mount.id).collect()
}

impl MountedVolume {
    /// A memory file system that is mounted in a container alone.
    #[must_use]
    pub fn inside(mount: &Mount, inside: Inside) -> Self {
        let mut named = OsString::from(&inside.group.name);
        named.push(":");
        named.push(&inside.mount_point);
        Self {
            dev: mount.dev,
            fs_type: mount.fs_type.clone(),
            source: mount.source.clone(),
            mounts: vec![Mount { mount_point: named.into(), ..mount.clone() }],
            inside: Some(inside),
        }
    }

    /// Tells a container's memory file system from that of another container of the same name: by the runtime
    /// and the container's id. Volumes are known by their mount points.
    pub fn tell_apart(&mut self) {
        let Some(inside) = &self.inside else { return };
        let Group { kind, name, .. } = &inside.group;
        // LXC and machines have no id, and no two of one name.
        let id = inside.group.container_id().map_or(&**kind, |id| &id[..12]);
        let mut named = OsString::from(format!("{name} ({id}):"));
        named.push(&inside.mount_point);
        self.mounts[0].mount_point = named.into();
    }

    /// The mount that shows most of it.
    #[must_use]
    pub fn primary(&self) -> &Mount {
        &self.mounts[0]
    }

    /// The host's path of a file, given its path from the filesystem's root: below the mount that
    /// shows it and most else. `None` if no mount of the host shows it.
    #[must_use]
    pub fn host_path(&self, within: &Path) -> Option<PathBuf> {
        self.mounts.iter().find_map(|mount| {
            let rest = within.strip_prefix(&mount.root).ok()?;
            Some(if rest.as_os_str().is_empty() {
                mount.mount_point.clone()
            } else {
                mount.mount_point.join(rest)
            })
        })
    }

    /// The mounts whose points still show this volume: another one may be mounted over them.
    fn all_shown(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| shows(mount))
    }

    /// The first mount whose point still shows this volume.
    #[must_use]
    pub fn shown(&self) -> Option<&Mount> {
        self.all_shown().next()
    }

    /// statvfs of the first mount point that still shows this volume.
    #[must_use]
    pub fn space(&self) -> Option<Space> {
        if let Some(inside) = &self.inside {
            let mount = inside.open(self.primary().id)?;
            return rustix::fs::fstatvfs(&mount).ok().map(|stat| Space::of(&stat));
        }
        self.all_shown().find_map(|mount| {
            let stat = rustix::fs::statvfs(host_root::path(&mount.mount_point)).ok()?;
            Some(Space::of(&stat))
        })
    }
}

impl Space {
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

impl Inside {
    /// The mount point, if it still shows the mount with this id. It takes CAP_SYS_PTRACE. The path is
    /// the container's: no symbolic link leads out of it, and to nothing that may not answer.
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

/// Does the path still lead to this mount? Known by the mount's id (statx, 5.8).
fn shows(mount: &Mount) -> bool {
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
