//! Memory filesystems that are mounted only inside a container: `docker run --tmpfs`, its /dev/shm.
//! They are not among the host's mounts, but they fill up, and use the host's memory.
//!
//! They are found through the mount namespace of a process that wrote to them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use tracer_common::ProcKey;
use tracer_model::snapshot::Group;

use super::groups::containers::oldest_in;
use super::groups::{Groups, Membership, mount_namespace};
use tracer_host::mounts;
use tracer_host::mounts::{ContainerMount, Mount, MountedVolume};
use tracer_host::process::stat::is_same_process;

/// Maximum number of such volumes.
const MAX_VOLUMES: usize = 64;
/// Maximum number of devices remembered as not being such a volume.
const MAX_OTHER_DEVICES: usize = 1_024;
/// Filesystems that depend on a server, which may not answer: mounts below them are ignored.
const REMOTE: &[&str] = &["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "virtiofs", "autofs"];

/// The known memory filesystems of containers.
#[derive(Default)]
pub struct ContainerTmpfs {
    volumes: Vec<MountedVolume>,
    /// Devices that were written to and are not a container's memory filesystem, such as memfd's.
    other_devices: HashSet<u32>,
}

impl ContainerTmpfs {
    /// Examines devices that are not volumes of the host, each with a process that wrote to it.
    /// Returns whether a new volume was found.
    pub(crate) fn discover(
        &mut self,
        written: impl Iterator<Item = (u32, ProcKey)>,
        groups: &mut Groups,
    ) -> bool {
        let before = self.volumes.len();
        for (dev, proc) in written {
            let known = self.other_devices.contains(&dev) || self.has(dev);
            if known || self.volumes.len() >= MAX_VOLUMES {
                continue;
            }
            let volume =
                groups.member(&proc).cloned().and_then(|at| find_volume(dev, &proc, &at, groups));
            match volume {
                Some(volume) => self.add(volume),
                // If the writer has already exited, the next writer may lead to the mount.
                None if is_same_process(&proc) => {
                    if self.other_devices.len() >= MAX_OTHER_DEVICES {
                        self.other_devices.clear();
                    }
                    self.other_devices.insert(dev);
                }
                None => {}
            }
        }
        self.volumes.len() > before
    }

    fn add(&mut self, mut volume: MountedVolume) {
        let name = &volume.primary().mount_point;
        if self.volumes.iter().any(|known| known.primary().mount_point == *name) {
            volume.disambiguate();
        }
        self.volumes.push(volume);
    }

    fn has(&self, dev: u32) -> bool {
        self.volumes.iter().any(|volume| volume.dev == dev)
    }

    /// The volumes that are still mounted and are not volumes of the host. If the process that a
    /// volume was reached through has ended, another process of its mount namespace is used.
    pub(crate) fn refresh(&mut self, host: &[MountedVolume], groups: &Groups) -> &[MountedVolume] {
        self.volumes.retain_mut(|volume| {
            if host.iter().any(|host| host.dev == volume.dev) {
                return false;
            }
            if volume.space().is_some() {
                return true;
            }
            let Some(inside) = volume.container.as_mut() else { return false };
            let others = processes_inside(&inside.group, inside.mnt_ns, groups);
            let Some(other) = others.into_iter().find(|pid| *pid != inside.pid) else {
                return false;
            };
            inside.pid = other;
            volume.space().is_some()
        });
        &self.volumes
    }

    /// Begins a new interval: a device that was not such a volume may have become one.
    pub(crate) fn next_interval(&mut self) {
        self.other_devices.clear();
    }
}

/// Processes through which the mounts of a container can be reached, the longest-lived first: the
/// container's first process, which may never have written anything, then the known writers.
fn processes_inside(group: &Group, mnt_ns: u32, groups: &Groups) -> Vec<u32> {
    let first = group.cgroup.as_deref().and_then(oldest_in);
    first.into_iter().chain(groups.in_namespace(mnt_ns)).collect()
}

fn find_volume(
    dev: u32,
    proc: &ProcKey,
    member: &Membership,
    groups: &Groups,
) -> Option<MountedVolume> {
    if !member.group.is_container() || !groups.has_private_root(member) {
        return None;
    }
    // The container's first process lives as long as the container; most writers do not.
    let mut pids = processes_inside(&member.group, member.mnt_ns, groups);
    pids.push(proc.tgid);
    // Read now: mounts that were read earlier may be those of a container that was still being set up,
    // where this one had another path. The namespace is checked last, so that a reused pid's mounts are
    // discarded.
    let mounts = pids.iter().find_map(|pid| {
        let mounts = mounts::parse(&fs::read(format!("/proc/{pid}/mountinfo")).ok()?);
        (mount_namespace(&pid.to_string()) == Some(member.mnt_ns)).then_some(mounts)
    })?;
    let mount = local_tmpfs(&mounts, dev)?;
    pids.into_iter().find_map(|pid| {
        let inside = ContainerMount {
            pid,
            mnt_ns: member.mnt_ns,
            group: member.group.clone(),
            mount_point: mount.mount_point.clone(),
        };
        let volume = MountedVolume::in_container(mount, inside);
        volume.space().map(|_| volume)
    })
}

/// The writable memory filesystem on this device, if its path crosses no filesystem that depends on
/// a server.
fn local_tmpfs(mounts: &[Mount], dev: u32) -> Option<&Mount> {
    let is_local = |point: &Path| {
        let above = mounts.iter().filter(|mount| point.starts_with(&mount.mount_point));
        above.into_iter().all(|mount| {
            !mount.fs_type.starts_with("fuse") && !REMOTE.contains(&mount.fs_type.as_str())
        })
    };
    mounts.iter().find(|mount| {
        mount.dev == dev
            && mount.fs_type == "tmpfs"
            && mount.root == Path::new("/")
            && !mount.read_only
            && is_local(&mount.mount_point)
    })
}

#[cfg(test)]
mod tests {
    use tracer_model::snapshot::GroupKind;

    use super::*;

    const MOUNTS: &str = "\
600 500 0:70 / / rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/b7/diff
601 600 0:71 / /dev/shm rw - tmpfs shm rw,size=65536k
602 600 0:72 / /sys/firmware ro - tmpfs tmpfs ro
603 600 0:73 /part /part rw - tmpfs tmpfs rw
604 600 0:74 / /srv rw - fuse.sshfs host:/ rw
605 604 0:75 / /srv/cache rw - tmpfs tmpfs rw
606 600 254:1 /x /data rw - ext4 /dev/vda1 rw
";

    #[test]
    fn tmpfs_of_two_containers_with_the_same_name_is_two_volumes() {
        let mounts = mounts::parse(MOUNTS.as_bytes());
        let mut tmpfs = ContainerTmpfs::default();
        for digit in ["a", "b"] {
            let group = Group {
                kind: GroupKind::Podman,
                name: "web".to_owned(),
                cgroup: Some(format!("/libpod_parent/libpod-{}", digit.repeat(64))),
                ..Group::default()
            };
            let mount_point = "/dev/shm".into();
            let inside = ContainerMount { pid: 1, mnt_ns: 7, group, mount_point };
            tmpfs.add(MountedVolume::in_container(&mounts[1], inside));
        }
        let names: Vec<_> = tmpfs.volumes.iter().map(|row| &row.primary().mount_point).collect();
        assert_eq!(names, [Path::new("web:/dev/shm"), Path::new("web (bbbbbbbbbbbb):/dev/shm")]);
    }

    #[test]
    fn only_a_local_writable_tmpfs_is_a_volume() {
        let mounts = mounts::parse(MOUNTS.as_bytes());
        let point = |dev| local_tmpfs(&mounts, dev).map(|mount| mount.mount_point.clone());
        assert_eq!(point(71), Some("/dev/shm".into()));
        for (dev, why) in [
            (70, "an overlay"),
            (72, "read-only"),
            (73, "a subdirectory of one"),
            (75, "below a server's filesystem"),
            (254 << 20 | 1, "a disk"),
            (9, "not mounted"),
        ] {
            assert_eq!(point(dev), None, "{why}");
        }
    }
}
