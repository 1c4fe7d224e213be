//! Which filesystems are counted at their own functions, and how.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;

use crate::kernel_read::{KernelPtr, Read, magic};

/// How each filesystem that is counted below vfs_write is counted: `s_magic` → `offsets::counted`.
/// A map and not frozen data, because filesystems are mounted while the daemon runs.
#[map]
pub static COUNTED: HashMap<u32, u32> = HashMap::with_max_entries(16, 0);

/// How the inode's filesystem is counted at its own functions: `offsets::counted`; 0 if it is not.
#[inline(always)]
pub fn counted_below<R: Read>(inode: KernelPtr) -> u32 {
    // SAFETY: the value is copied immediately; only the daemon writes it.
    unsafe { COUNTED.get(magic::<R>(inode)) }.copied().unwrap_or(0)
}
