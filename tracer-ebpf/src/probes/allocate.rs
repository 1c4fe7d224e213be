//! fallocate: what it took is the inode's gauge, and where there is none, what was asked for.

use tracer_common::{Counters, slot_flags};

use crate::account::{account, account_error};
use crate::charge;
use crate::event::ZERO;
use crate::filesystem::{OVERLAY_MAGIC, kind_of};
use crate::gauge::gauge;
use crate::kernel_read::{Kptr, Probed, Read, current_proc, file_key, is_regular, magic, offset};

/// fallocate returned.
#[inline(always)]
pub fn fallocated(inode: Kptr, dentry: Kptr, result: i64) {
    if result < 0 {
        if is_regular::<Probed>(inode) && magic::<Probed>(inode) != OVERLAY_MAGIC {
            account_error(current_proc(), file_key::<Probed>(inode), result);
        }
    }
    // One that failed may have gone half the way.
    charge::changed(inode, dentry);
}

/// What vfs_fallocate's arguments ask for: bytes, if it is only to allocate them.
#[inline(always)]
pub fn asked_for(mode: u64, length: u64) -> u64 {
    const KEEP_SIZE: u32 = 1;
    if mode as u32 & !KEEP_SIZE == 0 { length } else { 0 }
}

/// The same, of a file, and of so many bytes.
#[inline(always)]
pub fn fallocated_file(file: Kptr, asked: u64, result: i64) {
    let inode = Probed::follow(file, offset!(file_inode));
    let dentry = Probed::follow(file, offset!(file_dentry));
    if !allocated_unseen(inode, dentry, asked, result) {
        fallocated(inode, dentry, result);
    }
}

/// Where nothing tells what an inode has, what was asked for is what it got at most: the daemon looks
/// closer. False where it is told.
#[inline(always)]
pub fn allocated_unseen(inode: Kptr, dentry: Kptr, asked: u64, result: i64) -> bool {
    result == 0 && asked != 0 && without_gauge(inode.addr(), dentry.addr(), asked)
}

#[inline(never)]
fn without_gauge(inode: u64, dentry: u64, allocated: u64) -> bool {
    let inode = Kptr::from_addr(inode);
    let magic = magic::<Probed>(inode);
    if !is_regular::<Probed>(inode)
        || magic == OVERLAY_MAGIC
        || gauge::<Probed>(kind_of(magic), inode).is_some()
    {
        return false;
    }
    let delta = Counters { allocated, flags: slot_flags::APPROXIMATE, ..ZERO };
    account(current_proc(), file_key::<Probed>(inode), Kptr::from_addr(dentry), inode, delta);
    true
}
