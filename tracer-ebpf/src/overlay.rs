//! From a file of an overlay to the one that is written to: that of its upper layer.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tracer_common::offsets::counted;

use crate::counted::counted_below;
use crate::inode_usage::bounded;
use crate::kernel_read::{KernelPtr, ProbeRead, Read, is_regular, load, offset};

/// How many bytes behind an overlay's `struct inode` the pointer to its upper dentry is
/// (`struct ovl_inode`); 0: overlays are not followed. Not frozen, because the module may be loaded later.
#[map]
pub static UPPER_AT: Array<u32> = Array::with_max_entries(1, 0);

/// Are writes to overlays counted for their upper files?
#[inline(always)]
pub fn are_followed() -> bool {
    UPPER_AT.get(0).copied().unwrap_or(0) != 0
}

/// The upper dentry of an overlay's inode; null where there is none, or it names no regular file.
#[inline(always)]
pub fn upper_dentry(inode: KernelPtr) -> KernelPtr {
    let at = bounded(UPPER_AT.get(0).copied().unwrap_or(0));
    let place = KernelPtr::from_addr(inode.addr().wrapping_add(u64::from(at)));
    let dentry = ProbeRead::follow(place, 0);
    if at == 0 || !is_regular::<ProbeRead>(ProbeRead::follow(dentry, offset!(dentry_inode))) {
        return KernelPtr::from_addr(0);
    }
    dentry
}

/// The inode that what is done to an open file is done to, and a dentry that names it.
#[inline(always)]
pub fn target(file: KernelPtr) -> (KernelPtr, KernelPtr) {
    let inode = ProbeRead::follow(file, offset!(file_inode));
    if counted_below::<ProbeRead>(inode) == counted::UPPER {
        let dentry = upper_dentry(inode);
        if !dentry.is_null() {
            return (ProbeRead::follow(dentry, offset!(dentry_inode)), dentry);
        }
    }
    (inode, ProbeRead::follow(file, offset!(file_dentry)))
}

/// Is it a file that an overlay opened on its upper layer, whose write is part of one to the overlay's own?
#[inline(always)]
pub fn is_behind<R: Read>(file: KernelPtr) -> bool {
    // Since 6.5. Before, such a file has the overlay's dentry.
    const FMODE_BACKING: u32 = 0x0200_0000;
    let mode: u32 = load!(R, file, file_mode);
    let named = KernelPtr(load!(R, KernelPtr(load!(R, file, file_dentry)), dentry_inode));
    let inode = KernelPtr(load!(R, file, file_inode));
    mode & FMODE_BACKING != 0 || named.addr() != inode.addr()
}
