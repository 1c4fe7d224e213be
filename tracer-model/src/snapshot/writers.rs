//! Who writes: processes, and what they are rolled up to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::group_kind::GroupKind;

/// What a writer is rolled up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Group {
    /// The kind of unit, container or cgroup.
    pub kind: GroupKind,
    /// The name that people use for it.
    pub name: String,
    /// Path of its cgroup as /proc/PID/cgroup prints it; `None` for a session.
    pub cgroup: Option<String>,
    /// The host's path of its root directory, where that is not the host's: a chroot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Number of its mount namespace, where that is not the host's and its name does not say so: of
    /// a cgroup or a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_namespace: Option<u32>,
    /// The pod that it is a container of; `None` outside of Kubernetes, and where the pod's name was
    /// not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

/// A pod of Kubernetes: what its containers are rolled up to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Group {
    /// Is it a container, a pod, a build step or a machine, with a root file system of its own?
    #[must_use]
    pub const fn is_container(&self) -> bool {
        self.kind.is_container()
    }

    /// The container's id of 64 hexadecimal digits, as its cgroup has it; `None` where it has none.
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        let parts = self.cgroup.as_deref().filter(|_| self.is_container())?;
        let mut parts = parts.split(['/', '-', '.', ':']);
        parts.find(|part| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// The word by which `filltop stop` is given it: the path of a cgroup that has no name of its own, and a
    /// container with its kind, for a name may be another's, too, or look like a pid. `None` for a session.
    #[must_use]
    pub fn target(&self) -> Option<String> {
        match self.kind {
            GroupKind::Session => None,
            GroupKind::Build | GroupKind::Cgroup | GroupKind::Monitor => self.cgroup.clone(),
            GroupKind::Containerd | GroupKind::Crio | GroupKind::Docker => self.qualified(),
            GroupKind::Lxc | GroupKind::Machine | GroupKind::Podman => self.qualified(),
            GroupKind::Pod | GroupKind::Unit => Some(self.name.clone()),
        }
    }

    fn qualified(&self) -> Option<String> {
        Some(format!("{}/{}", self.kind, self.name))
    }
}

/// What a writer wrote for somebody else: a runtime's daemon writes the logs of containers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnBehalf {
    /// The container whose log it is.
    pub group: Group,
    /// Bytes written to its log in the window; part of the writer's `written_bytes`.
    pub written_bytes: u64,
    /// Rate over the window.
    pub written_bytes_per_s: f64,
    /// Growth of its log over the window; part of the writer's `growth_bytes_per_s`.
    pub growth_bytes_per_s: f64,
}

/// Who starts a group's processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawner {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// How many of the group's writers it (or its child) started.
    pub spawned: u64,
}

/// A group on one volume. Keyed by (group, volume).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Who.
    #[serde(flatten)]
    pub group: Group,
    /// Mount point of the volume.
    pub volume: String,
    /// Processes of it that wrote, since `first_seen`.
    pub processes: u64,
    /// Of those that wrote in the window, how many still run.
    pub alive: u64,
    /// Bytes written in the window.
    pub written_bytes: u64,
    /// Bytes written since `first_seen`.
    pub written_total_bytes: u64,
    /// Rate over the window.
    pub written_bytes_per_s: f64,
    /// Growth over the window, as its writers'.
    pub growth_bytes_per_s: f64,
    /// Of the volume's growth, as its writers', 0..1.
    pub share: f64,
    /// Files created in the window.
    pub files_created: u64,
    /// Highest growth of all windows.
    pub peak_bytes_per_s: f64,
    /// When that was.
    pub peak_at: Timestamp,
    /// End of the first window in which it wrote.
    pub first_seen: Timestamp,
    /// End of the last one.
    pub last_seen: Timestamp,
    /// Who starts its processes, where one process started several.
    pub spawner: Option<Spawner>,
    /// The directory that took most of its bytes in the last window in which it wrote.
    pub directory: Option<String>,
    /// Of a container: what its runtime's daemon wrote to its log files, bytes per second over the
    /// window. In none of the other figures, which are of its own processes.
    #[serde(default)]
    pub log_bytes_per_s: f64,
    /// Growth of those log files, bytes per second.
    #[serde(default)]
    pub log_growth_bytes_per_s: f64,
    /// Of a runtime's daemon: the part of `growth_bytes_per_s` that are logs of containers.
    #[serde(default)]
    pub on_behalf_growth_bytes_per_s: f64,
}

impl GroupRow {
    /// Growth that it is to blame for, bytes per second: its own with its logs, without what it wrote
    /// as the logs of others.
    #[must_use]
    pub fn charged_growth(&self) -> f64 {
        self.growth_bytes_per_s + self.log_growth_bytes_per_s - self.on_behalf_growth_bytes_per_s
    }
}

/// A group that has files of a volume open for writing: what suffers when it is full. Keyed by
/// (group, volume).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resident {
    /// Who.
    #[serde(flatten)]
    pub group: Group,
    /// Mount point of the volume.
    pub volume: String,
    /// Its processes with such files.
    pub processes: u64,
    /// Such files.
    pub files: u64,
    /// Space that they occupy.
    pub bytes: u64,
    /// The largest of them.
    pub largest: String,
    /// Databases recognised by what is held open, e.g. `PostgreSQL`.
    pub databases: Vec<String>,
}

/// Failed writes in the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteErrors {
    /// No space left on device.
    #[serde(rename = "ENOSPC")]
    pub enospc: u64,
    /// Quota exceeded.
    #[serde(rename = "EDQUOT")]
    pub edquot: u64,
    /// Input/output error.
    #[serde(rename = "EIO", default)]
    pub eio: u64,
    /// Any other error of a write, e.g. EFBIG.
    #[serde(default)]
    pub other: u64,
}

impl WriteErrors {
    /// Errors that say that the volume is out of space.
    #[must_use]
    pub const fn no_space(&self) -> u64 {
        self.enospc + self.edquot
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.enospc + self.edquot + self.eio + self.other
    }
}

/// fsync and fdatasync calls in the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Fsync {
    /// Calls.
    pub count: u64,
    /// The longest, milliseconds.
    pub max_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
}

/// One process on one volume. Keyed by (pid, start_time, volume).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Writer {
    /// Process id (tgid) in the host's pid namespace.
    pub pid: u32,
    /// When the process started; tells a reused pid from the one before.
    pub start_time: Timestamp,
    /// Name of the process as the kernel keeps it, at most 15 bytes.
    pub comm: String,
    /// Path of the executable, if known.
    pub exe: Option<String>,
    /// Command line with single spaces between arguments, possibly cut; `None` if unknown.
    pub cmdline: Option<String>,
    /// Real user id.
    pub uid: u32,
    /// Its name, if /etc/passwd has one.
    pub user: Option<String>,
    /// What it is rolled up to; `None` if unknown.
    pub group: Option<Group>,
    /// Was it running at the end of the window?
    pub alive: bool,
    /// Mount point of the volume.
    pub volume: String,
    /// Bytes written in the window.
    pub written_bytes: u64,
    /// Space it caused to be charged; `None` where this backend cannot tell.
    pub allocated_bytes: Option<u64>,
    /// Space it gave back; `None` where this backend cannot tell.
    pub freed_bytes: Option<u64>,
    /// Space of deleted files that it holds open.
    pub held_bytes: Option<u64>,
    /// Rate over the window.
    pub written_bytes_per_s: f64,
    /// Growth over the window; written rate where space is not traced.
    pub growth_bytes_per_s: f64,
    /// Of the volume's growth (of its written bytes where space is not traced), 0..1.
    pub share: f64,
    /// Files it touched in the window.
    pub files: u64,
    /// Failed writes.
    pub errors: WriteErrors,
    /// `None` where this backend does not time them.
    pub fsync: Option<Fsync>,
    /// Its parent, that one's parent and so on, without PID 1; empty if unknown.
    #[serde(default)]
    pub parents: Vec<Parent>,
    /// Whose logs it wrote, largest growth first: of the daemon or monitor of a container runtime.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_behalf_of: Vec<OnBehalf>,
}

impl Writer {
    /// The container for which it wrote more than half of its bytes (of its growth, where it grew).
    #[must_use]
    pub fn mostly_for(&self) -> Option<&Group> {
        let first = self.on_behalf_of.first()?;
        let (part, whole) = if self.growth_bytes_per_s > 0.0 {
            (first.growth_bytes_per_s, self.growth_bytes_per_s)
        } else {
            (first.written_bytes_per_s, self.written_bytes_per_s)
        };
        (part > 0.5 * whole).then_some(&first.group)
    }

    /// Does it unpack a layer of an image for a container engine?
    #[must_use]
    pub fn imports_image(&self) -> bool {
        let first = self.cmdline.as_deref().and_then(|line| line.split(' ').next());
        let parent = self.parents.first().map(|parent| parent.comm.as_str());
        first.zip(parent).is_some_and(|(first, parent)| imports_image(first, parent))
    }
}

/// Does a process with this first argument unpack a layer of an image, having been started by this
/// parent? dockerd and podman start themselves anew for it, by /proc/self/exe, so that the kernel
/// calls the process `exe` (moby/pkg/chrootarchive, containers/storage/pkg/chrootarchive).
#[must_use]
pub fn imports_image(first_argument: &str, parent_comm: &str) -> bool {
    match parent_comm {
        "dockerd" => matches!(first_argument, "docker-untar" | "docker-applyLayer"),
        "podman" | "buildah" | "crio" => {
            matches!(first_argument, "storage-untar" | "storage-applyLayer")
        }
        _ => false,
    }
}

/// A process above a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Process id (tgid) in the host's pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(kind: GroupKind, name: &str, cgroup: &str) -> Group {
        let cgroup = Some(cgroup.to_owned());
        Group { kind, name: name.to_owned(), cgroup, ..Group::default() }
    }

    #[test]
    fn a_containers_id_is_in_its_cgroup() {
        let id = "0a".repeat(32);
        for cgroup in ["/docker/{ID}/x", "/system.slice/docker-{ID}.scope", "/x/cri:k8s:{ID}"] {
            let cgroup = cgroup.replace("{ID}", &id);
            assert_eq!(
                group(GroupKind::Docker, "web", &cgroup).container_id(),
                Some(&*id),
                "{cgroup}"
            );
            assert_eq!(group(GroupKind::Unit, "web", &cgroup).container_id(), None);
        }
        assert_eq!(group(GroupKind::Lxc, "web", "/lxc.payload.web").container_id(), None);
    }

    #[test]
    fn a_target_is_nothing_else() {
        let target = |kind| group(kind, "1234", "/c").target();
        assert_eq!(target(GroupKind::Docker).as_deref(), Some("docker/1234"));
        assert_eq!(target(GroupKind::Cgroup).as_deref(), Some("/c"));
        assert_eq!(target(GroupKind::Monitor).as_deref(), Some("/c"));
        assert_eq!(target(GroupKind::Session), None);
        assert_eq!(target(GroupKind::Unit).as_deref(), Some("1234"));
    }
}
