//! Ids → names: processes, users, paths.

pub mod paths;
pub mod process;
pub mod users;
