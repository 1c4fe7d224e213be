//! Writers: processes and the groups that they are rolled up to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::group_kind::GroupKind;

/// A group that writers are rolled up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Group {
    /// The kind of unit, container or cgroup.
    pub kind: GroupKind,
    /// The name that users know it by.
    pub name: String,
    /// Path of its cgroup as /proc/PID/cgroup prints it; `None` for a session.
    pub cgroup: Option<String>,
    /// Host path of its root directory, if it is in a chroot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Inode number of its mount namespace, for a cgroup or session whose namespace is not the
    /// host's. Containers have one, too, but are recognised by their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_namespace: Option<u32>,
    /// The pod that it is a container of; `None` outside of Kubernetes, or if the pod's name was
    /// not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

/// A Kubernetes pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
}

impl Pod {
    /// The pod as `NAMESPACE/NAME`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Group {
    /// Whether it is a container, pod, build step or machine, with its own root filesystem.
    #[must_use]
    pub const fn is_container(&self) -> bool {
        self.kind.is_container()
    }

    /// The container's id of 64 hexadecimal digits, from its cgroup; `None` if there is none.
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        let parts = self.cgroup.as_deref().filter(|_| self.is_container())?;
        let mut parts = parts.split(['/', '-', '.', ':']);
        parts.find(|part| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// The target that `filltop stop` accepts for it: the path of a cgroup that has no name of its
    /// own, and KIND/NAME for a container, because the name alone may be ambiguous or look like a
    /// pid. `None` for a session.
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

/// What a writer wrote on behalf of a container: a runtime's daemon writes the logs of containers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnBehalf {
    /// The container whose log it is.
    pub group: Group,
    /// Bytes written to its log in the interval; part of the writer's `written_bytes`.
    pub written_bytes: u64,
    /// Bytes written to its log per second; part of the writer's `written_bytes_per_s`.
    pub written_bytes_per_s: f64,
    /// Growth of its log, bytes per second; part of the writer's `growth_bytes_per_s`.
    pub growth_bytes_per_s: f64,
}

/// The process that starts a group's processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawner {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// Name of the process.
    pub comm: String,
    /// Number of the group's writers that it or its children started.
    pub spawned: u64,
}

/// A group on one volume. Keyed by (group, volume).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The group.
    #[serde(flatten)]
    pub group: Group,
    /// Mount point of the volume.
    pub volume: String,
    /// Number of its processes that have written since `first_seen`.
    pub processes: u64,
    /// Number of processes that wrote in the interval and still run.
    pub alive: u64,
    /// Whether no process is left in its cgroup. Looked up only for a while after the last of those that
    /// wrote has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// Bytes written in the interval.
    pub written_bytes: u64,
    /// Bytes written since `first_seen`.
    pub written_total_bytes: u64,
    /// Bytes written per second over the interval.
    pub written_bytes_per_s: f64,
    /// Growth over the interval, bytes per second, summed over its writers.
    pub growth_bytes_per_s: f64,
    /// Share of the volume's growth, 0..1, summed over its writers.
    pub share: f64,
    /// Inodes that its processes created in the interval: files, directories, links.
    pub files_created: u64,
    /// Inodes whose last name its processes removed in the interval.
    #[serde(default)]
    pub files_removed: u64,
    /// Highest growth of all intervals, bytes per second.
    pub peak_bytes_per_s: f64,
    /// End of the interval with that growth.
    pub peak_at: Timestamp,
    /// End of the first interval in which it wrote.
    pub first_seen: Timestamp,
    /// End of the last interval in which it wrote.
    pub last_seen: Timestamp,
    /// The process that started several of its processes, if there is one.
    pub spawner: Option<Spawner>,
    /// The directory that received most of its bytes in the last interval in which it wrote.
    pub directory: Option<String>,
    /// For a container: bytes per second that the runtime's daemon wrote to its log files. Not part
    /// of the other figures, which are those of its own processes.
    #[serde(default)]
    pub log_bytes_per_s: f64,
    /// Growth of those log files, bytes per second.
    #[serde(default)]
    pub log_growth_bytes_per_s: f64,
    /// For a runtime's daemon: the part of `growth_bytes_per_s` that went to logs of containers.
    #[serde(default)]
    pub on_behalf_growth_bytes_per_s: f64,
}

impl GroupRow {
    /// Growth that is charged to the group, bytes per second: its own, including its logs, without
    /// what it wrote to the logs of others.
    #[must_use]
    pub fn charged_growth(&self) -> f64 {
        self.growth_bytes_per_s + self.log_growth_bytes_per_s - self.on_behalf_growth_bytes_per_s
    }
}

/// A group with files open for writing on a volume, which is affected if the volume fills up. Keyed
/// by (group, volume).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resident {
    /// The group.
    #[serde(flatten)]
    pub group: Group,
    /// Mount point of the volume.
    pub volume: String,
    /// Number of its processes with such files.
    pub processes: u64,
    /// Number of such files.
    pub files: u64,
    /// Space that these files use, bytes.
    pub bytes: u64,
    /// Path of the largest one.
    pub largest: String,
    /// Databases recognised by their open files, e.g. `PostgreSQL`.
    pub databases: Vec<String>,
}

/// Numbers of failed writes in the interval, by error.
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
    /// Writes that ended early for lack of space: fewer bytes than asked, and no error.
    #[serde(default)]
    pub short: u64,
}

impl WriteErrors {
    /// Calls that failed because the volume is out of space: ENOSPC, EDQUOT, and short writes.
    #[must_use]
    pub const fn no_space(&self) -> u64 {
        self.enospc + self.edquot + self.short
    }

    /// All errors.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.enospc + self.edquot + self.eio + self.other + self.short
    }
}

/// fsync and fdatasync calls in the interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Fsync {
    /// Number of calls.
    pub count: u64,
    /// Longest call, milliseconds.
    pub max_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
}

/// One process on one volume. Keyed by (pid, start_time, volume).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Writer {
    /// Process id (tgid) in the host's pid namespace.
    pub pid: u32,
    /// When the process started; distinguishes it from earlier processes with the same pid.
    pub start_time: Timestamp,
    /// Name of the process as the kernel keeps it, at most 15 bytes: that of its thread-group leader.
    pub comm: String,
    /// Name of the thread that was last seen writing, if it differs from the process's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// Path of the executable, if known.
    pub exe: Option<String>,
    /// Command line with single spaces between arguments, possibly truncated; `None` if unknown.
    pub cmdline: Option<String>,
    /// Real user id.
    pub uid: u32,
    /// Name of the user, if /etc/passwd has one.
    pub user: Option<String>,
    /// The group that it is rolled up to; `None` if unknown.
    pub group: Option<Group>,
    /// Whether it was running at the end of the interval.
    pub alive: bool,
    /// Mount point of the volume.
    pub volume: String,
    /// Bytes written in the interval.
    pub written_bytes: u64,
    /// Space that it caused to be charged, bytes; `None` if this backend does not know it.
    pub allocated_bytes: Option<u64>,
    /// Space that it freed, bytes; `None` if this backend does not know it.
    pub freed_bytes: Option<u64>,
    /// Space of deleted files that it holds open, bytes.
    pub held_bytes: Option<u64>,
    /// Bytes written per second over the interval.
    pub written_bytes_per_s: f64,
    /// Growth over the interval, bytes per second; the written rate if space is not traced.
    pub growth_bytes_per_s: f64,
    /// Its share of everything that was taken on the volume, 0..1, including what no process accounts
    /// for; see [`share_base`].
    pub share: f64,
    /// Number of files that it changed in the interval.
    pub files: u64,
    /// Inodes that it created in the interval: files, directories, links; `None` if this backend does
    /// not trace that here.
    #[serde(default)]
    pub inodes_created: Option<u64>,
    /// Inodes whose last name it removed in the interval; `None` if this backend does not trace that.
    #[serde(default)]
    pub inodes_removed: Option<u64>,
    /// Failed writes in the interval.
    pub errors: WriteErrors,
    /// Its fsync calls; `None` without any, or if this backend does not time them.
    pub fsync: Option<Fsync>,
    /// Its ancestors, parent first, without PID 1; empty if unknown.
    #[serde(default)]
    pub parents: Vec<Parent>,
    /// For the daemon or monitor of a container runtime: the containers whose logs it wrote,
    /// largest growth first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_behalf_of: Vec<OnBehalf>,
    /// For a log daemon: the programs whose lines make up the end of the log that it writes, most
    /// bytes first. They name themselves, so the names are not proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_senders: Vec<LogSender>,
}

/// A program that sends lines to a log daemon, as its lines say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogSender {
    /// The tag of its lines, usually the name of the program.
    pub name: String,
    /// The pid in its lines; `None` without one, or if they have different ones.
    pub pid: Option<u32>,
    /// Share of the bytes that were looked at, 0..1.
    pub share: f64,
}

impl Writer {
    /// The container on whose behalf it wrote more than half of its bytes, or of its growth if it
    /// grew.
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

    /// Whether it unpacks a layer of an image for a container engine.
    #[must_use]
    pub fn imports_image(&self) -> bool {
        let first = self.cmdline.as_deref().and_then(|line| line.split(' ').next());
        let parent = self.parents.first().map(|parent| parent.comm.as_str());
        first.zip(parent).is_some_and(|(first, parent)| imports_image(first, parent))
    }
}

/// What a writer's share is a share of: everything that was taken, by those who took more than they gave
/// back (`growths`, net, in any unit) and, if the volume's used space changed by more than they account
/// for, by nobody known.
#[must_use]
pub fn share_base(growths: impl Iterator<Item = f64>, used_delta: f64) -> f64 {
    let (mut taken, mut net) = (0.0, 0.0);
    for growth in growths {
        taken += growth.max(0.0);
        net += growth;
    }
    taken + (used_delta - net).max(0.0)
}

/// Whether a process with this first argument and this parent unpacks a layer of an image. dockerd
/// and podman re-execute /proc/self/exe for that, so the comm of the process is `exe`
/// (moby/pkg/chrootarchive, containers/storage/pkg/chrootarchive).
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

/// An ancestor of a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Process id (tgid) in the host's pid namespace.
    pub pid: u32,
    /// Name of the process.
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
    fn a_target_is_unambiguous() {
        let target = |kind| group(kind, "1234", "/c").target();
        assert_eq!(target(GroupKind::Docker).as_deref(), Some("docker/1234"));
        assert_eq!(target(GroupKind::Cgroup).as_deref(), Some("/c"));
        assert_eq!(target(GroupKind::Monitor).as_deref(), Some("/c"));
        assert_eq!(target(GroupKind::Session), None);
        assert_eq!(target(GroupKind::Unit).as_deref(), Some("1234"));
    }
}
