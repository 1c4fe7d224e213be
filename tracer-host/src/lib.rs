//! Readers of the machine: /proc, mounts, cgroups, pidfds, clocks. Nothing here knows eBPF.

#![warn(unreachable_pub)]

pub mod btrfs;
pub mod cgroup;
pub mod clock;
pub mod file_facts;
pub mod host_root;
pub mod journald;
pub mod mounts;
pub mod noatime;
pub mod open_files;
pub mod path_device;
pub mod process;
pub mod qgroups;
pub mod timezone;
pub mod users;
