//! Readers of the machine: /proc, mounts, cgroups, pidfds, clocks. Nothing here knows eBPF.

#![warn(unreachable_pub)]

pub mod cgroup;
pub mod clock;
pub mod host_root;
pub mod journald;
pub mod mounts;
pub mod noatime;
pub mod open_files;
pub mod process;
pub mod timezone;
pub mod users;
