//! Processes: /proc/PID/stat, descriptors, pidfds and fork events.

pub mod descriptors;
pub mod fork_events;
pub mod pidfd;
pub mod stat;
pub mod status;
pub mod threads;
