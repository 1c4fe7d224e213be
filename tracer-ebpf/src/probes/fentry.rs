//! fentry/fexit trampolines: typed arguments and direct loads, the cheapest way to a result.
//!
//! The result of a function with n arguments is `arg(n)` of its fexit program; `ret()` would need
//! bpf_get_func_ret, which was added in 5.17.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};

use tracer_common::offsets::usage_kind;

use super::{direct_io, fallocate, shared};
use crate::charge;
use crate::filesystem::TMPFS_MAGIC;
use crate::kernel_read::{BtfRead, KernelPtr, ProbeRead, Read, load, magic, offset};

/// Loads argument `n`, or the result if `n` is the number of arguments, at the point of the call
/// instead of keeping it.
#[inline(always)]
fn fetch(ctx: &FExitContext, n: usize) -> u64 {
    // SAFETY: the context is an array of 64-bit words; the verifier checks that it has at least `n
    // + 1`.
    unsafe { core::ptr::read_volatile(ctx.as_ptr().cast::<u64>().add(n)) }
}

/// `ssize_t X_write_iter(struct kiocb *iocb, struct iov_iter *from)`. One program for each
/// filesystem, because each is loaded for one function, and because the kind of usage layout is
/// then known.
macro_rules! write_iter {
    ($($name:ident: $kind:expr),+ $(,)?) => {$(
        #[fexit]
        fn $name(ctx: FExitContext) -> i32 {
            let iocb = || KernelPtr(fetch(&ctx, 0) as *const u8);
            let iter = || KernelPtr(fetch(&ctx, 1) as *const u8);
            let file = || KernelPtr(load!(BtfRead, iocb(), kiocb_filp));
            shared::write_iter::<BtfRead>(iocb, iter, file, || fetch(&ctx, 2) as i64, $kind);
            0
        }
    )+};
}

write_iter!(
    fexit_ext4_file_write_iter: usage_kind::EXT4,
    fexit_xfs_file_write_iter: usage_kind::XFS,
    fexit_btrfs_file_write_iter: usage_kind::BTRFS,
    fexit_shmem_file_write_iter: usage_kind::TMPFS,
);

/// tmpfs before 6.6 uses the generic function. Other filesystems that use it are counted at
/// vfs_write, and the fast path knows none of their files as one of tmpfs.
#[fexit]
fn fexit_generic_file_write_iter(ctx: FExitContext) -> i32 {
    let iocb = || KernelPtr(fetch(&ctx, 0) as *const u8);
    let file = || KernelPtr(load!(BtfRead, iocb(), kiocb_filp));
    let result = || fetch(&ctx, 2) as i64;
    let left = || load!(BtfRead, KernelPtr(fetch(&ctx, 1) as *const u8), iter_count);
    if shared::try_fast_path::<BtfRead>(iocb, file, result, usage_kind::TMPFS) {
        if left() != 0u64 {
            shared::count_short::<BtfRead>(file());
        }
    } else if magic::<BtfRead>(KernelPtr(load!(BtfRead, file(), file_inode))) == TMPFS_MAGIC {
        shared::write_iter_slow::<BtfRead>(iocb(), file(), usage_kind::TMPFS, result(), left());
    }
    0
}

/// `ssize_t iomap_dio_complete(struct iomap_dio *dio)`
#[fexit]
fn fexit_iomap_dio_complete(ctx: FExitContext) -> i32 {
    let dio = KernelPtr(ctx.arg::<*const u8>(0));
    if ProbeRead::read::<u8>(dio, offset!(dio_waits)) == 0 {
        direct_io::completed(ProbeRead::follow(dio, offset!(dio_iocb)), ctx.arg::<i64>(1));
    }
    0
}

/// `static vm_fault_t fault_dirty_shared_page(struct vm_fault *vmf)`: a store to a shared mapping
/// made a page dirty.
#[fentry]
fn fentry_fault_dirty_shared_page(ctx: FEntryContext) -> i32 {
    let vma = BtfRead::follow(KernelPtr(ctx.arg::<*const u8>(0)), offset!(fault_vma));
    shared::page_dirtied(BtfRead::follow(vma, offset!(vma_file)));
    0
}

/// `int vfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)`
#[fexit]
fn fexit_vfs_fallocate(ctx: FExitContext) -> i32 {
    let requested = fallocate::requested_bytes(ctx.arg::<u64>(1), ctx.arg::<u64>(3));
    fallocate::on_file_fallocate(
        KernelPtr(ctx.arg::<*const u8>(0)),
        requested,
        i64::from(ctx.arg::<i32>(4)),
    );
    0
}

/// `int security_file_open(struct file *file)`: called by every open.
#[fentry]
fn fentry_security_file_open(ctx: FEntryContext) -> i32 {
    shared::on_open::<BtfRead>(KernelPtr(ctx.arg::<*const u8>(0)));
    0
}

/// `static void evict(struct inode *inode)`
#[fentry]
fn fentry_evict(ctx: FEntryContext) -> i32 {
    charge::on_evict::<BtfRead>(KernelPtr(ctx.arg::<*const u8>(0)));
    0
}

/// Entry and exit of notify_change. `$dentry` is the index of the dentry argument; the attributes
/// are the next one. One pair of programs for each signature, see [`unlink`].
macro_rules! notify_change {
    ($entry:ident, $exit:ident, $dentry:literal of $arguments:literal) => {
        #[fentry]
        fn $entry(ctx: FEntryContext) -> i32 {
            let attributes = KernelPtr(ctx.arg::<*const u8>($dentry + 1));
            shared::setattr_enter(KernelPtr(ctx.arg::<*const u8>($dentry)), attributes);
            0
        }

        #[fexit]
        fn $exit(ctx: FExitContext) -> i32 {
            let result = ctx.arg::<i32>($arguments).into();
            shared::setattr_exit(KernelPtr(ctx.arg::<*const u8>($dentry)), result);
            0
        }
    };
}

// `int notify_change(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr, struct
// inode **delegated_inode)`; without the first argument before 5.12.
notify_change!(fentry_notify_change, fexit_notify_change, 1 of 4);
notify_change!(fentry_notify_change_v5_11, fexit_notify_change_v5_11, 0 of 3);

/// `loff_t X_remap_file_range(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
/// loff_t len, unsigned int remap_flags)`
#[fentry]
fn fentry_remap_file_range(ctx: FEntryContext) -> i32 {
    shared::remap_enter(KernelPtr(ctx.arg::<*const u8>(2)), ctx.arg::<u32>(5));
    0
}

/// See [`fentry_remap_file_range`].
#[fexit]
fn fexit_remap_file_range(ctx: FExitContext) -> i32 {
    shared::remap_exit(ctx.arg::<i64>(6));
    0
}

/// `int xfs_file_release(struct inode *inode, struct file *filp)`: xfs frees its speculative
/// preallocation.
#[fentry]
fn fentry_file_release(ctx: FEntryContext) -> i32 {
    shared::settle_enter(KernelPtr(ctx.arg::<*const u8>(0)), 0);
    0
}

/// See [`fentry_file_release`] and [`fentry_finish_ordered`].
#[fexit]
fn fexit_settle(ctx: FExitContext) -> i32 {
    let _ = ctx;
    shared::settle_exit();
    0
}

/// `int btrfs_finish_one_ordered(struct btrfs_ordered_extent *ordered_extent)`
#[fentry]
fn fentry_finish_ordered(ctx: FEntryContext) -> i32 {
    shared::finish_ordered_enter(KernelPtr(ctx.arg::<*const u8>(0)));
    0
}

/// `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`
#[fexit]
fn fexit_vfs_write(ctx: FExitContext) -> i32 {
    let result = ctx.arg::<i64>(4);
    let left = ctx.arg::<u64>(2).wrapping_sub(result as u64);
    shared::vfs_write::<BtfRead>(KernelPtr(ctx.arg::<*const u8>(0)), result, left);
    0
}

/// `static ssize_t do_iter_readv_writev(struct file *filp, struct iov_iter *iter, loff_t *ppos, int
/// type, rwf_t flags)`: writev and its variants; `type` is 1 for a write.
#[fexit]
fn fexit_do_iter_readv_writev(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) == 1 {
        let left: u64 = load!(BtfRead, KernelPtr(ctx.arg::<*const u8>(1)), iter_count);
        shared::vfs_writev::<BtfRead>(KernelPtr(ctx.arg::<*const u8>(0)), ctx.arg::<i64>(5), left);
    }
    0
}

/// Entry and exit of vfs_unlink. `$dentry` is the index of the dentry argument, `$arguments` the
/// number of arguments. One pair of programs for each signature: if it were chosen at run time, the
/// compiler would merge the two loads into one at a computed address, which the verifier rejects.
macro_rules! unlink {
    ($entry:ident, $exit:ident, $dentry:literal, $arguments:literal) => {
        #[fentry]
        fn $entry(ctx: FEntryContext) -> i32 {
            shared::unlink_enter::<BtfRead>(KernelPtr(ctx.arg::<*const u8>($dentry)));
            0
        }

        #[fexit]
        fn $exit(ctx: FExitContext) -> i32 {
            shared::unlink_exit(i64::from(ctx.arg::<i32>($arguments)));
            0
        }
    };
}

// `int vfs_unlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry, struct inode
// **delegated_inode)`
unlink!(fentry_vfs_unlink, fexit_vfs_unlink, 2, 4);
// Before 5.12: `int vfs_unlink(struct inode *dir, struct dentry *dentry, struct inode
// **delegated_inode)`
unlink!(fentry_vfs_unlink_v5_11, fexit_vfs_unlink_v5_11, 1, 3);
