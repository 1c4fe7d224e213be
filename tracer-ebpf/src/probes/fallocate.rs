//! fallocate: the space that it took is known from the inode's usage. Where the usage cannot be
//! read, the requested length is counted.

use tracer_common::{Counters, slot_flags};

use crate::account::{account, account_error};
use crate::charge;
use crate::event::ZERO;
use crate::filesystem::{OVERLAY_MAGIC, kind_of};
use crate::inode_usage::usage;
use crate::kernel_read::{
    KernelPtr, ProbeRead, Read, current_proc, file_key, is_regular, magic, offset,
};

/// Handles the return of fallocate.
#[inline(always)]
pub fn on_fallocate(inode: KernelPtr, dentry: KernelPtr, result: i64) {
    if result < 0 {
        if is_regular::<ProbeRead>(inode) && magic::<ProbeRead>(inode) != OVERLAY_MAGIC {
            account_error(current_proc(), file_key::<ProbeRead>(inode), result);
        }
    }
    // A failed call may have allocated part of the range.
    charge::on_space_changed(inode, dentry);
}

/// Returns the bytes that the arguments of vfs_fallocate request; 0 unless the call only allocates.
#[inline(always)]
pub fn requested_bytes(mode: u64, length: u64) -> u64 {
    const KEEP_SIZE: u32 = 1;
    if mode as u32 & !KEEP_SIZE == 0 { length } else { 0 }
}

/// Handles the return of an fallocate of a file, with the bytes that it requested.
#[inline(always)]
pub fn on_file_fallocate(file: KernelPtr, requested: u64, result: i64) {
    let inode = ProbeRead::follow(file, offset!(file_inode));
    let dentry = ProbeRead::follow(file, offset!(file_dentry));
    if !count_if_unknown(inode, dentry, requested, result) {
        on_fallocate(inode, dentry, result);
    }
}

/// Counts the requested bytes if the inode's usage is unknown; returns whether it did. They are the
/// most that the file can have got, so the count is marked approximate and the daemon samples the
/// file.
#[inline(always)]
pub fn count_if_unknown(inode: KernelPtr, dentry: KernelPtr, requested: u64, result: i64) -> bool {
    result == 0 && requested != 0 && count_requested(inode.number(), dentry.number(), requested)
}

#[unsafe(no_mangle)]
extern "C" fn count_requested(inode: u64, dentry: u64, allocated: u64) -> bool {
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
