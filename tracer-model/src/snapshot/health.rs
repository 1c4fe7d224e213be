//! The tracer's own health.

use serde::{Deserialize, Serialize};

use super::blind_spot::BlindSpotKind;
use super::hook_method::HookMethod;

/// Where the byte counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteBackend {
    /// fentry/fexit trampolines.
    Fentry,
    /// kprobes and kretprobes.
    Kprobe,
    /// Static tracepoints only.
    Tracepoint,
}

impl WriteBackend {
    /// The name used by JSON, `--backend` and the screen.
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
    /// What this backend cannot see on this kernel, one sentence each.
    pub blind_spots: Vec<String>,
    /// Number of events known to have been lost: records dropped because the ring buffer was full,
    /// probes that the kernel skipped (recursion, kretprobe instances).
    pub lost_events: u64,
    /// Lost events by cause; only causes that occurred.
    #[serde(default)]
    pub lost: Vec<Loss>,
    /// Written bytes of the interval that are in the totals but in no writer's or file's row.
    pub unattributed_bytes: u64,
    /// Number of files without a row of their own because there were too many in this interval;
    /// those with the fewest bytes. Their bytes are in their writers' rows.
    #[serde(default)]
    pub folded_files: u64,
    /// Own cost in the write path, from the kernel's run-time statistics; `None` if not measured.
    pub overhead_ns_per_write: Option<f64>,
    /// CPU time of filltop's own process over the interval, as a share of one CPU; `None` if not
    /// measured.
    #[serde(default)]
    pub own_cpu: Option<f64>,
    /// Capabilities that the measuring process had when it attached, such as `CAP_SYS_ADMIN`; empty in
    /// recordings of older versions.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The kinds of `blind_spots`, in the same order.
    #[serde(default)]
    pub blind_spot_kinds: Vec<BlindSpotKind>,
    /// Types of the mounted filesystems whose space is sampled, not traced.
    #[serde(default)]
    pub sampled_fs_types: Vec<String>,
}

/// Events known to have been lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// What happened, as the start of a sentence, such as `the kernel skipped kprobe_vfs_write`.
    pub cause: String,
    /// Number of events since the start.
    pub events: u64,
    /// The kind of cause; stable across versions.
    #[serde(default)]
    pub kind: LossKind,
}

/// The kinds of causes for lost events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// The kernel skipped a program because it was already running on that CPU.
    SkippedCalls,
    /// A return probe had no free instance.
    ReturnProbes,
    /// The ring buffer was full.
    RingFull,
    /// A map of the eBPF side was full.
    MapFull,
    /// A record was malformed.
    Malformed,
    /// Not recorded, or a kind of a newer version of filltop.
    #[default]
    #[serde(other)]
    Unknown,
}

/// State of one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The hooked function or tracepoint, e.g. `ext4_file_write_iter`.
    pub name: String,
    /// The kind of probe, e.g. `fexit`, `kretprobe`, `tracepoint`.
    pub how: HookMethod,
    /// Whether it works.
    #[serde(flatten)]
    pub state: HookState,
}

/// Whether a hook works on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HookState {
    /// Attached and counting.
    Ok,
    /// This kernel does not support it; the backend works without it.
    Unsupported {
        /// The kernel's error.
        reason: String,
    },
    /// It should work here but does not.
    Broken {
        /// The kernel's error.
        reason: String,
    },
    /// Not needed here, e.g. xfs is not loaded.
    NotApplicable {
        /// Why it is not needed.
        reason: String,
    },
}
