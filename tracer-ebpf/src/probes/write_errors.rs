//! Failures: calls that create or reserve something and find no space.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tracer_common::FileKey;

use crate::account::account_error;
use crate::errno::{EDQUOT, EIO, ENOSPC};
use crate::kernel_read::{BtfRead, KernelPtr, current_proc, load};
use crate::maps::created::LAST_CREATE_DEV;
use crate::syscall;

/// Returns whether the error is EIO, ENOSPC or EDQUOT.
#[inline(always)]
pub fn is_out_of_space(error: i64) -> bool {
    error == EIO || error == ENOSPC || error == EDQUOT
}

/// Counts an error that a process got on a device before a file was open.
#[inline(always)]
pub fn count_failure_on(dev: u32, error: i64) {
    let nowhere = FileKey { ino: 0, generation: 0, dev };
    account_error(current_proc(), nowhere, error);
}

/// `sys_exit(struct pt_regs *regs, long ret)`: only calls that failed for lack of space, and that
/// tp_sys_exit does not handle. x86-64 only.
#[btf_tracepoint(function = "sys_exit")]
fn tp_sys_exit_failed(ctx: BtfTracePointContext) -> i32 {
    let error = ctx.arg::<i64>(1);
    if !is_out_of_space(error) {
        return 0;
    }
    let regs = KernelPtr(ctx.arg::<*const u8>(0));
    // 32-bit programs have other numbers for their calls.
    let segment: u64 = load!(BtfRead, regs, regs_cs);
    if segment as u16 != syscall::USER_CS {
        return 0;
    }
    let number: u64 = load!(BtfRead, regs, regs_orig_ax);
    match number {
        syscall::OPEN
        | syscall::CREAT
        | syscall::MKDIR
        | syscall::SYMLINK
        | syscall::MKNOD
        | syscall::OPENAT
        | syscall::MKDIRAT
        | syscall::MKNODAT
        | syscall::SYMLINKAT
        | syscall::OPENAT2 => {
            let dev = LAST_CREATE_DEV.get_ptr(bpf_get_current_pid_tgid());
            if let Some(dev) = dev {
                // SAFETY: a valid pointer from the map.
                count_failure_on(unsafe { *dev }, error);
            }
        }
        _ => {}
    }
    0
}
