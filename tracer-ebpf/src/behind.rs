//! The real file behind a file of an overlay: where its data is, and the space that it takes.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tracer_common::offsets::{OverlayInode, lower_kind};

use crate::kernel_read::{KernelPtr, ProbeRead, Read, load};
use crate::overlay::bounded;

/// How overlayfs keeps the real file on this kernel; one entry.
#[map]
pub static BEHIND: Array<OverlayInode> = Array::with_max_entries(1, 0);

/// Returns the real inode of an overlay's regular file: on the upper layer if it is there, else on
/// the topmost lower layer. A deleted file keeps its dentry on the upper layer as long as the
/// overlay's inode lives (`ovl_destroy_inode`). Null where this kernel's layout is not known.
#[inline(always)]
pub fn real_inode(inode: KernelPtr) -> KernelPtr {
    let nothing = KernelPtr::from_addr(0);
    // SAFETY: the map's values are plain integers, written only by the daemon.
    let Some(layout): Option<&OverlayInode> = BEHIND.get(0) else { return nothing };
    if layout.known == 0 {
        return nothing;
    }
    let mut dentry = ProbeRead::follow(inode, bounded(layout.upper));
    if dentry.is_null() {
        let lower = ProbeRead::follow(inode, bounded(layout.lower));
        match layout.lower_kind {
            lower_kind::INODE => return lower,
            lower_kind::DENTRY => dentry = lower,
            lower_kind::STACK => dentry = ProbeRead::follow(lower, bounded(layout.first)),
            _ => return nothing,
        }
    }
    KernelPtr(load!(ProbeRead, dentry, dentry_inode))
}
