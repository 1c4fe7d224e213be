//! The blast radius of an action: what it affects in addition to the named target.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Role;
use super::facts::Facts;

/// What an action affects in addition to the named target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Number of processes that were not named: parents and children of a named process. The
    /// processes of a named cgroup, unit or container count as named.
    pub processes: usize,
    /// Users whose processes are affected.
    pub users: Vec<String>,
    /// Groups whose processes are affected, as `kind name`.
    pub groups: Vec<String>,
    /// Mount points of the volumes on which the target has files open for writing.
    pub volumes: Vec<String>,
    /// Databases that the target runs.
    pub databases: Vec<String>,
}

impl BlastRadius {
    /// Returns the blast radius of an action on a target.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let sorted = |items: BTreeSet<String>| items.into_iter().collect();
        let processes = &facts.processes;
        Self {
            processes: processes
                .iter()
                .filter(|process| matches!(process.role, Role::Parent | Role::Child))
                .count(),
            users: sorted(processes.iter().map(|process| process.user.clone()).collect()),
            groups: sorted(
                processes
                    .iter()
                    .filter_map(|process| process.group.as_ref())
                    .map(|group| format!("{} {}", group.kind, group.name))
                    .collect(),
            ),
            volumes: sorted(facts.files.iter().map(|file| file.volume.clone()).collect()),
            databases: sorted(
                processes.iter().flat_map(|process| process.databases.clone()).collect(),
            ),
        }
    }
}
