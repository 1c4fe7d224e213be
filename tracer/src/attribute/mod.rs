//! Resolves ids to names: processes, groups, users, paths.

pub(crate) mod container_tmpfs;
pub mod groups;
pub(crate) mod paths;
pub(crate) mod places;
pub(crate) mod process;
pub(crate) mod renames;
pub(crate) mod views;
