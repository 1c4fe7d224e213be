//! The [`Snapshot`]: everything that a reader may see, immutable, with its own `now` in it.
//!
//! Screens, JSON, metrics, the recorder and alerts are pure functions of it. Its serde form *is*
//! the JSON that `filltop snapshot --json` prints; `"schema": 1` promises that existing fields keep
//! their meaning. Bytes are integers, times are RFC 3339 in UTC, durations are seconds as floats,
//! ratios are 0..1, and what is unknown is `null` (`None`), never 0.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::forecast::Refill;

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;

/// What was measured over one window, ending at `taken_at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the host, as `uname -n` prints it.
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

/// Where the byte counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteBackend {
    /// fentry/fexit trampolines.
    Fentry,
    /// kprobes and kretprobes.
    Kprobe,
    /// Static tracepoints alone.
    Tracepoint,
}

impl WriteBackend {
    /// The name that JSON, `--backend` and the screen use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// The tracer's own health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// The kind of probe that counts written bytes.
    pub write: WriteBackend,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// One per hook of the backend.
    pub hooks: Vec<Hook>,
    /// What this backend on this kernel cannot see, a sentence each.
    pub blind_spots: Vec<String>,
    /// Events that are known to be lost: records that found the ring full, probes that the kernel
    /// skipped (recursion, kretprobe instances).
    pub lost_events: u64,
    /// The same by cause; only those that happened.
    #[serde(default)]
    pub lost: Vec<Loss>,
    /// Written bytes that are in the totals but in no writer's or file's row.
    pub unattributed_bytes: u64,
    /// Own cost in the write path, from the kernel's run-time statistics; `None` if not measured.
    pub overhead_ns_per_write: Option<f64>,
    /// Processor time of the tracer's own process over the window, as a share of one CPU; `None`
    /// if not measured.
    #[serde(default)]
    pub own_cpu: Option<f64>,
}

/// Events that are known to be lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// What happened: a sentence's beginning, such as `the kernel skipped kprobe_vfs_write`.
    pub cause: String,
    /// How often, since the start.
    pub events: u64,
}

/// State of one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What is hooked, e.g. `ext4_file_write_iter`.
    pub name: String,
    /// With what, e.g. `fexit`, `kretprobe`, `tracepoint`.
    pub how: String,
    /// Does it work?
    #[serde(flatten)]
    pub state: HookState,
}

/// Does a hook work here?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HookState {
    /// Attached and counting.
    Ok,
    /// This kernel cannot have it; the backend does without.
    Unsupported {
        /// The kernel's own words.
        reason: String,
    },
    /// It should work here and does not.
    Broken {
        /// The kernel's own words.
        reason: String,
    },
    /// Not needed here, e.g. xfs is not loaded.
    NotApplicable {
        /// Why not.
        reason: String,
    },
}

/// A mounted filesystem: bind mounts and subvolumes of it are the same volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// The mount point that shows most of it, shortest path first.
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
    /// Growth: `allocated − freed` per second where it is traced, else `used_delta` per second.
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
}

/// What a writer is rolled up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Group {
    /// `unit`, `docker`, `podman`, `containerd`, `crio`, `pod` (of Kubernetes; its name is
    /// NAMESPACE/POD/CONTAINER), `lxc`, `machine`, `cgroup` or `session`.
    pub kind: String,
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
}

/// A process above a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Process id (tgid) in the host's pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
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
    /// Last known path, without ` (deleted)`.
    pub path: String,
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
    /// Its inode number.
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
