//! Actions: what can be done about a writer, which processes may be affected, and what the action
//! would free.
//!
//! Pure: facts about processes go in, a [`Plan`](plan::Plan) with its refusals comes out. The code
//! that carries out a plan is in the `tracer` crate.

pub mod alternatives;
pub mod blast_radius;
pub mod duty_cycle;
pub mod effects;
pub mod event;
pub mod facts;
pub mod measurement;
pub mod pattern;
pub mod plan;
pub mod protect;
pub mod request;
pub mod restart;
pub mod subject_kind;

use serde::{Deserialize, Serialize};

use crate::snapshot::Group;

/// The kind of action, with the words of `filltop stop --how`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Freezes the target: growth stops, nothing is lost, nothing is freed.
    #[default]
    Freeze,
    /// Limits the target to a rate in bytes per second.
    Throttle,
    /// Makes writes that allocate on one volume fail; the target can still do everything else.
    Fence,
    /// Sends SIGTERM to every process of the target.
    Term,
    /// Sends SIGKILL to every process of the target.
    Kill,
    /// Stops the target's systemd unit, or its container with the runtime's own command.
    Unit,
    /// Frees the space of one deleted file that is held open.
    Truncate,
}

impl Action {
    /// All actions, from the least to the most destructive.
    pub const ALL: [Self; 7] = [
        Self::Freeze,
        Self::Throttle,
        Self::Fence,
        Self::Term,
        Self::Kill,
        Self::Unit,
        Self::Truncate,
    ];

    /// Returns the word used on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Throttle => "throttle",
            Self::Fence => "fence",
            Self::Term => "term",
            Self::Kill => "kill",
            Self::Unit => "unit",
            Self::Truncate => "truncate",
        }
    }

    /// Whether `resume` can undo the action; such an action also has a time limit.
    #[must_use]
    pub const fn reversible(self) -> bool {
        matches!(self, Self::Freeze | Self::Throttle | Self::Fence)
    }

    /// Whether the action terminates the processes.
    #[must_use]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Term | Self::Kill | Self::Unit)
    }
}

/// Who decided to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// An operator, who has read the plan.
    Asked,
    /// The guard, without an operator.
    Automatic,
}

/// How a process is related to the filltop that acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Unrelated.
    #[default]
    None,
    /// It is filltop: this process or another instance.
    Ourselves,
    /// An ancestor of this filltop, such as the shell or the ssh session.
    Ancestor,
}

/// Why a process is part of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The process itself was named.
    Target,
    /// The process forks the named one.
    Parent,
    /// The process descends from the target.
    Child,
    /// The process is in the target's cgroup.
    Member,
}

impl Role {
    /// Returns the word used in JSON and in plans.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Parent => "parent",
            Self::Child => "child",
            Self::Member => "member",
        }
    }
}

/// A process that an action would affect. Keyed by (pid, `start_ticks`).
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot; distinguishes a reused pid.
    pub start_ticks: u64,
    /// Process id of the parent.
    pub ppid: u32,
    /// Command name, at most 15 bytes.
    pub comm: String,
    /// Arguments separated by single spaces; `None` if unknown.
    pub cmdline: Option<String>,
    /// User name, or the uid if it has no name.
    pub user: String,
    /// The unit, container or other group of the process; `None` if unknown.
    pub group: Option<Group>,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
    /// Whether it is PID 1 of a nested pid namespace.
    pub namespace_init: bool,
    /// Whether SIGTERM has no effect: the process ignores it, or is the first process of its pid
    /// namespace and has no handler (pid_namespaces(7)).
    pub ignores_term: bool,
    /// Relation to the filltop that acts.
    pub relation: Relation,
    /// Databases recognised by the files that the process has open for writing.
    pub databases: Vec<String>,
    /// Mount point of the FUSE filesystem that it serves; `None` if it serves none, or that is not
    /// known.
    pub serves: Option<String>,
    /// Why it is part of the target.
    pub role: Role,
}
