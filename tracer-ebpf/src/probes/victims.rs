//! Who fails: calls that make or reserve something and find no space.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use tracer_common::{FileKey, PairKey};

use super::shared;
use crate::{
    account::account_write,
    kernel_read::{Kptr, Probed, Read, current_proc, file_key, offset},
    maps_where::{CREATING_ON, hook},
};

/// EIO, ENOSPC or EDQUOT?
#[inline(always)]
pub fn is_out_of_space(error: i64) -> bool {
    error == -5 || error == -28 || error == -122
}

/// A process got an error on a device, where no file was open yet.
#[inline(always)]
pub fn failed_on(dev: u32, error: i64) {
    let nowhere = FileKey { ino: 0, generation: 0, dev };
    account_write(current_proc(), nowhere, Kptr::from_addr(0), error);
}

/// `int vfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)`
#[fexit]
fn fexit_vfs_fallocate_failed(ctx: FExitContext) -> i32 {
    let error = i64::from(ctx.arg::<i32>(4));
    if is_out_of_space(error) {
        let file = Kptr(ctx.arg::<*const u8>(0));
        failed_on(file_key::<Probed>(Probed::follow(file, offset!(file_inode))).dev, error);
    }
    0
}

/// See [`fexit_vfs_fallocate_failed`].
#[kprobe]
fn kprobe_vfs_fallocate_failed(ctx: ProbeContext) -> u32 {
    let file = Kptr(ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null()));
    let inode = Probed::follow(file, offset!(file_inode));
    let key = PairKey::new(current_proc(), file_key::<Probed>(inode));
    shared::begin(hook::FALLOCATE, bpf_get_current_pid_tgid(), key, file);
    0
}

/// See [`fexit_vfs_fallocate_failed`].
#[kretprobe]
fn kretprobe_vfs_fallocate_failed(ctx: RetProbeContext) -> u32 {
    if let Some(call) = shared::end(hook::FALLOCATE, bpf_get_current_pid_tgid()) {
        let error = i64::from(ctx.ret::<i32>());
        if is_out_of_space(error) {
            failed_on(call.key.dev, error);
        }
    }
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`: only calls that failed for want of space, and that
/// tp_sys_exit does not look at. x86-64 alone.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn tp_sys_exit_failed(ctx: RawTracePointContext) -> i32 {
    let error = ctx.arg::<i64>(1);
    if !is_out_of_space(error) {
        return 0;
    }
    let regs = Kptr(ctx.arg::<*const u8>(0));
    // 32-bit programs have other numbers for their calls; this is the code segment of 64-bit ones.
    if Probed::read::<u64>(regs, offset!(regs_cs)) as u16 != 0x33 {
        return 0;
    }
    match Probed::read::<u64>(regs, offset!(regs_orig_ax)) {
        // fallocate
        285 => {
            let fd = Probed::read::<u64>(regs, offset!(regs_di)) as u32;
            let file = shared::file_of(fd);
            if !file.is_null() {
                let inode = Probed::follow(file, offset!(file_inode));
                failed_on(file_key::<Probed>(inode).dev, error);
            }
        }
        // open, creat, mkdir, symlink, mknod, openat, mkdirat, mknodat, symlinkat, openat2
        2 | 85 | 83 | 88 | 133 | 257 | 258 | 259 | 266 | 437 => {
            let dev = CREATING_ON.get_ptr(bpf_get_current_pid_tgid());
            if let Some(dev) = dev {
                // SAFETY: a valid pointer from the map.
                failed_on(unsafe { *dev }, error);
            }
        }
        _ => {}
    }
    0
}
