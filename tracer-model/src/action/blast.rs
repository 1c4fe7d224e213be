//! Who else an action touches.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Role;
use super::plan::Facts;

/// Who else is touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blast {
    /// Processes beyond those that were named: parents and children of a named process. Those of a named
    /// cgroup, unit or container were named with it.
    pub processes: usize,
    /// Users whose processes are hit.
    pub users: Vec<String>,
    /// Groups whose processes are hit, as `kind name`.
    pub groups: Vec<String>,
    /// Mount points of volumes that the target has files open for writing on.
    pub volumes: Vec<String>,
    /// Databases that the target runs.
    pub databases: Vec<String>,
}

impl Blast {
    /// Of a target.
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
