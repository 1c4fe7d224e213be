//! The [`Snapshot`]: everything that a reader may see, immutable, with its own `now` in it.
//!
//! Screens, JSON, metrics, the recorder and alerts are pure functions of it. Its serde form *is*
//! the JSON that `filltop snapshot --json` prints; `"schema": 1` promises that existing fields keep
//! their meaning. Bytes are integers, times are RFC 3339 in UTC, durations are seconds as floats,
//! ratios are 0..1, and what is unknown is `null` (`None`), never 0.

mod blind_spot;
mod coverage;
mod health;
mod hook_method;
mod writers;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::forecast::Refill;
pub use blind_spot::{BlindSpot, BlindSpotKind};
pub use coverage::{Blind, BlindCause, CountedBy, Gap, Moved};
pub use health::{Backend, Hook, HookState, Loss, LossKind, WriteBackend};
pub use hook_method::HookMethod;
pub use writers::{
    Fsync, Group, GroupRow, OnBehalf, Parent, Pod, Resident, Spawner, WriteErrors, Writer,
    imports_image,
};

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;

/// What was measured over one window, ending at `taken_at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the host, as `uname -n` prints it there; in a container that of the node.
    pub host: String,
    /// End of the window.
    pub taken_at: Timestamp,
    /// Length of the window, seconds.
    pub interval_s: f64,
    /// How it was measured, and what was missed.
    pub backend: Backend,
    /// One per mounted filesystem, most endangered first.
    pub volumes: Vec<Volume>,
    /// One per process and volume, largest growth first; processes that ended in the window too.
    pub writers: Vec<Writer>,
    /// Roll-up by directory.
    pub dirs: Vec<Directory>,
    /// One per file that was touched in the window, most written first.
    pub paths: Vec<PathRow>,
    /// Deleted-but-open files, largest first.
    pub held: Vec<Held>,
    /// Who suffers.
    pub victims: Vec<Victim>,
    /// Writers rolled up, one per group and volume, largest growth first; those that are quiet or
    /// gone for up to an hour, too, after the others and by their peak.
    #[serde(default)]
    pub groups: Vec<GroupRow>,
    /// Who else lives on each volume: groups with files open for writing, most bytes first.
    #[serde(default)]
    pub residents: Vec<Resident>,
}

/// A mounted filesystem: bind mounts and subvolumes of it are the same volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// The mount point that shows most of it, shortest path first. `NAME:/dev/shm` where it is
    /// mounted in a container alone: NAME is the container's, the rest a path in there.
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
    /// Inodes in all; 0 where the filesystem has no fixed number.
    pub inodes_total: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
    /// Space of files without a name that are still open; `None` until /proc was scanned.
    pub held_bytes: Option<u64>,
    /// Bytes written in the window.
    pub written_bytes: u64,
    /// Space newly charged to files in the window; `None` where this backend cannot tell.
    pub allocated_bytes: Option<u64>,
    /// Space given back in the window; `None` where this backend cannot tell.
    pub freed_bytes: Option<u64>,
    /// Change of `used_bytes` over the window.
    pub used_delta_bytes: i64,
    /// Growth: `allocated − freed` per second where it is traced and accounts for most of what the volume
    /// lost, else `used_delta` per second.
    pub growth_bytes_per_s: f64,
    /// Share of `used_delta_bytes` that the traced growth accounts for; `None` when it hardly moved.
    pub explained: Option<f64>,
    /// Is the limit reached?
    pub full: bool,
    /// Which limit is nearest: `avail`, `inodes`, `quota`, `reserve`.
    pub limit: String,
    /// Likely time to full, seconds; `None` when it does not fill.
    pub eta_s: Option<f64>,
    /// Earliest time to full of the 80 % interval.
    pub eta_lo_s: Option<f64>,
    /// Latest time to full of the 80 % interval; `None` when it may never fill.
    pub eta_hi_s: Option<f64>,
    /// The last clean-up whose space was taken again.
    #[serde(default)]
    pub refill: Option<Refill>,
    /// Are all its mounts read-only? It cannot fill, then.
    #[serde(default)]
    pub read_only: bool,
    /// Where its writes are counted; `None` in what older versions recorded.
    #[serde(default)]
    pub counted_by: Option<CountedBy>,
    /// Why they are not counted at the filesystem's own functions, where that can be changed.
    #[serde(default)]
    pub gap: Option<Gap>,
    /// Too little is seen of what it takes, over the last seconds; `None` when enough is.
    #[serde(default)]
    pub blind: Option<Blind>,
    /// The container whose memory file system it is (`/dev/shm`, another tmpfs), or the pod that has
    /// claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Group>,
    /// Kubernetes' name of the persistent volume, `pvc-…` most of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume: Option<String>,
    /// What texts show in place of a mount point that says little: `web-a:/dev/shm`, or
    /// `shop/web-7d9:pvc-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Volume {
    /// What texts call it: its label, else its mount point.
    #[must_use]
    pub fn shown_as(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.mount_point)
    }
}

/// A directory with all below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    /// As seen from the host's root.
    pub path: String,
    /// Mount point of the volume.
    pub volume: String,
    /// Allocated per second (written per second where space is not traced).
    pub inflow_bytes_per_s: f64,
    /// Freed per second.
    pub outflow_bytes_per_s: f64,
    /// outflow / inflow; `None` without inflow.
    pub drain: Option<f64>,
    /// Files created in the window; `None` where this backend does not see them.
    pub files_created: Option<u64>,
    /// Files whose last name was removed in the window; `None` where this backend does not see it.
    pub files_removed: Option<u64>,
    /// Is it a hottest useful level: neither the root nor one of very many leaves?
    #[serde(default)]
    pub hot: bool,
}

/// One file. Keyed by (dev, ino, generation).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathRow {
    /// As seen from the host's root; raw bytes that are not UTF-8 are escaped.
    pub path: String,
    /// As seen by its writer, where that differs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path_in_container: Option<String>,
    /// Name of the container, pod or machine whose root file system holds it; `None` for files of
    /// the host, and of volumes and directories that are mounted into a container.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
    /// The container whose log it is, where its runtime's daemon or monitor writes it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_of: Option<Group>,
    /// Mount point of the volume.
    pub volume: String,
    /// Device as `major:minor` in the kernel's view (mountinfo's, not btrfs's st_dev).
    pub dev: String,
    /// Inode number.
    pub ino: u64,
    /// Bytes written in the window.
    pub written_bytes: u64,
    /// Space charged in the window; `None` where this backend cannot tell.
    pub allocated_bytes: Option<u64>,
    /// Space given back in the window; `None` where this backend cannot tell.
    pub freed_bytes: Option<u64>,
    /// Has it lost its last name?
    pub deleted: bool,
    /// Does it hold bytes that are counted by page (mmap)?
    pub approximate: bool,
    /// Who wrote it.
    pub writers: Vec<u32>,
}

/// A deleted-but-open file. Keyed by (dev, ino); one row per file, a shared one names its holders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The holder (the first one, where several share it).
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its file descriptor; `None` where only a mapping holds it.
    pub fd: Option<i32>,
    /// Last known path from the host's root, without ` (deleted)`: of a file of an overlay, that in its upper
    /// directory.
    pub path: String,
    /// The same as the holder sees it, where that is another path: in a container or a chroot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_in_container: Option<String>,
    /// What the holder is rolled up to; `None` if unknown.
    #[serde(default)]
    pub group: Option<Group>,
    /// Mount point of the volume.
    pub volume: String,
    /// Space it occupies: st_blocks × 512.
    pub bytes: u64,
    /// Did it grow in the window? `false` where there was no earlier look.
    pub growing: bool,
    /// `deleted` (had a name) or `anonymous` (O_TMPFILE, never had one).
    #[serde(default)]
    pub kind: String,
    /// All processes that hold it.
    #[serde(default)]
    pub holders: Vec<u32>,
    /// Its device as the kernel has it, major << 20 | minor.
    #[serde(default)]
    pub dev: Option<u32>,
    /// Its inode number; `None` where only an overlay's number is known.
    #[serde(default)]
    pub ino: Option<u64>,
}

/// A process that suffers from a volume that is full or slow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Victim {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Mount point of the volume.
    pub volume: String,
    /// Failed writes in the window.
    pub errors: WriteErrors,
    /// Time spent waiting in fsync and throttled writes in the window; `None` if not traced.
    pub waiting_ms: Option<f64>,
}
