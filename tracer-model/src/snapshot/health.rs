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
    /// Files whose bytes are in their writers' rows but that have none of their own, for there were too
    /// many of them in this window: those that moved least.
    #[serde(default)]
    pub folded_files: u64,
    /// Own cost in the write path, from the kernel's run-time statistics; `None` if not measured.
    pub overhead_ns_per_write: Option<f64>,
    /// Processor time of the tracer's own process over the window, as a share of one CPU; `None`
    /// if not measured.
    #[serde(default)]
    pub own_cpu: Option<f64>,
    /// Capabilities that the measuring process had when it attached, such as `CAP_SYS_ADMIN`; empty in
    /// what older versions recorded.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The kinds of `blind_spots`, in the same order.
    #[serde(default)]
    pub blind_spot_kinds: Vec<BlindSpotKind>,
    /// Types of the mounted filesystems whose space is sampled, not traced.
    #[serde(default)]
    pub sampled_fs_types: Vec<String>,
}

/// Events that are known to be lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// What happened: a sentence's beginning, such as `the kernel skipped kprobe_vfs_write`.
    pub cause: String,
    /// How often, since the start.
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
    /// What is hooked, e.g. `ext4_file_write_iter`.
    pub name: String,
    /// With what, e.g. `fexit`, `kretprobe`, `tracepoint`.
    pub how: HookMethod,
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
