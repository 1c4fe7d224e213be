//! Space of inodes.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use tracer_common::{FileKey, InodeSpace};

/// The space of inodes as last accounted. An inode that LRU evicted is added again at its next
/// write, whose space can then be wrong by the length of that write.
#[map]
pub static INODES: LruHashMap<FileKey, InodeSpace> = LruHashMap::with_max_entries(65_536, 0);

/// Files that received extents which another file has, too (reflink), until the daemon drains them.
/// Space that their filesystem charges to them was not taken from the volume.
#[map]
pub static SHARED: LruHashMap<FileKey, u32> = LruHashMap::with_max_entries(1_024, 0);
