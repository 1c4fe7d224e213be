//! Changes of directories at the functions that all filesystems go through: what was created and
//! removed, and the calls that failed for lack of space.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_func_ret;
use aya_ebpf::macros::{fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FExitContext, ProbeContext, RetProbeContext};

use tracer_common::Entries;

use crate::entries::{count_and_emit, directory_key, on_created};
use crate::entries::{count_failure_on, is_out_of_space};
use crate::inflight;
use crate::kernel_read::{BtfRead, KernelPtr, ProbeRead, Read, file_key, offset};
use crate::maps::in_flight::hook;

/// The result of a function, whatever the number of its arguments; since 5.17.
#[inline(always)]
pub fn fexit_result(ctx: &FExitContext) -> u64 {
    let mut result = 0u64;
    // SAFETY: the program's own context, and a valid place for the result.
    unsafe { bpf_get_func_ret(ctx.as_ptr(), &raw mut result) };
    result
}

/// What a call does in its directory.
const CREATES: u32 = 0;
const REMOVES: u32 = 1;
const LINKS: u32 = 2;

/// Returns the error of a call that returns a pointer or an int, as a number; 0 for success. An int
/// leaves the upper half of the register undefined, and a pointer is no error number as a whole.
#[inline(always)]
fn error_of(result: u64) -> i64 {
    const MAX_ERRNO: i64 = 4095;
    let whole = result as i64;
    let low = i64::from(result as i32);
    let is_error = |value: i64| (-MAX_ERRNO..0).contains(&value);
    if is_error(whole) || (result >> 32 == 0 && is_error(low)) { low } else { 0 }
}

/// Handles the return of a call in the directory `dir`.
#[inline(always)]
fn on_return<R: Read>(dir: KernelPtr, kind: u32, result: u64) {
    let key = directory_key::<R>(dir);
    match kind {
        CREATES => on_created(key, dir, error_of(result)),
        REMOVES if error_of(result) == 0 => count_and_emit(&key, dir.addr(), &Entries::REMOVED),
        LINKS if is_out_of_space(error_of(result)) => {
            count_failure_on(key.dev, error_of(result));
        }
        _ => {}
    }
}

/// Programs for fexit of `X(struct mnt_idmap *idmap, struct inode *dir, …)`: since 5.17, from 5.12 on,
/// and before without the first argument. One for each signature, see `create.rs`.
macro_rules! in_directory {
    ($($name:ident, $v5_16:ident, $v5_11:ident: $kind:expr, $dir:literal of $n:literal, $old_dir:literal of $old_n:literal;)+) => {$(
        #[fexit]
        fn $name(ctx: FExitContext) -> i32 {
            let result = fexit_result(&ctx);
            on_return::<BtfRead>(KernelPtr(ctx.arg::<*const u8>($dir)), $kind, result);
            0
        }

        #[fexit]
        fn $v5_16(ctx: FExitContext) -> i32 {
            let result = ctx.arg::<u64>($n);
            on_return::<BtfRead>(KernelPtr(ctx.arg::<*const u8>($dir)), $kind, result);
            0
        }

        #[fexit]
        fn $v5_11(ctx: FExitContext) -> i32 {
            let result = ctx.arg::<u64>($old_n);
            on_return::<BtfRead>(KernelPtr(ctx.arg::<*const u8>($old_dir)), $kind, result);
            0
        }
    )+};
}

in_directory! {
    // `vfs_mkdir(idmap, dir, dentry, mode)`; since 6.15 it returns a dentry.
    fexit_vfs_mkdir, fexit_vfs_mkdir_v5_16, fexit_vfs_mkdir_v5_11: CREATES, 1 of 4, 0 of 3;
    // `int vfs_mknod(idmap, dir, dentry, mode, dev)`
    fexit_vfs_mknod, fexit_vfs_mknod_v5_16, fexit_vfs_mknod_v5_11: CREATES, 1 of 5, 0 of 4;
    // `int vfs_symlink(idmap, dir, dentry, oldname)`
    fexit_vfs_symlink, fexit_vfs_symlink_v5_16, fexit_vfs_symlink_v5_11: CREATES, 1 of 4, 0 of 3;
    // `int vfs_rmdir(idmap, dir, dentry)`
    fexit_vfs_rmdir, fexit_vfs_rmdir_v5_16, fexit_vfs_rmdir_v5_11: REMOVES, 1 of 3, 0 of 2;
    // `int vfs_link(old_dentry, idmap, dir, new_dentry, delegated_inode)`
    fexit_vfs_link, fexit_vfs_link_v5_16, fexit_vfs_link_v5_11: LINKS, 2 of 5, 1 of 4;
}

/// `int vfs_rename(struct renamedata *rd)`: only its failures; [`super::rename`] has its successes.
#[fexit]
fn fexit_vfs_rename(ctx: FExitContext) -> i32 {
    let renamed = KernelPtr(ctx.arg::<*const u8>(0));
    let dentry = ProbeRead::follow(renamed, offset!(rename_old_dentry));
    on_renamed(ProbeRead::follow(dentry, offset!(dentry_inode)), ctx.arg::<i32>(1).into());
    0
}

/// The same before 5.12: `int vfs_rename(struct inode *old_dir, struct dentry *old_dentry, struct inode
/// *new_dir, struct dentry *new_dentry, struct inode **delegated_inode, unsigned int flags)`
#[fexit]
fn fexit_vfs_rename_v5_11(ctx: FExitContext) -> i32 {
    on_renamed(KernelPtr(ctx.arg::<*const u8>(0)), ctx.arg::<i32>(6).into());
    0
}

/// Handles the return of a rename on the filesystem of `inode`.
#[inline(always)]
fn on_renamed(inode: KernelPtr, result: i64) {
    if is_out_of_space(result) {
        count_failure_on(file_key::<ProbeRead>(inode).dev, result);
    }
}

/// Entry of one of these functions: stores the directory.
macro_rules! in_directory_by_kprobe {
    ($($name:ident: $hook:ident, $dir:literal;)+) => {$(
        #[kprobe]
        fn $name(ctx: ProbeContext) -> u32 {
            let dir = KernelPtr(ctx.arg::<*const u8>($dir).unwrap_or(core::ptr::null()));
            inflight::enter(hook::$hook, inflight::NO_KEY, dir);
            0
        }
    )+};
}

in_directory_by_kprobe! {
    kprobe_vfs_mkdir: MKDIR, 1;
    kprobe_vfs_mkdir_v5_11: MKDIR, 0;
    kprobe_vfs_mknod: MKNOD, 1;
    kprobe_vfs_mknod_v5_11: MKNOD, 0;
    kprobe_vfs_symlink: SYMLINK, 1;
    kprobe_vfs_symlink_v5_11: SYMLINK, 0;
    kprobe_vfs_rmdir: RMDIR, 1;
    kprobe_vfs_rmdir_v5_11: RMDIR, 0;
    kprobe_vfs_link: LINK, 2;
    kprobe_vfs_link_v5_11: LINK, 1;
    // The directory that the file is moved from.
    kprobe_vfs_rename_v5_11: RENAME, 0;
}

/// Return of one of these functions.
macro_rules! returns_by_kretprobe {
    ($($name:ident: $hook:ident, $kind:expr;)+) => {$(
        #[kretprobe]
        fn $name(ctx: RetProbeContext) -> u32 {
            if let Some(call) = inflight::take(hook::$hook) {
                let dir = KernelPtr::from_addr(call.object);
                on_return::<ProbeRead>(dir, $kind, ctx.ret::<u64>());
            }
            0
        }
    )+};
}

returns_by_kretprobe! {
    kretprobe_vfs_mkdir: MKDIR, CREATES;
    kretprobe_vfs_mknod: MKNOD, CREATES;
    kretprobe_vfs_symlink: SYMLINK, CREATES;
    kretprobe_vfs_rmdir: RMDIR, REMOVES;
    kretprobe_vfs_link: LINK, LINKS;
    kretprobe_vfs_rename: RENAME, LINKS;
}

/// See [`fexit_vfs_rename`]. Stores the inode of what is renamed: it is on the same device.
#[kprobe]
fn kprobe_vfs_rename(ctx: ProbeContext) -> u32 {
    let renamed = KernelPtr(ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null()));
    let dentry = ProbeRead::follow(renamed, offset!(rename_old_dentry));
    let inode = ProbeRead::follow(dentry, offset!(dentry_inode));
    inflight::enter(hook::RENAME, inflight::NO_KEY, inode);
    0
}
