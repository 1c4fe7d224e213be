//! Resolves ids to names: processes, groups, users, paths.

pub mod groups;
pub mod inside;
pub mod paths;
pub mod process;
pub mod renames;
pub mod views;
