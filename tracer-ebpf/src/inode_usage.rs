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
    let own = KernelPtr::from_addr(inode.addr().wrapping_sub(u64::from(bounded(layout.vfs_inode))));
    for part in &layout.parts {
        if part.size != 0 {
            let offset = bounded(part.offset);
            let value = if part.size == 4 {
                u64::from(ProbeRead::read::<u32>(own, offset))
            } else {
                ProbeRead::read::<u64>(own, offset)
            };
            let shift = if part.in_blocks == 0 {
                0
            } else {
                let bits: u8 = load!(R, inode, inode_blkbits);
                bits & 31
            };
            bytes += value << shift;
        }
    }
    Some(bytes)
}

/// Masks an offset from a map, to show the verifier that it is small: in fexit programs the inode
/// is a typed pointer, to which no unbounded value may be added.
#[inline(always)]
pub fn bounded(offset: u32) -> u32 {
    offset & 0xFFFF
}
