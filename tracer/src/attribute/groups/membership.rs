//! The group that a process belongs to.

use tracer_common::{FileKey, ProcKey};
use tracer_model::snapshot::Group;

/// A process's group membership and ancestry.
#[derive(Debug, Clone, Default)]
pub struct Membership {
    /// The group it is rolled up to.
    pub group: Group,
    /// Its parent and grandparent, each with its name.
    pub ancestors: [(ProcKey, String); 2],
    /// Its root directory.
    pub root: FileKey,
    /// Inode number of its mount namespace; 0 if unknown.
    pub mnt_ns: u32,
    /// Whether the group is a container whose name is not known yet: it is shown by its short id.
    pub(super) is_unnamed: bool,
    /// Number of the last interval that used it.
    pub(super) used_in: u64,
}
