//! The [`Verdict`] on a volume: what runs out, who takes it and on whose behalf, who suffers, what
//! can be freed, and the next step.
//!
//! Its serde form is `volumes[].verdict` of `filltop snapshot --json`. Bytes and numbers of inodes
//! are per second where the name says so; shares are 0..1; unknown is `null`.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Group, HeldBy, LimitKind, Parent, Victim};

/// Implements the name of each variant, and reading it back: a word that this version does not know,
/// of a newer service or recording, is read as the given variant.
macro_rules! words {
    ($type:ident, or $fallback:ident: $($variant:ident = $word:literal,)+) => {
        impl $type {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that JSON uses.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = Cow::<str>::deserialize(deserializer)?;
                let known = Self::ALL.iter().copied().find(|one| one.name() == word);
                Ok(known.unwrap_or(Self::$fallback))
            }
        }
    };
}

/// The state of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It does not fill, as far as can be told.
    Calm,
    /// It fills.
    Filling,
    /// A limit is reached.
    Full,
    /// Too little of it can be seen.
    Unknown,
}

words! { State, or Unknown:
    Calm = "calm",
    Filling = "filling",
    Full = "full",
    Unknown = "unknown",
}

/// What a limit is counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Bytes of space.
    #[default]
    Bytes,
    /// Inodes.
    Inodes,
}

words! { Resource, or Bytes:
    Bytes = "bytes",
    Inodes = "inodes",
}

/// How a culprit writes for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BehalfKind {
    /// A container runtime or its monitor writes a container's log.
    ContainerLog,
    /// A log daemon writes what another program logs.
    Log,
    /// The server of a FUSE filesystem writes what programs write to that filesystem.
    Fuse,
    /// The kernel writes the backing file of a loop device.
    LoopDevice,
    /// The kernel's NFS server writes what its clients write.
    Nfs,
    /// A virtual machine writes its disk image.
    VirtualMachine,
    /// Somebody else, in a way that this version does not know.
    Other,
}

words! { BehalfKind, or Other:
    ContainerLog = "container_log",
    Log = "log",
    Fuse = "fuse",
    LoopDevice = "loop_device",
    Nfs = "nfs",
    VirtualMachine = "virtual_machine",
    Other = "other",
}

/// Why nothing is suggested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoSuggestion {
    /// The volume is not in danger.
    NotNeeded,
    /// No culprit is known: most of the change is not explained.
    Unexplained,
    /// The culprit has ended.
    Ended,
    /// The machine depends on the culprit, or it serves a mounted filesystem, logs or containers.
    Protected,
    /// The culprit runs a database, or shares its group with one.
    Database,
    /// It is a kernel thread, or a session without a target.
    NoTarget,
    /// It is on somebody else's behalf, and who that is, is not known.
    OnBehalfOfUnknown,
    /// The growth is spread over many small writers.
    Spread,
    /// Another reason, of a newer version.
    Other,
}

words! { NoSuggestion, or Other:
    NotNeeded = "not_needed",
    Unexplained = "unexplained",
    Ended = "ended",
    Protected = "protected",
    Database = "database",
    NoTarget = "no_target",
    OnBehalfOfUnknown = "on_behalf_of_unknown",
    Spread = "spread",
    Other = "other",
}

/// A suggested action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// A pid, or the name of a unit or container.
    pub target: String,
    /// The action, as a value of `filltop stop --how`.
    pub how: String,
    /// Space that the action frees immediately, bytes.
    pub frees_bytes: u64,
    /// The command to run.
    pub command: String,
}

/// How safe it is to free something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Safety {
    /// Nobody can need it any more.
    Safe,
    /// Look at it first.
    Check,
    /// Data is lost, or a program fails.
    Destructive,
}

words! { Safety, or Destructive:
    Safe = "safe",
    Check = "check",
    Destructive = "destructive",
}

/// The one behind a culprit that writes for others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnBehalfOf {
    /// In which way.
    pub kind: BehalfKind,
    /// Text for people: `docker noisy`, `gvfsd`, `cp (pid 41)`, `the filesystem at /mnt/img`.
    pub name: String,
    /// The container or unit; `None` if it is not in one, or unknown.
    pub group: Option<Group>,
    /// Its processes, if they are known; largest first.
    pub processes: Vec<Parent>,
    /// Mount point of the filesystem that it serves or backs.
    pub mount_point: Option<String>,
    /// Its share of what the culprit took, 0..1; `None` if unknown.
    pub share: Option<f64>,
}

/// One cause of the growth: a process, or a group if several of its processes took part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// TARGET for `filltop stop`; `None` if there is none or it has ended.
    pub target: Option<String>,
    /// Its processes, largest first, at most [`MAX_PIDS`].
    pub pids: Vec<u32>,
    /// Number of its processes.
    pub processes: u64,
    /// Name of the largest one.
    pub comm: String,
    /// When the largest one started.
    pub start_time: Timestamp,
    /// The group; `None` if unknown.
    pub group: Option<Group>,
    /// Whether the group as a whole is the culprit rather than one process.
    pub is_group: bool,
    /// The directory that it fills; `None` if unknown.
    pub directory: Option<String>,
    /// What it took, per second of the window: the mean.
    pub resource_per_s: f64,
    /// In what it is counted.
    pub resource: Resource,
    /// Its share of everything that was taken in the window, 0..1.
    pub share: f64,
    /// The one that it writes for, if it writes for somebody else.
    pub on_behalf_of: Option<OnBehalfOf>,
    /// Whether it has ended.
    pub ended: bool,
    /// Whether one of its processes is a kernel thread, or the machine or other programs depend on it.
    #[serde(default)]
    pub protected: bool,
    /// Whether one of its processes is a database.
    #[serde(default)]
    pub database: bool,
    /// If `group` is the container whose log it writes: its own group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_group: Option<Group>,
}

/// A process that may be behind growth that cannot be seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub comm: String,
    /// The group; `None` if unknown.
    pub group: Option<Group>,
    /// Space of the files that it has open or mapped for writing, bytes.
    pub bytes: u64,
    /// Number of these files.
    pub files: u64,
    /// Whether it had them while the volume filled up, and has ended or closed them since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// Something that can be freed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reclaim {
    /// What it is, for people.
    pub what: String,
    /// How much it frees, bytes; `None` if unknown.
    pub bytes: Option<u64>,
    /// How.
    pub how: String,
    /// The command to run; `None` if there is none.
    pub command: Option<String>,
    /// How safe that is.
    pub safety: Safety,
    /// For a deleted file: what holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
}

/// What is concluded for a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its state.
    pub state: State,
    /// The limit that runs out.
    pub limit: LimitKind,
    /// What that limit is counted in: the unit of all rates below.
    pub resource: Resource,
    /// What is left of it.
    pub left: u64,
    /// Length of the window that the rates and shares are of, seconds; 0 without one.
    pub window_s: f64,
    /// How fast it is taken, per second of the window.
    pub per_s: f64,
    /// Seconds to full at that pace; `None` if it does not grow.
    pub pace_s: Option<f64>,
    /// Likely time to full, seconds; `None` if it is not forecast to fill.
    pub eta_s: Option<f64>,
    /// Earliest time to full of the 80 % interval.
    pub eta_lo_s: Option<f64>,
    /// Latest time to full of the 80 % interval.
    pub eta_hi_s: Option<f64>,
    /// Why there is no estimate, or what limits it; `None` if nothing has to be said.
    pub reason: Option<String>,
    /// Who takes it, largest share first, at most [`MAX_CULPRITS`].
    pub culprits: Vec<Culprit>,
    /// The share of further processes, 0..1. `culprits[].share`, `others_share` and
    /// `unexplained_share` make 1.
    pub others_share: f64,
    /// The share that no process can be assigned to, 0..1; `None` if nothing was taken.
    pub unexplained_share: Option<f64>,
    /// Whether so much is unexplained that nobody may be blamed, although `culprits` lists what the
    /// visible processes took.
    pub mostly_unexplained: bool,
    /// Processes that may be behind the unexplained share, most bytes first, at most
    /// [`MAX_SUSPECTS`].
    pub suspects: Vec<Suspect>,
    /// Processes that suffer, apart from the culprits.
    pub victims: Vec<Victim>,
    /// What can be freed, safest first.
    pub reclaim: Vec<Reclaim>,
    /// The next step; `None` if there is no safe one.
    pub suggestion: Option<Suggestion>,
    /// Why there is none.
    pub no_suggestion: Option<NoSuggestion>,
    /// The same as a sentence.
    pub why_no_suggestion: Option<String>,
    /// The verdict in one sentence, without the name of the volume.
    pub summary: String,
}

/// Maximum number of culprits in a verdict.
pub const MAX_CULPRITS: usize = 8;
/// Maximum number of pids of one culprit.
pub const MAX_PIDS: usize = 16;
/// Maximum number of suspects in a verdict.
pub const MAX_SUSPECTS: usize = 5;
