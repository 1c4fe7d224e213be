//! The [`Snapshot`]: everything that was measured in one interval, immutable, with its own time.
//!
//! The screen, JSON, metrics, the recorder and alerts are pure functions of it. Its serde form *is*
//! the JSON that `filltop snapshot --json` prints; `"schema": 1` promises that existing fields keep
//! their meaning. Bytes are integers, times are RFC 3339 in UTC, durations are seconds as floats,
//! ratios are 0..1, and what is unknown is `null` (`None`), never 0.

mod blind_spot;
mod btrfs_space;
mod coverage;
mod group_kind;
mod health;
mod held_by;
mod held_kind;
mod hook_method;
mod mount_lookup;
mod verdict;
mod writers;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::forecast::Reason;
pub use crate::forecast::{LimitKind, Refill};
pub use blind_spot::{BlindSpot, BlindSpotKind};
pub use btrfs_space::{BtrfsSpace, QuotaUse};
pub use coverage::{Blind, BlindCause, CountedBy, Gap, SpaceChange, space_is_late};
pub use group_kind::{GroupKind, UnknownKind};
pub use health::{Backend, Hook, HookState, Loss, LossKind, WriteBackend};
pub use held_by::HeldBy;
pub use held_kind::HeldKind;
pub use hook_method::HookMethod;
pub use mount_lookup::{is_below, volume_of};
pub use verdict::{
    BehalfKind, Culprit, MAX_CULPRITS, MAX_PIDS, MAX_SUSPECTS, NoSuggestion, OnBehalfOf, Reclaim,
    Resource, Safety, State, Suggestion, Suspect, Verdict,
};
pub use writers::{
    Fsync, Group, GroupRow, LogSender, OnBehalf, Parent, Pod, Resident, Spawner, WriteErrors,
    Writer, imports_image, share_base,
};

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;

/// What was measured over one interval, ending at `taken_at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the JSON form, [`SCHEMA`].
    pub schema: u32,
    /// Name of the host, as `uname -n` prints it there; in a container, that of the node.
    pub host: String,
    /// End of the interval.
    pub taken_at: Timestamp,
    /// Length of the interval, seconds.
    pub interval_s: f64,
    /// How it was measured, and what was missed.
    pub backend: Backend,
    /// One per mounted filesystem, most endangered first.
    pub volumes: Vec<Volume>,
    /// One per process and volume, largest growth first, including processes that ended in the
    /// interval.
    pub writers: Vec<Writer>,
    /// Processes that had a row in an earlier interval and none in this one, and that ended in it.
    #[serde(default)]
    pub ended: Vec<Ended>,
    /// Traffic rolled up by directory, hottest first.
    pub dirs: Vec<Directory>,
    /// One per file that changed in the interval, largest growth first.
    pub paths: Vec<PathRow>,
    /// Deleted-but-open files, largest first.
    pub held: Vec<Held>,
    /// Number of processes whose open files could not be read, so that `held` may lack theirs.
    #[serde(default)]
    pub uninspected_processes: u64,
    /// Processes whose writes fail or wait long.
    pub victims: Vec<Victim>,
    /// Writers rolled up, one per group and volume, largest growth first. Groups that have been
    /// idle or gone for up to an hour follow, highest peak first.
    #[serde(default)]
    pub groups: Vec<GroupRow>,
    /// Groups with files open for writing on each volume, most bytes first.
    #[serde(default)]
    pub residents: Vec<Resident>,
}

impl Snapshot {
    /// Removes the rows of all volumes except those with these mount points.
    pub fn retain_volumes(&mut self, mount_points: &[String]) {
        let keep = |volume: &String| mount_points.contains(volume);
        self.volumes.retain(|row| keep(&row.mount_point));
        self.writers.retain(|row| keep(&row.volume));
        self.dirs.retain(|row| keep(&row.volume));
        self.paths.retain(|row| keep(&row.volume));
        self.held.retain(|row| keep(&row.volume));
        self.victims.retain(|row| keep(&row.volume));
        self.groups.retain(|row| keep(&row.volume));
        self.residents.retain(|row| keep(&row.volume));
    }
}

/// A process that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Process id (tgid); it may be another process's by now.
    pub pid: u32,
    /// When it started, as in its rows.
    pub start_time: Timestamp,
}

/// A mounted filesystem: bind mounts and subvolumes of it are the same volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// The mount point that shows most of it; of several, the shortest. `NAME:/dev/shm` if it is
    /// mounted only inside a container: the container's name and a path inside it.
    pub mount_point: String,
    /// All mount points on the host.
    pub mount_points: Vec<String>,
    /// Source, e.g. `/dev/vda1`.
    pub device: String,
    /// `ext4`, `xfs`, …
    pub fs_type: String,
    /// statvfs: blocks.
    pub total_bytes: u64,
    /// statvfs: blocks − bfree.
    pub used_bytes: u64,
    /// statvfs: bavail, what a non-root writer can still take.
    pub avail_bytes: u64,
    /// statvfs: bfree − bavail, what only root can still take.
    pub reserved_bytes: u64,
    /// Total number of inodes; 0 if the filesystem has no fixed number.
    pub inodes_total: u64,
    /// Number of free inodes.
    pub inodes_free: u64,
    /// Change of the number of inodes in use over the interval.
    #[serde(default)]
    pub inodes_delta: i64,
    /// How the space of a btrfs is divided; `None` for other filesystems, or if it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub btrfs: Option<BtrfsSpace>,
    /// The quotas that can be read and are nearest to their limits, fullest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaUse>,
    /// Space of deleted files that are still open; `None` until the open files have been read.
    pub held_bytes: Option<u64>,
    /// The part of `held_bytes` whose holder is unknown: files that the kernel has not evicted although
    /// no process that could be inspected holds them. `None` if the kernel side does not know it.
    #[serde(default)]
    pub held_unknown_bytes: Option<u64>,
    /// Bytes written in the interval.
    pub written_bytes: u64,
    /// Space newly charged to files in the interval, bytes; `None` if this backend does not know
    /// it.
    pub allocated_bytes: Option<u64>,
    /// Space freed in the interval, bytes; `None` if this backend does not know it.
    pub freed_bytes: Option<u64>,
    /// Change of `used_bytes` over the interval.
    pub used_delta_bytes: i64,
    /// Growth: `allocated − freed` per second if that is traced and accounts for nearly all of the
    /// volume's change, else `used_delta` per second.
    pub growth_bytes_per_s: f64,
    /// Share of `used_delta_bytes` that the traced growth accounts for; `None` if it hardly
    /// changed.
    pub explained: Option<f64>,
    /// Whether the limit is reached.
    pub full: bool,
    /// Whether the limit was reached at some time in the interval, however briefly.
    #[serde(default)]
    pub was_full: bool,
    /// The nearest limit: `avail`, `inodes`, `quota`, …
    pub limit: LimitKind,
    /// Likely time to full, seconds; `None` if it is not forecast to fill.
    pub eta_s: Option<f64>,
    /// Earliest time to full of the 80 % interval.
    pub eta_lo_s: Option<f64>,
    /// Latest time to full of the 80 % interval; `None` if it is not forecast to fill.
    pub eta_hi_s: Option<f64>,
    /// Time to full if the present pace goes on, believed or not, seconds; `None` if it is full or does
    /// not grow now. No alert uses it alone.
    #[serde(default)]
    pub pace_s: Option<f64>,
    /// Earliest time to full at the present pace, of an 80 % interval.
    #[serde(default)]
    pub pace_lo_s: Option<f64>,
    /// Latest time to full at the present pace.
    #[serde(default)]
    pub pace_hi_s: Option<f64>,
    /// The last clean-up whose space has since been used up again.
    #[serde(default)]
    pub refill: Option<Refill>,
    /// Whether all its mounts are read-only, so that it cannot fill.
    #[serde(default)]
    pub read_only: bool,
    /// At which level its writes are counted; `None` in recordings of older versions.
    #[serde(default)]
    pub counted_by: Option<CountedBy>,
    /// Why they are not counted at the filesystem's own functions, if that can be changed.
    #[serde(default)]
    pub gap: Option<Gap>,
    /// Set if too little of its growth over the last seconds is traced.
    #[serde(default)]
    pub blind: Option<Blind>,
    /// The container whose memory filesystem it is (`/dev/shm`, another tmpfs), or the pod that has
    /// claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Group>,
    /// Name of the persistent volume in Kubernetes, usually `pvc-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume: Option<String>,
    /// Shown in texts instead of an uninformative mount point: `web-a:/dev/shm`, or
    /// `shop/web-7d9:pvc-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// For a FUSE filesystem: the process that serves it, if it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<Parent>,
    /// For a filesystem on a loop device: path of the file that backs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// Processes with files open or mapped for writing, most bytes first; looked up only while much of
    /// the growth cannot be attributed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<Suspect>,
    /// Why there is no `eta_s`; `None` if there is one, or in recordings of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_eta: Option<Reason>,
    /// Whether all its mount points are hidden below later mounts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// What is concluded for it; `None` in recordings of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

impl Volume {
    /// The name to show in texts: its label, else its mount point.
    #[must_use]
    pub fn shown_as(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.mount_point)
    }
}

/// A directory, including everything below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    /// As seen from the host's root.
    pub path: String,
    /// Mount point of the volume.
    pub volume: String,
    /// Bytes allocated per second (written per second if space is not traced).
    pub inflow_bytes_per_s: f64,
    /// Bytes freed per second.
    pub outflow_bytes_per_s: f64,
    /// outflow / inflow; `None` without inflow.
    pub drain: Option<f64>,
    /// Inodes created in the interval: files, directories, links; `None` if this backend does not trace
    /// that.
    pub files_created: Option<u64>,
    /// Inodes whose last name was removed in the interval; `None` if this backend does not trace that.
    pub files_removed: Option<u64>,
    /// Whether it is one of the hottest directories at a useful level: neither the root nor one of
    /// very many leaves.
    #[serde(default)]
    pub hot: bool,
}

/// One file. Keyed by (dev, ino, generation).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathRow {
    /// As seen from the host's root; raw bytes that are not UTF-8 are escaped.
    pub path: String,
    /// As seen by its writer, if that differs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path_in_container: Option<String>,
    /// Name of the container, pod or machine whose root filesystem holds it; `None` for files of
    /// the host, and for volumes and directories that are mounted into a container.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
    /// The container whose log it is, if the runtime's daemon or monitor writes it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_of: Option<Group>,
    /// Mount point of the volume.
    pub volume: String,
    /// Device as `major:minor` in the kernel's view (mountinfo's, not btrfs's st_dev).
    pub dev: String,
    /// Inode number.
    pub ino: u64,
    /// Size of the file, bytes (st_size); `None` if it is gone or was not looked up.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// Space that the file takes, bytes (st_blocks); less than its size if it is sparse, more if it has
    /// space beyond its end. `None` if it is gone or was not looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_bytes: Option<u64>,
    /// Growth over the interval, bytes per second; the written rate if space is not traced.
    #[serde(default)]
    pub growth_bytes_per_s: f64,
    /// Whether the path is hidden below a later mount.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// The mount point of the mount that hides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_by: Option<String>,
    /// Bytes written in the interval.
    pub written_bytes: u64,
    /// Space charged in the interval, bytes; `None` if this backend does not know it.
    pub allocated_bytes: Option<u64>,
    /// Space freed in the interval, bytes; `None` if this backend does not know it.
    pub freed_bytes: Option<u64>,
    /// Whether it no longer has a name.
    pub deleted: bool,
    /// Whether some of its bytes are counted by page (mmap).
    pub approximate: bool,
    /// Pids of the processes that wrote to it.
    pub writers: Vec<u32>,
}

impl PathRow {
    /// Allocated − freed bytes in the interval; the written bytes if space is not traced.
    #[must_use]
    pub fn growth_of(&self) -> f64 {
        match (self.allocated_bytes, self.freed_bytes) {
            (Some(allocated), Some(freed)) => allocated as f64 - freed as f64,
            _ => self.written_bytes as f64,
        }
    }

    /// Orders by growth, then by bytes written, largest first, then by path: the default order.
    #[must_use]
    pub fn by_growth(a: &Self, b: &Self) -> std::cmp::Ordering {
        b.growth_bytes_per_s
            .total_cmp(&a.growth_bytes_per_s)
            .then_with(|| b.written_bytes.cmp(&a.written_bytes))
            .then_with(|| a.path.cmp(&b.path))
    }
}

/// A deleted-but-open file. Keyed by (dev, ino): one row per file, with all processes that hold it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Pid of the process that holds it (the first one of several).
    pub pid: u32,
    /// Name of that process.
    pub comm: String,
    /// Its file descriptor; `None` if only a mapping holds the file.
    pub fd: Option<i32>,
    /// Last known path from the host's root, without ` (deleted)`. For a file on an overlay, its
    /// path in the upper directory.
    pub path: String,
    /// The path as the process sees it, if that differs: in a container or a chroot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_in_container: Option<String>,
    /// The group of the process; `None` if unknown.
    #[serde(default)]
    pub group: Option<Group>,
    /// Mount point of the volume.
    pub volume: String,
    /// Space that it uses: st_blocks × 512.
    pub bytes: u64,
    /// Whether it grew since the previous scan; `false` without one.
    pub growing: bool,
    /// Whether it ever had a name.
    #[serde(default)]
    pub kind: HeldKind,
    /// What holds it.
    #[serde(default)]
    pub held_by: HeldBy,
    /// Pids of all processes that hold it.
    #[serde(default)]
    pub holders: Vec<u32>,
    /// Device number in the kernel's encoding, major << 20 | minor.
    #[serde(default)]
    pub dev: Option<u32>,
    /// Inode number; `None` if only the overlay's number is known.
    #[serde(default)]
    pub ino: Option<u64>,
}

/// A process that is affected by a full or slow volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Victim {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// Name of the process.
    pub comm: String,
    /// Mount point of the volume.
    pub volume: String,
    /// Failed writes in the interval.
    pub errors: WriteErrors,
    /// Time spent waiting in fsync and throttled writes in the interval, milliseconds; `None` if
    /// not traced.
    pub waiting_ms: Option<f64>,
}
