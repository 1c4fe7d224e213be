//! From a file of an overlay to the file that is written to, on the upper layer.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tracer_common::offsets::counted;

use crate::counted::counted_below;
use crate::kernel_read::{KernelPtr, ProbeRead, Read, is_regular, load, offset};

/// Distance in bytes from an overlay's `struct inode` to the pointer to its upper dentry (`struct
/// ovl_inode`); 0 if overlays are not followed. Not frozen, because the module may be loaded later.
#[map]
pub static UPPER_AT: Array<u32> = Array::with_max_entries(1, 0);

/// Returns whether writes to overlays are counted for their upper files.
#[inline(always)]
pub fn are_followed() -> bool {
    UPPER_AT.get(0).copied().unwrap_or(0) != 0
}

/// Returns the upper dentry of an overlay's inode; null if there is none, or if it does not name a
/// regular file.
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

/// Returns the inode that operations on an open file apply to, and a dentry that names it.
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

/// Returns whether an overlay opened this file on its upper layer. A write to it is then part of a
/// write to the overlay's own file.
#[inline(always)]
pub fn is_behind<R: Read>(file: KernelPtr) -> bool {
    // Since 6.5. Before that, such a file has the overlay's dentry.
    const FMODE_BACKING: u32 = 0x0200_0000;
    let mode: u32 = load!(R, file, file_mode);
    let named = KernelPtr(load!(R, KernelPtr(load!(R, file, file_dentry)), dentry_inode));
    let inode = KernelPtr(load!(R, file, file_inode));
    mode & FMODE_BACKING != 0 || named.addr() != inode.addr()
}

/// Masks an offset from a map, to show the verifier that it is small: in fexit programs the inode
/// is a typed pointer, to which no unbounded value may be added.
#[inline(always)]
pub fn bounded(offset: u32) -> u32 {
    offset & 0xFFFF
}
