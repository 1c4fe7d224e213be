//! fallocate: what it took is the inode's gauge, and where there is none, what was asked for.

use tracer_common::{Counters, slot_flags};

use crate::account::{account, account_error};
use crate::charge;
use crate::event::ZERO;
use crate::filesystem::{OVERLAY_MAGIC, kind_of};
use crate::inode_usage::usage;
use crate::kernel_read::{
    KernelPtr, ProbeRead, Read, current_proc, file_key, is_regular, magic, offset,
};

/// fallocate returned.
#[inline(always)]
pub fn on_fallocate(inode: KernelPtr, dentry: KernelPtr, result: i64) {
    if result < 0 {
        if is_regular::<ProbeRead>(inode) && magic::<ProbeRead>(inode) != OVERLAY_MAGIC {
            account_error(current_proc(), file_key::<ProbeRead>(inode), result);
        }
    }
    // One that failed may have gone half the way.
    charge::on_space_changed(inode, dentry);
}

/// What vfs_fallocate's arguments ask for: bytes, if it is only to allocate them.
#[inline(always)]
pub fn requested_bytes(mode: u64, length: u64) -> u64 {
    const KEEP_SIZE: u32 = 1;
    if mode as u32 & !KEEP_SIZE == 0 { length } else { 0 }
}

/// The same, of a file, and of so many bytes.
#[inline(always)]
pub fn on_file_fallocate(file: KernelPtr, asked: u64, result: i64) {
    let inode = ProbeRead::follow(file, offset!(file_inode));
    let dentry = ProbeRead::follow(file, offset!(file_dentry));
    if !count_if_unknown(inode, dentry, asked, result) {
        on_fallocate(inode, dentry, result);
    }
}

/// Where nothing tells what an inode has, what was asked for is what it got at most: the daemon looks
/// closer. False where it is told.
#[inline(always)]
pub fn count_if_unknown(inode: KernelPtr, dentry: KernelPtr, asked: u64, result: i64) -> bool {
    result == 0 && asked != 0 && count_requested(inode.addr(), dentry.addr(), asked)
}

#[inline(never)]
fn count_requested(inode: u64, dentry: u64, allocated: u64) -> bool {
    let inode = KernelPtr::from_addr(inode);
    let magic = magic::<ProbeRead>(inode);
    if !is_regular::<ProbeRead>(inode)
        || magic == OVERLAY_MAGIC
        || usage::<ProbeRead>(kind_of(magic), inode).is_some()
    {
        return false;
    }
    let delta = Counters { allocated, flags: slot_flags::APPROXIMATE, ..ZERO };
    account(
        current_proc(),
        file_key::<ProbeRead>(inode),
        KernelPtr::from_addr(dentry),
        inode,
        delta,
    );
    true
}
