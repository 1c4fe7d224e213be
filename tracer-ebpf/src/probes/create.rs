//! Created files and directories.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_func_ret;
use aya_ebpf::macros::{fexit, kprobe, kretprobe, raw_tracepoint};
use aya_ebpf::programs::{FExitContext, ProbeContext, RawTracePointContext, RetProbeContext};
use tracer_common::{FileKey, ProcFileKey};

use super::write_errors::{count_failure_on, is_out_of_space};
use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read, any_dentry, current_proc, file_key, is_regular,
};
use crate::maps::created::{LAST_CREATE_DEV, count_created};
use crate::maps::events::NAMED;
use crate::maps::in_flight::hook;
use crate::{inflight, names, process};

/// `int X_create(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry, umode_t mode,
/// bool excl)` and `X_mkdir(idmap, dir, dentry, mode)`; before 5.12 without the first argument.
/// From 6.15 on, mkdir returns a dentry; an error pointer, too, has the error in its lower half.
/// One program for each signature: if it were chosen at run time, the compiler would load from a
/// computed address, which the verifier rejects.
macro_rules! creates {
    ($($name:ident: $dir:literal of $arguments:literal, $is_file:literal;)+) => {$(
        #[fexit]
        fn $name(ctx: FExitContext) -> i32 {
            let dir = KernelPtr(ctx.arg::<*const u8>($dir));
            on_created(directory_key::<BtfRead>(dir), dir, ctx.arg::<u64>($arguments), $is_file);
            0
        }
    )+};
}

creates! {
    fexit_create_v6_14: 1 of 5, true;
    fexit_create_v5_11: 0 of 4, true;
    fexit_mkdir_v6_14: 1 of 4, false;
    fexit_mkdir_v5_11: 0 of 3, false;
}

/// The same since 6.15, when mkdir began to return a pointer, on which the verifier allows no
/// arithmetic; create lost its last argument later. So the result is read with bpf_get_func_ret
/// (5.17).
macro_rules! creates_by_result {
    ($($name:ident: $is_file:literal;)+) => {$(
        #[fexit]
        fn $name(ctx: FExitContext) -> i32 {
            let dir = KernelPtr(ctx.arg::<*const u8>(1));
            let mut result = 0u64;
            // SAFETY: the program's own context, and a valid place for the result.
            unsafe { bpf_get_func_ret(ctx.as_ptr(), &raw mut result) };
            on_created(directory_key::<BtfRead>(dir), dir, result, $is_file);
            0
        }
    )+};
}

creates_by_result! {
    fexit_create: true;
    fexit_mkdir: false;
}

/// Entry of create or mkdir: stores the directory.
macro_rules! creates_by_kprobe {
    ($($name:ident: $dir:literal, $hook:ident;)+) => {$(
        #[kprobe]
        fn $name(ctx: ProbeContext) -> u32 {
            let dir = KernelPtr(ctx.arg::<*const u8>($dir).unwrap_or(core::ptr::null()));
            inflight::enter(hook::$hook, directory_key::<ProbeRead>(dir), dir);
            0
        }
    )+};
}

creates_by_kprobe! {
    kprobe_create: 1, CREATE;
    kprobe_create_v5_11: 0, CREATE;
    kprobe_mkdir: 1, MKDIR;
    kprobe_mkdir_v5_11: 0, MKDIR;
}

/// See [`kprobe_create`].
#[kretprobe]
fn kretprobe_create(ctx: RetProbeContext) -> u32 {
    if let Some(call) = inflight::take(hook::CREATE) {
        on_created(call.key, KernelPtr::from_addr(call.object), ctx.ret::<u64>(), true);
    }
    0
}

/// See [`kprobe_mkdir`].
#[kretprobe]
fn kretprobe_mkdir(ctx: RetProbeContext) -> u32 {
    if let Some(call) = inflight::take(hook::MKDIR) {
        on_created(call.key, KernelPtr::from_addr(call.object), ctx.ret::<u64>(), false);
    }
    0
}

/// `ext4_request_inode(struct inode *dir, int mode)`: records the device, in case the call fails.
#[raw_tracepoint(tracepoint = "ext4_request_inode")]
fn tp_ext4_request_inode(ctx: RawTracePointContext) -> i32 {
    let dir = KernelPtr(ctx.arg::<*const u8>(0));
    let dev = file_key::<ProbeRead>(dir).dev;
    let _ = LAST_CREATE_DEV.insert(bpf_get_current_pid_tgid(), dev, 0);
    0
}

/// `ext4_allocate_inode(struct inode *inode, struct inode *dir, int mode)`
#[raw_tracepoint(tracepoint = "ext4_allocate_inode")]
fn tp_ext4_allocate_inode(ctx: RawTracePointContext) -> i32 {
    let dir = KernelPtr(ctx.arg::<*const u8>(1));
    if is_regular::<ProbeRead>(KernelPtr(ctx.arg::<*const u8>(0))) {
        on_created(directory_key::<ProbeRead>(dir), dir, 0, true);
    }
    0
}

#[inline(always)]
fn directory_key<R: Read>(dir: KernelPtr) -> ProcFileKey {
    ProcFileKey::new(current_proc(), file_key::<R>(dir))
}

/// Handles the return of a create or mkdir in `dir`.
#[inline(always)]
fn on_created(key: ProcFileKey, dir: KernelPtr, result: u64, is_file: bool) {
    let error = i64::from(result as i32);
    if is_out_of_space(error) {
        count_failure_on(key.dev, error);
    } else if is_file && result as i32 == 0 {
        count_and_emit(&key, dir.addr());
    }
}

#[inline(never)]
fn count_and_emit(key: &ProcFileKey, dir: u64) {
    if !count_created(key) {
        return;
    }
    let file: FileKey = key.file();
    if NAMED.get_ptr(file).is_none() {
        names::emit_path_walk(any_dentry(KernelPtr::from_addr(dir)).addr());
    }
    process::emit_process_once(key.process());
}
