//! Snapshots over time: merging several into one, and how long they are kept.

pub mod merge;
pub mod retention;
