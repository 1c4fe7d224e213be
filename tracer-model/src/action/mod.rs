//! Actions: what can be done about a writer, whom it may hit, and what it would bring.
//!
//! Pure: facts about processes go in, a [`Plan`](plan::Plan) with its refusals comes out. The hands
//! that carry it out belong to the daemon.

pub mod blast;
pub mod duty_cycle;
pub mod effects;
pub mod instead;
pub mod measured;
pub mod pattern;
pub mod plan;
pub mod protect;
pub mod request;
pub mod restart;
pub mod subject_kind;

use serde::{Deserialize, Serialize};

use crate::snapshot::Group;

/// A step, in the words of `filltop stop --how`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Suspend it: growth ends, nothing is lost, nothing is freed.
    #[default]
    Freeze,
    /// Hold it to a rate of bytes per second.
    Throttle,
    /// Writes that allocate on one volume fail, everything else goes on.
    Fence,
    /// SIGTERM to every process of it.
    Term,
    /// SIGKILL to every process of it.
    Kill,
    /// Stop its systemd unit, or its container by the runtime's own command.
    Unit,
    /// Give back the space of one deleted file that is held open.
    Truncate,
}

impl Action {
    /// From what loses nothing to what loses most.
    pub const ALL: [Self; 7] = [
        Self::Freeze,
        Self::Throttle,
        Self::Fence,
        Self::Term,
        Self::Kill,
        Self::Unit,
        Self::Truncate,
    ];

    /// As the command line and JSON have it.
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

    /// Can it be undone by `resume`, and does it end by itself?
    #[must_use]
    pub const fn reversible(self) -> bool {
        matches!(self, Self::Freeze | Self::Throttle | Self::Fence)
    }

    /// Does it end the processes?
    #[must_use]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Term | Self::Kill | Self::Unit)
    }
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// A person, who has read the plan.
    Asked,
    /// The guard.
    Automatic,
}

/// How a process is related to whoever acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Kin {
    /// Not at all.
    #[default]
    None,
    /// It is filltop: this one, or another.
    Ourselves,
    /// This filltop descends from it: the shell, the ssh session.
    Ancestor,
}

/// How a process comes to be a part of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It was named.
    Target,
    /// It forks what was named.
    Parent,
    /// It descends from the target.
    Child,
    /// It lives in the target's cgroup.
    Member,
}

/// A process that an action would hit. Keyed by (pid, `start_ticks`).
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start, clock ticks since boot: tells a reused pid from the one before.
    pub start_ticks: u64,
    /// Parent.
    pub ppid: u32,
    /// Name, at most 15 bytes.
    pub comm: String,
    /// Arguments with single spaces between them; `None` if unknown.
    pub cmdline: Option<String>,
    /// Name of its user, else the number.
    pub user: String,
    /// What it is rolled up to; `None` if unknown.
    pub group: Option<Group>,
    /// Is it the kernel's own?
    pub kernel_thread: bool,
    /// Is it PID 1 of a pid namespace of its own?
    pub namespace_init: bool,
    /// Would it go on after SIGTERM? It ignores it, or is the first process of its pid namespace and has
    /// no handler (pid_namespaces(7)).
    pub ignores_term: bool,
    /// Its relation to us.
    pub kin: Kin,
    /// Databases recognised by the files that it holds open for writing.
    pub databases: Vec<String>,
    /// Why it is a part of the target.
    pub role: Role,
}

/// Those that would go on after SIGTERM.
fn deaf(processes: &[Process]) -> Vec<u32> {
    processes.iter().filter(|process| process.ignores_term).map(|process| process.pid).collect()
}
