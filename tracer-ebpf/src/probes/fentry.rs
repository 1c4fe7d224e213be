//! fentry/fexit trampolines: typed arguments, direct loads, the cheapest way to a result.
//!
//! The result of a function with n arguments is `arg(n)` of its fexit program; `ret()` would need
//! bpf_get_func_ret, which came with 5.17.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use super::shared;
use crate::kernel_read::{Direct, Kptr, Read, magic, offset};

/// `ssize_t X_write_iter(struct kiocb *iocb, struct iov_iter *from)`, one program per filesystem
/// because each is loaded for one function.
macro_rules! write_iter {
    ($($name:ident),+ $(,)?) => {$(
        #[fexit]
        fn $name(ctx: FExitContext) -> i32 {
            write_iter_exit(&ctx)
        }
    )+};
}

write_iter!(fexit_ext4_file_write_iter, fexit_shmem_file_write_iter);

/// tmpfs before 6.6 uses the generic function; the other filesystems that do are counted at
/// vfs_write.
#[fexit]
fn fexit_generic_file_write_iter(ctx: FExitContext) -> i32 {
    let iocb = Kptr(ctx.arg::<*const u8>(0));
    let file = Direct::follow(iocb, offset!(kiocb_filp));
    if magic::<Direct>(Direct::follow(file, offset!(file_inode))) == shared::TMPFS_MAGIC {
        shared::write_iter::<Direct>(file, ctx.arg::<i64>(2));
    }
    0
}

#[inline(always)]
fn write_iter_exit(ctx: &FExitContext) -> i32 {
    let iocb = Kptr(ctx.arg::<*const u8>(0));
    let file = Direct::follow(iocb, offset!(kiocb_filp));
    shared::write_iter::<Direct>(file, ctx.arg::<i64>(2));
    0
}

/// `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`
#[fexit]
fn fexit_vfs_write(ctx: FExitContext) -> i32 {
    shared::vfs_write::<Direct>(Kptr(ctx.arg::<*const u8>(0)), ctx.arg::<i64>(4));
    0
}

/// `static ssize_t do_iter_readv_writev(struct file *filp, struct iov_iter *iter, loff_t *ppos,
/// int type, rwf_t flags)`: writev and its kin; `type` is 1 for a write.
#[fexit]
fn fexit_do_iter_readv_writev(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) == 1 {
        shared::vfs_write::<Direct>(Kptr(ctx.arg::<*const u8>(0)), ctx.arg::<i64>(5));
    }
    0
}

/// Entry and exit of vfs_unlink, whose dentry is argument `$dentry` of `$arguments`. One pair of
/// programs for each form: chosen at run time, the compiler would merge the two loads into one at a
/// computed address, which the verifier refuses.
macro_rules! unlink {
    ($entry:ident, $exit:ident, $dentry:literal, $arguments:literal) => {
        #[fentry]
        fn $entry(ctx: FEntryContext) -> i32 {
            shared::unlink_begins(Kptr(ctx.arg::<*const u8>($dentry)));
            0
        }

        #[fexit]
        fn $exit(ctx: FExitContext) -> i32 {
            shared::unlink_ends(i64::from(ctx.arg::<i32>($arguments)));
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
