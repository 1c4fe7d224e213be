//! Writes of which only the result is known: that of the system call, or of the io_uring request.

use tracer_common::offsets::{counted, usage_kind};
use tracer_common::{Counters, ProcKey};

use super::shared;
use crate::account::{SHORT_WRITE, account, account_error, account_write};
use crate::counted::counted_below;
use crate::event::{BY_SYSCALL, WriteEvent, WriteTarget, ZERO};
use crate::fast_path;
use crate::kernel_read::{
    KernelPtr, ProbeRead, Read as _, current_proc, file_key, is_regular, load, offset,
};
use crate::overlay;
use crate::user_read::read_user;

/// Handles the return of a write of the current process, with the number of bytes that were requested
/// but not written. Not inlined, because the frames of a call chain share 512 bytes.
#[unsafe(no_mangle)]
pub extern "C" fn on_write_return(file: u64, result: i64, left: u64) -> u32 {
    let file = KernelPtr::from_addr(file);
    let inode = ProbeRead::follow(file, offset!(file_inode));
    let is_counted = result > 0
        && fast_path::try_fast_path::<ProbeRead>(
            || inode,
            || BY_SYSCALL,
            || result as u64,
            usage_kind::NONE,
        );
    if !is_counted {
        let proc = current_proc();
        count_write(file.addr(), result, proc.start_ns, proc.tgid);
    }
    // Last: the verifier goes through everything that follows once for each way through this.
    if result > 0 && left != 0 {
        count_short_of_call(file.addr());
    }
    0
}

/// `O_DIRECT` of x86-64: such a write may end early for other reasons.
const O_DIRECT: u32 = 0o40_000;

/// Counts a write that returned fewer bytes than requested.
#[unsafe(no_mangle)]
extern "C" fn count_short_of_call(file: u64) -> u32 {
    let file = KernelPtr::from_addr(file);
    let flags: u32 = ProbeRead::read(file, offset!(file_flags));
    let (inode, _) = overlay::target(file);
    if flags & O_DIRECT == 0 && is_regular::<ProbeRead>(inode) {
        account_error(current_proc(), file_key::<ProbeRead>(inode), SHORT_WRITE);
    }
    0
}

/// `struct iovec` of linux/uio.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct IoVec {
    base: u64,
    length: u64,
}

/// Returns how much a vector of buffers holds beyond what was written of it, as far as it is known from
/// its first parts: 0 if they hold no more than that.
#[inline(always)]
pub fn left_of_vector(vector: u64, parts: u64, written: u64) -> u64 {
    const PARTS: u64 = 16;
    // An error.
    if written as i64 <= 0 {
        return 0;
    }
    let mut sum = 0u64;
    for part in 0..PARTS {
        if part >= parts {
            break;
        }
        let IoVec { length, .. } = read_user(vector.wrapping_add(part * 16));
        sum = sum.wrapping_add(length);
    }
    sum.saturating_sub(written)
}

/// Counts the result of a write of a process, which may not be the current one when it completes.
#[unsafe(no_mangle)]
pub extern "C" fn count_write(file: u64, result: i64, start_ns: u64, tgid: u32) -> u32 {
    let file = KernelPtr::from_addr(file);
    let mut inode = ProbeRead::follow(file, offset!(file_inode));
    if !is_regular::<ProbeRead>(inode) {
        return 0;
    }
    let mut dentry = ProbeRead::follow(file, offset!(file_dentry));
    let mut below = counted_below::<ProbeRead>(inode);
    if below == counted::UPPER {
        dentry = overlay::upper_dentry(inode);
        if dentry.is_null() {
            return 0;
        }
        inode = ProbeRead::follow(dentry, offset!(dentry_inode));
        below = counted_below::<ProbeRead>(inode);
    }
    let skip = match below {
        0 => false,
        counted::SUCCESSES => result > 0,
        _ => true,
    };
    if skip {
        return 0;
    }
    let proc = ProcKey { start_ns, tgid, pad: 0 };
    account_write::<ProbeRead>(&WriteEvent {
        target: WriteTarget { proc, file: file_key::<ProbeRead>(inode), dentry, inode },
        kind: usage_kind::NONE,
        result,
        end: BY_SYSCALL,
    });
    0
}

const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;

/// Returns whether the ioctl shares space with another file (reflink).
#[inline(always)]
pub fn is_clone_ioctl(command: u32) -> bool {
    command == FICLONE || command == FICLONERANGE
}

/// `struct file_clone_range` of linux/fs.h, without the last field (the offset in the destination).
#[repr(C)]
#[derive(Clone, Copy)]
struct CloneRange {
    source: i64,
    offset: u64,
    length: u64,
}

/// Handles a reflink that succeeded, which is all or nothing: the file shares what was requested.
#[unsafe(no_mangle)]
pub extern "C" fn on_clone(file: u64, command: u32, argument: u64) -> u32 {
    let (inode, dentry) = overlay::target(KernelPtr::from_addr(file));
    if !is_regular::<ProbeRead>(inode) || counted_below::<ProbeRead>(inode) != 0 {
        return 0;
    }
    let mut range = CloneRange { source: argument as i64, offset: 0, length: 0 };
    if command == FICLONERANGE {
        // The kernel has just read it, so it is in memory.
        range = read_user(argument);
    }
    if range.length == 0 {
        // Up to the end of the source.
        let source = shared::file_of_fd(range.source as u32);
        let size: u64 =
            load!(ProbeRead, ProbeRead::follow(source, offset!(file_inode)), inode_size);
        range.length = size.saturating_sub(range.offset);
    }
    let key = file_key::<ProbeRead>(inode);
    shared::mark_reflinked(&key);
    let delta = Counters { written: range.length, ..ZERO };
    account(current_proc(), key, dentry, inode, delta);
    0
}
