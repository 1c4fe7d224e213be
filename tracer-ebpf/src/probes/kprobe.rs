//! kprobes and kretprobes, for kernels without trampolines and for functions of modules.
//!
//! The daemon makes the return probes in tracefs with room for 1,024 calls at once: the default
//! loses most of what 64 threads of synchronous writes do.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::PairKey;

use super::shared;
use crate::{
    account::account_write,
    kernel_read::{Kptr, Probed, Read, current_proc, file_key, is_regular, magic, offset},
    maps::hook,
    probes::shared::TMPFS_MAGIC,
};

/// `ssize_t X_write_iter(struct kiocb *iocb, struct iov_iter *from)`
#[kprobe]
fn kprobe_write_iter(ctx: ProbeContext) -> u32 {
    let iocb = Kptr(ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null()));
    let file = Probed::follow(iocb, offset!(kiocb_filp));
    write_begins(hook::WRITE_ITER, file);
    0
}

/// The same for generic_file_write_iter, where only tmpfs is counted.
#[kprobe]
fn kprobe_generic_write_iter(ctx: ProbeContext) -> u32 {
    let iocb = Kptr(ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null()));
    let file = Probed::follow(iocb, offset!(kiocb_filp));
    if magic::<Probed>(Probed::follow(file, offset!(file_inode))) == TMPFS_MAGIC {
        write_begins(hook::WRITE_ITER, file);
    }
    0
}

/// See [`kprobe_write_iter`].
#[kretprobe]
fn kretprobe_write_iter(ctx: RetProbeContext) -> u32 {
    write_ends(hook::WRITE_ITER, ctx.ret::<i64>());
    0
}

/// `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`
#[kprobe]
fn kprobe_vfs_write(ctx: ProbeContext) -> u32 {
    let file = Kptr(ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null()));
    vfs_write_begins(hook::VFS_WRITE, file);
    0
}

/// See [`kprobe_vfs_write`].
#[kretprobe]
fn kretprobe_vfs_write(ctx: RetProbeContext) -> u32 {
    write_ends(hook::VFS_WRITE, ctx.ret::<i64>());
    0
}

/// `static ssize_t do_iter_readv_writev(struct file *filp, struct iov_iter *iter, loff_t *ppos,
/// int type, rwf_t flags)`
#[kprobe]
fn kprobe_do_iter_readv_writev(ctx: ProbeContext) -> u32 {
    if ctx.arg::<i32>(3).unwrap_or(0) == 1 {
        let file = Kptr(ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null()));
        vfs_write_begins(hook::VFS_WRITEV, file);
    }
    0
}

/// See [`kprobe_do_iter_readv_writev`].
#[kretprobe]
fn kretprobe_do_iter_readv_writev(ctx: RetProbeContext) -> u32 {
    write_ends(hook::VFS_WRITEV, ctx.ret::<i64>());
    0
}

/// `int vfs_unlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry, struct inode
/// **delegated_inode)`
#[kprobe]
fn kprobe_vfs_unlink(ctx: ProbeContext) -> u32 {
    shared::unlink_begins(Kptr(ctx.arg::<*const u8>(2).unwrap_or(core::ptr::null())));
    0
}

/// The same before 5.12, without the first argument.
#[kprobe]
fn kprobe_vfs_unlink_v5_11(ctx: ProbeContext) -> u32 {
    shared::unlink_begins(Kptr(ctx.arg::<*const u8>(1).unwrap_or(core::ptr::null())));
    0
}

/// See [`kprobe_vfs_unlink`].
#[kretprobe]
fn kretprobe_vfs_unlink(ctx: RetProbeContext) -> u32 {
    shared::unlink_ends(i64::from(ctx.ret::<i32>()));
    0
}

#[inline(always)]
fn vfs_write_begins(hook: u64, file: Kptr) {
    let inode = Probed::follow(file, offset!(file_inode));
    if is_regular::<Probed>(inode) && shared::counted_below::<Probed>(inode) == 0 {
        write_begins(hook, file);
    }
}

#[inline(always)]
fn write_begins(hook: u64, file: Kptr) {
    let inode = Probed::follow(file, offset!(file_inode));
    let dentry = shared::dentry_of::<Probed>(file, inode);
    let key = PairKey::new(current_proc(), file_key::<Probed>(inode));
    shared::begin(hook, bpf_get_current_pid_tgid(), key, dentry);
}

#[inline(always)]
fn write_ends(hook: u64, result: i64) {
    if let Some(call) = shared::end(hook, bpf_get_current_pid_tgid()) {
        account_write(call.key.process(), call.key.file(), Kptr::from_addr(call.object), result);
    }
}
