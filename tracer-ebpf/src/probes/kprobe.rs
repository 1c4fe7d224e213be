//! kprobes and kretprobes, for kernels without trampolines and for functions of modules.
//!
//! The daemon creates the return probes in tracefs with 1,024 instances each: the default misses
//! most of the calls that 64 threads of synchronous writes make.

use aya_ebpf::macros::{kprobe, kretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::ProcFileKey;
use tracer_common::offsets::{counted, usage_kind};

use super::{direct_io, fallocate, shared};
use crate::counted::counted_below;
use crate::filesystem::{TMPFS_MAGIC, kind_of};
use crate::inflight::{self, NO_KEY};
use crate::kernel_read::{KernelPtr, ProbeRead, Read, current_proc, is_regular, magic, offset};
use crate::maps::in_flight::{InFlight, hook};
use crate::{charge, overlay, process};

/// Returns argument `n`, as a pointer.
#[inline(always)]
fn pointer_arg(ctx: &ProbeContext, n: usize) -> KernelPtr {
    KernelPtr(ctx.arg::<*const u8>(n).unwrap_or(core::ptr::null()))
}

/// `void acct_process(void)`: do_exit() calls it only for the last thread of a process, right
/// before the tracepoint sched_process_exit.
#[kprobe]
fn kprobe_acct_process(ctx: ProbeContext) -> u32 {
    let _ = ctx;
    process::on_exit(current_proc());
    0
}

/// `void proc_exec_connector(struct task_struct *task)`: called right after the tracepoint sched_process_exec.
#[kprobe]
fn kprobe_proc_exec_connector(ctx: ProbeContext) -> u32 {
    let _ = ctx;
    process::on_exec(current_proc());
    0
}

/// `void __set_task_comm(struct task_struct *tsk, const char *buf, bool exec)`: contains the tracepoint
/// task_rename.
#[kprobe]
fn kprobe_set_task_comm(ctx: ProbeContext) -> u32 {
    process::on_rename(pointer_arg(&ctx, 0), pointer_arg(&ctx, 1));
    0
}

/// `ssize_t X_write_iter(struct kiocb *iocb, struct iov_iter *from)`
#[kprobe]
fn kprobe_write_iter(ctx: ProbeContext) -> u32 {
    write_iter_enter(&ctx, 0);
    0
}

/// The same for generic_file_write_iter, which is counted only on tmpfs.
#[kprobe]
fn kprobe_generic_write_iter(ctx: ProbeContext) -> u32 {
    write_iter_enter(&ctx, TMPFS_MAGIC);
    0
}

/// Stores a write_iter call. `only` is the magic number of the one filesystem to count, or 0 for
/// any. It is checked when the call returns, and kept in the key's `dev`; the iterator is kept in its
/// `ino`.
#[inline(always)]
fn write_iter_enter(ctx: &ProbeContext, only: u32) {
    let iocb = pointer_arg(ctx, 0);
    let file = ProbeRead::follow(iocb, offset!(kiocb_filp));
    let key = ProcFileKey { dev: only, ino: pointer_arg(ctx, 1).addr(), ..NO_KEY };
    inflight::insert(hook::WRITE_ITER, InFlight { key, object: file.addr(), extra: iocb.addr() });
}

/// See [`kprobe_write_iter`].
#[kretprobe]
fn kretprobe_write_iter(ctx: RetProbeContext) -> u32 {
    let Some(call) = inflight::take(hook::WRITE_ITER) else { return 0 };
    let (iocb, file) = (KernelPtr::from_addr(call.extra), KernelPtr::from_addr(call.object));
    let result = ctx.ret::<i64>();
    // The fast path knows only files of filesystems that are counted here.
    if !shared::try_fast_path::<ProbeRead>(|| iocb, || file, || result, usage_kind::EXT4) {
        let magic = magic::<ProbeRead>(ProbeRead::follow(file, offset!(file_inode)));
        if call.key.dev == 0 || call.key.dev == magic {
            let left = ProbeRead::read(KernelPtr::from_addr(call.key.ino), offset!(iter_count));
            shared::write_iter_slow::<ProbeRead>(iocb, file, kind_of(magic), result, left);
        }
    }
    0
}

/// `ssize_t iomap_dio_complete(struct iomap_dio *dio)`: its result is known at its entry. A return
/// could not be matched to its call: it is also called by interrupts, which can interrupt another
/// call in the same thread.
#[kprobe]
fn kprobe_iomap_dio_complete(ctx: ProbeContext) -> u32 {
    let dio = pointer_arg(&ctx, 0);
    if ProbeRead::read::<u8>(dio, offset!(dio_waits)) == 0 {
        let error = ProbeRead::read::<i32>(dio, offset!(dio_error));
        let result = if error == 0 {
            ProbeRead::read::<i64>(dio, offset!(dio_size))
        } else {
            i64::from(error)
        };
        direct_io::completed(ProbeRead::follow(dio, offset!(dio_iocb)), result);
    }
    0
}

/// `static vm_fault_t fault_dirty_shared_page(struct vm_fault *vmf)`
#[kprobe]
fn kprobe_fault_dirty_shared_page(ctx: ProbeContext) -> u32 {
    let vma = ProbeRead::follow(pointer_arg(&ctx, 0), offset!(fault_vma));
    shared::page_dirtied(ProbeRead::follow(vma, offset!(vma_file)));
    0
}

/// `int vfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)`
#[kprobe]
fn kprobe_vfs_fallocate(ctx: ProbeContext) -> u32 {
    let extra =
        fallocate::requested_bytes(pointer_arg(&ctx, 1).addr(), pointer_arg(&ctx, 3).addr());
    let call = InFlight { key: NO_KEY, object: pointer_arg(&ctx, 0).addr(), extra };
    inflight::insert(hook::FALLOCATE, call);
    0
}

/// See [`kprobe_vfs_fallocate`].
#[kretprobe]
fn kretprobe_vfs_fallocate(ctx: RetProbeContext) -> u32 {
    if let Some(call) = inflight::take(hook::FALLOCATE) {
        let file = KernelPtr::from_addr(call.object);
        fallocate::on_file_fallocate(file, call.extra, i64::from(ctx.ret::<i32>()));
    }
    0
}

/// `int security_file_open(struct file *file)`
#[kprobe]
fn kprobe_security_file_open(ctx: ProbeContext) -> u32 {
    shared::on_open::<ProbeRead>(pointer_arg(&ctx, 0));
    0
}

/// `static void evict(struct inode *inode)`
#[kprobe]
fn kprobe_evict(ctx: ProbeContext) -> u32 {
    charge::on_evict::<ProbeRead>(pointer_arg(&ctx, 0));
    0
}

/// `int notify_change(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr, struct
/// inode **delegated_inode)`
#[kprobe]
fn kprobe_notify_change(ctx: ProbeContext) -> u32 {
    setattr_enter(pointer_arg(&ctx, 1), pointer_arg(&ctx, 2));
    0
}

/// The same before 5.12, without the first argument.
#[kprobe]
fn kprobe_notify_change_v5_11(ctx: ProbeContext) -> u32 {
    setattr_enter(pointer_arg(&ctx, 0), pointer_arg(&ctx, 1));
    0
}

#[inline(always)]
fn setattr_enter(dentry: KernelPtr, attributes: KernelPtr) {
    shared::setattr_enter(dentry, attributes);
    let call = InFlight { key: NO_KEY, object: dentry.addr(), extra: 0 };
    inflight::insert(hook::SETATTR, call);
}

/// See [`kprobe_notify_change`].
#[kretprobe]
fn kretprobe_notify_change(ctx: RetProbeContext) -> u32 {
    if let Some(call) = inflight::take(hook::SETATTR) {
        shared::setattr_exit(KernelPtr::from_addr(call.object), ctx.ret::<i32>().into());
    }
    0
}

/// `loff_t X_remap_file_range(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
/// loff_t len, unsigned int remap_flags)`
#[kprobe]
fn kprobe_remap_file_range(ctx: ProbeContext) -> u32 {
    shared::remap_enter(pointer_arg(&ctx, 2), ctx.arg::<u32>(5).unwrap_or(0));
    0
}

/// See [`kprobe_remap_file_range`].
#[kretprobe]
fn kretprobe_remap_file_range(ctx: RetProbeContext) -> u32 {
    shared::remap_exit(ctx.ret::<i64>());
    0
}

/// `int xfs_file_release(struct inode *inode, struct file *filp)`: xfs frees its speculative
/// preallocation.
#[kprobe]
fn kprobe_file_release(ctx: ProbeContext) -> u32 {
    shared::settle_enter(pointer_arg(&ctx, 0), 0);
    0
}

/// `int btrfs_finish_one_ordered(struct btrfs_ordered_extent *ordered_extent)`
#[kprobe]
fn kprobe_finish_ordered(ctx: ProbeContext) -> u32 {
    shared::finish_ordered_enter(pointer_arg(&ctx, 0));
    0
}

/// See [`kprobe_file_release`] and [`kprobe_finish_ordered`].
#[kretprobe]
fn kretprobe_settle(ctx: RetProbeContext) -> u32 {
    let _ = ctx;
    shared::settle_exit();
    0
}

/// `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`
#[kprobe]
fn kprobe_vfs_write(ctx: ProbeContext) -> u32 {
    let file = pointer_arg(&ctx, 0);
    vfs_write_enter(hook::VFS_WRITE, file, pointer_arg(&ctx, 2).addr());
    0
}

/// See [`kprobe_vfs_write`].
#[kretprobe]
fn kretprobe_vfs_write(ctx: RetProbeContext) -> u32 {
    let result = ctx.ret::<i64>();
    vfs_write_exit(hook::VFS_WRITE, result, |requested| requested.wrapping_sub(result as u64));
    0
}

/// `static ssize_t do_iter_readv_writev(struct file *filp, struct iov_iter *iter, loff_t *ppos,
/// int type, rwf_t flags)`
#[kprobe]
fn kprobe_do_iter_readv_writev(ctx: ProbeContext) -> u32 {
    if ctx.arg::<i32>(3).unwrap_or(0) == 1 {
        let file = pointer_arg(&ctx, 0);
        // Otherwise, this call would take the place of the overlay's own, whose return would not be
        // matched.
        if !(overlay::are_followed() && overlay::is_behind::<ProbeRead>(file)) {
            vfs_write_enter(hook::VFS_WRITEV, file, pointer_arg(&ctx, 1).addr());
        }
    }
    0
}

/// See [`kprobe_do_iter_readv_writev`].
#[kretprobe]
fn kretprobe_do_iter_readv_writev(ctx: RetProbeContext) -> u32 {
    let left = |iter| ProbeRead::read(KernelPtr::from_addr(iter), offset!(iter_count));
    vfs_write_exit(hook::VFS_WRITEV, ctx.ret::<i64>(), left);
    0
}

/// `int vfs_unlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry, struct inode
/// **delegated_inode)`
#[kprobe]
fn kprobe_vfs_unlink(ctx: ProbeContext) -> u32 {
    shared::unlink_enter::<ProbeRead>(pointer_arg(&ctx, 2));
    0
}

/// The same before 5.12, without the first argument.
#[kprobe]
fn kprobe_vfs_unlink_v5_11(ctx: ProbeContext) -> u32 {
    shared::unlink_enter::<ProbeRead>(pointer_arg(&ctx, 1));
    0
}

/// See [`kprobe_vfs_unlink`].
#[kretprobe]
fn kretprobe_vfs_unlink(ctx: RetProbeContext) -> u32 {
    shared::unlink_exit(i64::from(ctx.ret::<i32>()));
    0
}

/// Stores a call of vfs_write or one of its variants; `extra` is for [`vfs_write_exit`].
#[inline(always)]
fn vfs_write_enter(hook: u64, file: KernelPtr, extra: u64) {
    let inode = ProbeRead::follow(file, offset!(file_inode));
    let is_counted = || matches!(counted_below::<ProbeRead>(inode), 0 | counted::UPPER);
    if is_regular::<ProbeRead>(inode) && is_counted() {
        inflight::insert(hook, InFlight { key: NO_KEY, object: file.addr(), extra });
    }
}

/// `left` returns the number of bytes that were requested but not written.
#[inline(always)]
fn vfs_write_exit(hook: u64, result: i64, left: impl Fn(u64) -> u64) {
    if let Some(call) = inflight::take(hook) {
        let file = KernelPtr::from_addr(call.object);
        shared::vfs_write::<ProbeRead>(file, result, left(call.extra));
    }
}
