//! What the fence's programs are told before they are loaded: whom they keep off which volume.

use crate::pod;

/// Frozen data of the fence's own object.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Id (inode number) of the cgroup v2 that is fenced with all below it; not looked at with
    /// `level` 0.
    pub cgroup: u64,
    /// Its depth below the root; 0 where processes are fenced one by one, by the map `FENCED`.
    pub level: u32,
    /// `super_block::s_dev` of the volume, major << 20 | minor.
    pub dev: u32,
    /// Process that answers for it, in the initial pid namespace.
    pub keeper: u32,
    /// Always 0.
    pub pad: u32,
}

impl Fence {
    /// Nobody, nowhere: what the kernel side is compiled with.
    pub const NOBODY: Self = Self { cgroup: 0, level: 0, dev: 0, keeper: 0, pad: 0 };
}

/// Nanoseconds per clock tick: /proc has the start of a process in ticks, rounded down.
pub const NS_PER_TICK: u64 = 10_000_000;

/// Processes that can be fenced one by one at a time.
pub const MAX_FENCED: u32 = 65_536;

const _: () = assert!(size_of::<Fence>() == 24);

pod!(Fence);
