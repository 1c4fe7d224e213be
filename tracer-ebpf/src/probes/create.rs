//! Created files.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint};
use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
};
use tracer_common::{Entries, FileKey, ProcFileKey};

use super::namespace::fexit_result;
use crate::counted::counted_below;
use crate::entries::{
    count_and_emit, count_failure_on, directory_key, on_created, on_new_directory,
};
use crate::errno::{EDQUOT, ENOSPC};
use crate::inflight;
use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read, current_proc, file_key, load, offset,
};
use crate::maps::created::LAST_CREATE_DEV;
use crate::maps::in_flight::hook;

/// `int X_create(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry, umode_t mode,
/// bool excl)`; before 5.12 without the first argument. One program for each signature: if it were
/// chosen at run time, the compiler would load from a computed address, which the verifier rejects.
macro_rules! creates {
    ($($name:ident: $dir:literal of $arguments:literal;)+) => {$(
        #[fexit]
        fn $name(ctx: FExitContext) -> i32 {
            let dir = KernelPtr(ctx.arg::<*const u8>($dir));
            on_created(directory_key::<BtfRead>(dir), dir, ctx.arg::<i32>($arguments).into());
            0
        }
    )+};
}

creates! {
    fexit_create_v5_16: 1 of 5;
    fexit_create_v5_11: 0 of 4;
}

/// The same since 5.17, which has bpf_get_func_ret: since 6.15, the function has lost its last argument.
#[fexit]
fn fexit_create(ctx: FExitContext) -> i32 {
    let dir = KernelPtr(ctx.arg::<*const u8>(1));
    let result = fexit_result(&ctx) as i32;
    on_created(directory_key::<BtfRead>(dir), dir, result.into());
    0
}

/// Entry of create: stores the directory.
macro_rules! creates_by_kprobe {
    ($($name:ident: $dir:literal;)+) => {$(
        #[kprobe]
        fn $name(ctx: ProbeContext) -> u32 {
            let dir = KernelPtr(ctx.arg::<*const u8>($dir).unwrap_or(core::ptr::null()));
            inflight::enter(hook::CREATE, directory_key::<ProbeRead>(dir), dir);
            0
        }
    )+};
}

creates_by_kprobe! {
    kprobe_create: 1;
    kprobe_create_v5_11: 0;
}

/// See [`kprobe_create`].
#[kretprobe]
fn kretprobe_create(ctx: RetProbeContext) -> u32 {
    if let Some(call) = inflight::take(hook::CREATE) {
        on_created(call.key, KernelPtr::from_addr(call.object), ctx.ret::<i32>().into());
    }
    0
}

/// `int security_inode_create(struct inode *dir, struct dentry *dentry, umode_t mode)`: called
/// whenever an open is about to create a file.
#[fentry]
fn fentry_security_inode_create(ctx: FEntryContext) -> i32 {
    remember_directory::<BtfRead>(KernelPtr(ctx.arg::<*const u8>(0)));
    0
}

/// See [`fentry_security_inode_create`].
#[kprobe]
fn kprobe_security_inode_create(ctx: ProbeContext) -> u32 {
    let dir = KernelPtr(ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null()));
    remember_directory::<ProbeRead>(dir);
    0
}

#[inline(always)]
fn remember_directory<R: Read>(dir: KernelPtr) {
    let is_reported = counted_below::<R>(dir) != 0;
    let dev = if is_reported { 0 } else { file_key::<R>(dir).dev };
    let _ = LAST_CREATE_DEV.insert(bpf_get_current_pid_tgid(), dev, 0);
}

/// `struct file *do_filp_open(int dfd, struct filename *pathname, const struct open_flags *op)`: every
/// open.
#[fexit]
fn fexit_do_filp_open(ctx: FExitContext) -> i32 {
    on_opened(KernelPtr(ctx.arg::<*const u8>(3)).low());
    0
}

/// See [`fexit_do_filp_open`].
#[kretprobe]
fn kretprobe_do_filp_open(ctx: RetProbeContext) -> u32 {
    on_opened(ctx.ret::<u64>() as u32);
    0
}

/// Handles the return of an open: the lower half of a pointer or of a negative error number. Pointers
/// are aligned, so they differ from the errors here.
#[inline(always)]
fn on_opened(result: u32) {
    if result != ENOSPC as u32 && result != EDQUOT as u32 {
        return;
    }
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the value is copied immediately.
    if let Some(dev) = unsafe { LAST_CREATE_DEV.get(thread) }.copied() {
        let _ = LAST_CREATE_DEV.remove(thread);
        if dev != 0 {
            count_failure_on(dev, i64::from(result as i32));
        }
    }
}

/// The bit of `f_mode` for a file that its open created (4.19).
pub const FMODE_CREATED: u32 = 0x10_0000;

/// Handles the opening of a file: counts it if this open created it, and its filesystem's own function
/// is not hooked.
#[inline(always)]
pub fn on_open<R: Read>(file: KernelPtr, mode: u32) {
    if mode & FMODE_CREATED == 0 {
        return;
    }
    let inode = KernelPtr(load!(R, file, file_inode));
    if counted_below::<R>(inode) == 0 {
        let dentry = KernelPtr(load!(R, file, file_dentry));
        on_new_entry(dentry);
    }
}

/// Counts a new inode by its dentry.
#[inline(always)]
pub fn on_new_entry(dentry: KernelPtr) {
    let dir = directory_of(dentry);
    count_and_emit(&directory_key::<ProbeRead>(dir), dir.addr(), &Entries::CREATED);
}

/// Counts an inode that has lost its last name, by its dentry.
#[inline(always)]
pub fn on_removed_entry(dentry: KernelPtr) {
    let dir = directory_of(dentry);
    count_and_emit(&directory_key::<ProbeRead>(dir), dir.addr(), &Entries::REMOVED);
}

/// The inode of the directory that contains a dentry.
#[inline(always)]
fn directory_of(dentry: KernelPtr) -> KernelPtr {
    let dir = ProbeRead::follow(dentry, offset!(dentry_parent));
    ProbeRead::follow(dir, offset!(dentry_inode))
}

/// `ext4_allocate_inode(struct inode *inode, struct inode *dir, int mode)`
#[raw_tracepoint(tracepoint = "ext4_allocate_inode")]
fn tp_ext4_allocate_inode(ctx: RawTracePointContext) -> i32 {
    const S_IFMT: u32 = 0o170_000;
    const S_IFDIR: u32 = 0o040_000;
    let (inode, dir) = (KernelPtr(ctx.arg::<*const u8>(0)), KernelPtr(ctx.arg::<*const u8>(1)));
    if ctx.arg::<u32>(2) & S_IFMT == S_IFDIR {
        on_new_directory(inode);
    }
    on_created(directory_key::<ProbeRead>(dir), dir, 0);
    0
}

/// `ext4_free_inode(struct inode *inode)`: an inode without a name is removed, however it lost the name.
#[raw_tracepoint(tracepoint = "ext4_free_inode")]
fn tp_ext4_free_inode(ctx: RawTracePointContext) -> i32 {
    let inode = KernelPtr(ctx.arg::<*const u8>(0));
    // The directory is no longer known.
    let nowhere = FileKey { ino: 0, generation: 0, dev: file_key::<ProbeRead>(inode).dev };
    count_and_emit(&ProcFileKey::new(current_proc(), nowhere), 0, &Entries::REMOVED);
    0
}
