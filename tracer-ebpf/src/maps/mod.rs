//! Every map, its size, and the reason for the size. Memory is bounded by these sizes.

pub mod btrfs;
pub mod created;
pub mod errors;
pub mod events;
pub mod flags;
pub mod health;
pub mod in_flight;
pub mod inodes;
pub mod latency;
pub mod slots;
pub mod unlinked;
