//! What is behind a volume: the process that serves a FUSE filesystem, and the file that a loop
//! device stores it in.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tracer_model::snapshot::Parent;

use super::MountedVolume;
use crate::process::descriptors::strip_deleted;
use crate::process::stat;

/// Device number of `/dev/fuse`: major 10, minor 229 (Documentation/admin-guide/devices.txt).
const FUSE_DEVICE: (u32, u32) = (10, 229);
/// Device mappers on device mappers are followed this deep.
const MAX_DEVICES: usize = 8;

/// A process that has /dev/fuse open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    pid: u32,
    ppid: u32,
    comm: String,
    /// The connections that it serves: `s_dev` of their filesystems. `None` before Linux 6.14,
    /// where fdinfo does not name them.
    connections: Option<BTreeSet<u32>>,
    arguments: Vec<Vec<u8>>,
    /// Inode number of its mount namespace, if known.
    mnt_ns: Option<u64>,
}

/// The processes that serve FUSE filesystems, at one time.
#[derive(Debug, Default)]
pub struct FuseServers {
    servers: Vec<Server>,
    /// Inode number of the host's mount namespace, if known.
    host_mnt_ns: Option<u64>,
}

/// Whether a process serves filesystems of this type.
#[must_use]
pub fn is_fuse(fs_type: &str) -> bool {
    matches!(fs_type, "fuse" | "fuseblk") || fs_type.starts_with("fuse.")
}

impl FuseServers {
    /// Searches all processes. Those whose descriptors cannot be read (CAP_SYS_PTRACE) are left out.
    #[must_use]
    pub fn find() -> Self {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self { servers: pids.filter_map(server).collect(), host_mnt_ns: mount_namespace(1) }
    }

    /// The process that serves a FUSE filesystem; `None` if it was not found, or if it could be
    /// one of several.
    #[must_use]
    pub fn of(&self, volume: &MountedVolume) -> Option<Parent> {
        let serves = |server: &&Server| match &server.connections {
            Some(connections) => connections.contains(&volume.dev),
            // A server in another mount namespace may have the same path for something else.
            None => server.mnt_ns == self.host_mnt_ns && names_mount_point(server, volume),
        };
        let found: Vec<&Server> = self.servers.iter().filter(serves).collect();
        // A child that has inherited the descriptor does not serve.
        let is_child = |server: &&Server| found.iter().any(|other| other.pid == server.ppid);
        let mut first: Vec<&Server> = found.iter().copied().filter(|one| !is_child(one)).collect();
        let only = first.pop().filter(|_| first.is_empty())?;
        Some(Parent { pid: only.pid, comm: only.comm.clone() })
    }
}

/// A mount point of the FUSE filesystem that a process serves; the device's path, `/dev/fuse`, if that
/// is not known. `None` if it serves none.
#[must_use]
pub fn served_by(pid: u32, mounted: &[MountedVolume]) -> Option<PathBuf> {
    let server = server(pid)?;
    let mut volumes = mounted.iter().filter(|volume| is_fuse(&volume.fs_type));
    let found = volumes.find(|volume| match &server.connections {
        Some(connections) => connections.contains(&volume.dev),
        None => names_mount_point(&server, volume),
    });
    Some(found.map_or_else(|| "/dev/fuse".into(), |volume| volume.primary().mount_point.clone()))
}

/// Whether one of the arguments is a mount point of the volume.
fn names_mount_point(server: &Server, volume: &MountedVolume) -> bool {
    server.arguments.iter().skip(1).any(|argument| {
        let argument = Path::new(OsStr::from_bytes(argument));
        // Path compares without a slash at the end.
        volume.mounts.iter().any(|mount| mount.mount_point == argument)
    })
}

/// Reads a process, if it has /dev/fuse open.
fn server(pid: u32) -> Option<Server> {
    let is_fuse = |number: &str| {
        let link = format!("/proc/{pid}/fd/{number}");
        // The link names the device wherever the device file is; another file may have that name.
        fs::read_link(&link).is_ok_and(|to| to.ends_with("fuse"))
            && fs::metadata(&link).is_ok_and(|meta| {
                let dev = meta.rdev();
                (libc::major(dev), libc::minor(dev)) == FUSE_DEVICE
            })
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let numbers = descriptors.filter_map(|entry| entry.file_name().into_string().ok());
    let numbers: Vec<String> = numbers.filter(|number| is_fuse(number)).collect();
    if numbers.is_empty() {
        return None;
    }
    let infos = numbers
        .iter()
        .filter_map(|number| fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok());
    let connections: BTreeSet<u32> = infos.filter_map(|info| connection(&info)).collect();
    let stat = stat::stat(pid)?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Some(Server {
        pid,
        ppid: stat.ppid,
        comm: stat.comm,
        connections: (!connections.is_empty()).then_some(connections),
        arguments: arguments.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(),
        mnt_ns: mount_namespace(pid),
    })
}

/// The connection in the text of fdinfo, as `s_dev`.
fn connection(info: &str) -> Option<u32> {
    let value = info.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?;
    value.trim().parse().ok()
}

fn mount_namespace(pid: u32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino())
}

/// The file that the volume is stored in, if it is on a loop device: as the host names it. An
/// encrypted or mapped volume on one loop device counts, too.
#[must_use]
pub fn backing_file(volume: &MountedVolume) -> Option<PathBuf> {
    let source = Path::new(&volume.source);
    let name = source.strip_prefix("/dev").ok()?.file_name()?;
    let by_name = Path::new("/sys/class/block").join(name);
    // /dev/mapper/NAME is not the name in /sys; a btrfs has no device number of its own.
    let by_number = format!("/sys/dev/block/{}:{}", volume.dev >> 20, volume.dev & 0xf_ffff);
    let device = [by_name, by_number.into()].into_iter().find(|device| device.exists())?;
    backing_of(&device)
}

fn backing_of(device: &Path) -> Option<PathBuf> {
    let mut device = fs::canonicalize(device).ok()?;
    for _ in 0..MAX_DEVICES {
        if let Ok(file) = fs::read(device.join("loop/backing_file")) {
            let path = Path::new(OsStr::from_bytes(file.strip_suffix(b"\n").unwrap_or(&file)));
            return Some(strip_deleted(path).to_path_buf());
        }
        device = if device.join("partition").exists() {
            device.parent()?.to_path_buf()
        } else {
            let mut below = fs::read_dir(device.join("slaves")).ok()?.flatten();
            let only = below.next().filter(|_| below.next().is_none())?;
            fs::canonicalize(only.path()).ok()?
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{parse, volumes};

    fn volume() -> MountedVolume {
        let line = b"40 1 0:52 / /mnt/pool rw - fuse.mergerfs a:b rw\n";
        volumes(parse(line)).remove(0)
    }

    fn server(pid: u32, ppid: u32, connections: Option<&[u32]>, arguments: &str) -> Server {
        Server {
            pid,
            ppid,
            comm: format!("server{pid}"),
            connections: connections.map(|all| all.iter().copied().collect()),
            arguments: arguments.split(' ').map(|word| word.as_bytes().to_vec()).collect(),
            mnt_ns: Some(1),
        }
    }

    fn pid_of(servers: &[Server]) -> Option<u32> {
        let servers = FuseServers { servers: servers.to_vec(), host_mnt_ns: Some(1) };
        servers.of(&volume()).map(|found| found.pid)
    }

    #[test]
    fn the_kernel_names_the_connection() {
        let text = "pos:\t0\nflags:\t02100002\nmnt_id:\t22\nfuse_connection:\t52\n";
        assert_eq!(connection(text), Some(52));
        assert_eq!(connection("pos:\t0\n"), None);
        let other = server(7, 1, Some(&[51]), "mergerfs a:b /mnt/pool");
        assert_eq!(pid_of(&[other.clone(), server(8, 1, Some(&[3, 52]), "x")]), Some(8));
        assert_eq!(pid_of(&[other]), None);
    }

    #[test]
    fn on_older_kernels_its_arguments_name_the_mount_point() {
        let by_name = server(9, 1, None, "mergerfs -o rw a:b /mnt/pool/");
        assert_eq!(pid_of(&[server(8, 1, None, "sshfs x: /mnt/other"), by_name.clone()]), Some(9));
        // One that inherited the descriptor.
        assert_eq!(pid_of(&[by_name.clone(), server(10, 9, None, "sh /mnt/pool")]), Some(9));
        // Which of the two is not known.
        assert_eq!(pid_of(&[by_name.clone(), server(11, 1, None, "other /mnt/pool")]), None);
        let elsewhere = Server { mnt_ns: Some(2), ..by_name };
        assert_eq!(pid_of(&[elsewhere]), None);
    }

    #[test]
    fn the_file_below_a_partition_and_a_mapped_device() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("loop7/loop")).unwrap();
        fs::write(at("loop7/loop/backing_file"), "/srv/a b.img (deleted)\n").unwrap();
        fs::create_dir_all(at("loop7/loop7p1")).unwrap();
        fs::write(at("loop7/loop7p1/partition"), "1\n").unwrap();
        fs::create_dir_all(at("dm-0/slaves")).unwrap();
        std::os::unix::fs::symlink(at("loop7/loop7p1"), at("dm-0/slaves/loop7p1")).unwrap();
        assert_eq!(backing_of(&at("dm-0")), Some(PathBuf::from("/srv/a b.img")));
        fs::create_dir_all(at("vda")).unwrap();
        assert_eq!(backing_of(&at("vda")), None);
    }
}
