//! Writes that are known by their result alone: that of the system call, or of the request.

use tracer_common::offsets::{counted, gauge_kind};
use tracer_common::{Counters, ProcKey};

use super::shared;
use crate::account::{account, account_write};
use crate::counted::counted_below;
use crate::event::{BY_CALL, Who, Write, ZERO};
use crate::hot;
use crate::kernel_read::{
    Kptr, Probed, Read as _, current_proc, file_key, is_regular, load, offset,
};
use crate::overlay;
use crate::user_read::read_user;

/// A write of the current process returned. Apart, for the frames of a chain of calls share 512 bytes.
#[inline(never)]
pub fn write_returned(file: u64, result: i64) {
    let file = Kptr::from_addr(file);
    let inode = Probed::follow(file, offset!(file_inode));
    if result > 0 && hot::count::<Probed>(|| inode, || BY_CALL, || result as u64, gauge_kind::NONE)
    {
        return;
    }
    count(file, inode, result, current_proc());
}

/// A write ended while another process runs than the one that asked for it.
#[inline(never)]
pub fn write_ended(file: u64, result: i64, proc: &ProcKey) {
    let file = Kptr::from_addr(file);
    count(file, Probed::follow(file, offset!(file_inode)), result, *proc);
}

#[inline(always)]
fn count(file: Kptr, inode: Kptr, result: i64, proc: ProcKey) {
    if !is_regular::<Probed>(inode) {
        return;
    }
    let mut inode = inode;
    let mut dentry = Probed::follow(file, offset!(file_dentry));
    let mut below = counted_below::<Probed>(inode);
    if below == counted::UPPER {
        dentry = overlay::upper_dentry(inode);
        if dentry.is_null() {
            return;
        }
        inode = Probed::follow(dentry, offset!(dentry_inode));
        below = counted_below::<Probed>(inode);
    }
    let skip = match below {
        0 => false,
        counted::SUCCESSES => result > 0,
        _ => true,
    };
    if skip {
        return;
    }
    account_write::<Probed>(&Write {
        who: Who { proc, file: file_key::<Probed>(inode), dentry, inode },
        kind: gauge_kind::NONE,
        result,
        end: BY_CALL,
    });
}

const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;

/// Does the ioctl share what another file has?
#[inline(always)]
pub fn is_clone(command: u32) -> bool {
    command == FICLONE || command == FICLONERANGE
}

/// `struct file_clone_range` of linux/fs.h, up to where it goes.
#[repr(C)]
#[derive(Clone, Copy)]
struct CloneRange {
    source: i64,
    offset: u64,
    length: u64,
}

/// A reflink succeeded, which is all or nothing: the file shares what was asked for. Apart, for the frames
/// of a chain of calls share 512 bytes.
#[inline(never)]
pub fn cloned(file: u64, command: u32, argument: u64) {
    let (inode, dentry) = overlay::target(Kptr::from_addr(file));
    if !is_regular::<Probed>(inode) || counted_below::<Probed>(inode) != 0 {
        return;
    }
    let mut range = CloneRange { source: argument as i64, offset: 0, length: 0 };
    if command == FICLONERANGE {
        // The kernel has just read it, so that it is in memory.
        range = read_user(argument);
    }
    if range.length == 0 {
        // To the source's end.
        let source = shared::file_of(range.source as u32);
        let size: u64 = load!(Probed, Probed::follow(source, offset!(file_inode)), inode_size);
        range.length = size.saturating_sub(range.offset);
    }
    let key = file_key::<Probed>(inode);
    shared::share(&key);
    let delta = Counters { written: range.length, ..ZERO };
    account(current_proc(), key, dentry, inode, delta);
}
