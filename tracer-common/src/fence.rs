//! Configuration of the fence's programs, set before they are loaded: which processes they block
//! from which volume.

use crate::pod;

/// Frozen global data of the fence's own eBPF object.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceConfig {
    /// Id (inode number) of the cgroup v2 that is fenced with everything below it; ignored if
    /// `level` is 0.
    pub cgroup: u64,
    /// Depth of the cgroup below the root; 0 if processes are fenced individually, through the map
    /// `FENCED`.
    pub level: u32,
    /// `super_block::s_dev` of the volume, major << 20 | minor.
    pub dev: u32,
    /// Pid of the process that owns the fence, in the initial pid namespace.
    pub owner: u32,
    /// Always 0.
    pub pad: u32,
}

impl FenceConfig {
    /// Fences no process on any volume: the value the eBPF object is compiled with.
    pub const NONE: Self = Self { cgroup: 0, level: 0, dev: 0, owner: 0, pad: 0 };
}

/// Nanoseconds per clock tick: /proc reports the start time of a process in ticks, rounded down.
pub const NS_PER_TICK: u64 = 10_000_000;

/// Maximum number of processes that are fenced individually at the same time.
pub const MAX_FENCED: u32 = 65_536;

const _: () = assert!(size_of::<FenceConfig>() == 24);

pod!(FenceConfig);
