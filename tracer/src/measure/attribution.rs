//! What is known about processes and files beyond their counts.

use crate::attribute::container_tmpfs::ContainerTmpfs;
use crate::attribute::groups::Groups;
use crate::attribute::groups::history::GroupHistory;
use crate::attribute::paths::Names;
use crate::attribute::places::Places;
use crate::attribute::process::Processes;
use crate::attribute::views::Views;
use tracer_host::users::Users;

/// The stages that resolve ids to names.
#[derive(Default)]
pub(super) struct Attribution {
    /// Resolves files to paths.
    pub(super) names: Names,
    /// Finds the devices of paths in system calls.
    pub(super) places: Places,
    /// Describes processes.
    pub(super) processes: Processes,
    /// Resolves user ids to names.
    pub(super) users: Users,
    /// Assigns processes to groups.
    pub(super) groups: Groups,
    /// Groups over time.
    pub(super) group_history: GroupHistory,
    /// Translates paths to what a container sees.
    pub(super) views: Views,
    /// Finds memory filesystems that are mounted only inside a container.
    pub(super) container_tmpfs: ContainerTmpfs,
}
