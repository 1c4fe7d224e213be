//! The usage of an inode: the space that its filesystem charges to it. An [`InodeUsageLayout`]
//! describes how to read it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tracer_common::offsets::{InodeUsageLayout, usage_kind};

use crate::kernel_read::{KernelPtr, ProbeRead, Read, load};

/// Where each kind of filesystem keeps an inode's usage: keyed by `offsets::usage_kind`.
#[map]
pub static GAUGES: Array<InodeUsageLayout> = Array::with_max_entries(usage_kind::NONE, 0);

/// Returns the bytes that are charged to the inode; `None` where this kernel's layout is not known.
#[inline(always)]
pub fn usage<R: Read>(kind: u32, inode: KernelPtr) -> Option<u64> {
    // SAFETY: the map's values are plain integers, written only by the daemon.
    let layout: &InodeUsageLayout = GAUGES.get(kind)?;
    if layout.known == 0 {
        return None;
    }
    let mut bytes = 0;
    if layout.uses_i_blocks != 0 {
        let (blocks, rest): (u64, u16) =
            (load!(R, inode, inode_blocks), load!(R, inode, inode_bytes));
        bytes = (blocks << 9) + u64::from(rest);
    }
    if layout.parts[0].size != 0 {
        let bits: u8 = load!(R, inode, inode_blkbits);
        bytes += usage_in_parts(kind, inode.number(), bits.into());
    }
    Some(bytes)
}

/// The part of an inode's usage that its filesystem keeps in its own inode. `block_bits` is the base-2
/// logarithm of the block size.
#[unsafe(no_mangle)]
extern "C" fn usage_in_parts(kind: u32, inode: u64, block_bits: u32) -> u64 {
    let Some(layout) = GAUGES.get(kind) else { return 0 };
    let layout: &InodeUsageLayout = layout;
    let own = KernelPtr::from_addr(inode.wrapping_sub(u64::from(layout.vfs_inode)));
    let mut bytes = 0u64;
    for part in &layout.parts {
        if part.size != 0 {
            let value = if part.size == 4 {
                u64::from(ProbeRead::read::<u32>(own, part.offset))
            } else {
                ProbeRead::read::<u64>(own, part.offset)
            };
            let shift = if part.in_blocks == 0 { 0 } else { block_bits & 31 };
            bytes = bytes.wrapping_add(value << shift);
        }
    }
    bytes
}
