//! Processes that wait: fsync with its duration, and writers that the kernel throttles.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint};
use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
};
use tracer_common::waits::{WAIT_CELLS, wait_cell};
use tracer_common::{ProcFileKey, ProcKey, SelfStat, WaitKey, WaitKind};

use crate::account::account_error;
use crate::atomic::atomic_add;
use crate::filesystem::OVERLAY_MAGIC;
use crate::kernel_read::{KernelPtr, ProbeRead, Read, current_proc, file_key, magic, offset};
use crate::maps::flags::BPF_NOEXIST;
use crate::maps::health::self_stat_add;
use crate::maps::in_flight::{InFlight, hook};
use crate::maps::latency::{WAITS_A, WAITS_B, WAITS_SCRATCH};
use crate::maps::slots::first_is_active;
use crate::{inflight, process};

/// A filesystem's `int fsync(struct file *file, loff_t start, loff_t end, int datasync)`. Not
/// vfs_fsync_range, which compilers inline in some places: on 6.1, a hook there sees fsync but not
/// fdatasync.
#[fentry]
fn fentry_file_fsync(ctx: FEntryContext) -> i32 {
    fsync_enter(KernelPtr(ctx.arg::<*const u8>(0)));
    0
}

/// See [`fentry_file_fsync`].
#[fexit]
fn fexit_file_fsync(ctx: FExitContext) -> i32 {
    fsync_exit(ctx.arg::<i32>(4));
    0
}

/// See [`fentry_file_fsync`].
#[kprobe]
fn kprobe_file_fsync(ctx: ProbeContext) -> u32 {
    fsync_enter(KernelPtr(ctx.arg::<*const u8>(0).unwrap_or(core::ptr::null())));
    0
}

/// See [`fentry_file_fsync`].
#[kretprobe]
fn kretprobe_file_fsync(ctx: RetProbeContext) -> u32 {
    fsync_exit(ctx.ret::<i32>());
    0
}

/// `ext4_sync_file_enter(struct file *file, int datasync)`
#[raw_tracepoint(tracepoint = "ext4_sync_file_enter")]
fn tp_ext4_sync_file_enter(ctx: RawTracePointContext) -> i32 {
    fsync_enter(KernelPtr(ctx.arg::<*const u8>(0)));
    0
}

/// `ext4_sync_file_exit(struct inode *inode, int ret)`
#[raw_tracepoint(tracepoint = "ext4_sync_file_exit")]
fn tp_ext4_sync_file_exit(ctx: RawTracePointContext) -> i32 {
    fsync_exit(ctx.arg::<u64>(1) as i32);
    0
}

/// `balance_dirty_pages(struct bdi_writeback *wb, …, long pause, unsigned long start_time)`: it had
/// 12 arguments, and has 8 since some of them were put into a struct. `pause` is in jiffies.
macro_rules! balance_dirty_pages {
    ($name:ident, $pause:literal) => {
        #[raw_tracepoint(tracepoint = "balance_dirty_pages")]
        fn $name(ctx: RawTracePointContext) -> i32 {
            on_throttled(KernelPtr(ctx.arg::<*const u8>(0)), ctx.arg::<i64>($pause));
            0
        }
    };
}

balance_dirty_pages!(tp_balance_dirty_pages_12, 10);
balance_dirty_pages!(tp_balance_dirty_pages_8, 6);

#[inline(always)]
fn fsync_enter(file: KernelPtr) {
    let inode = ProbeRead::follow(file, offset!(file_inode));
    // An overlay's fsync calls that of the filesystem below.
    if magic::<ProbeRead>(inode) == OVERLAY_MAGIC {
        return;
    }
    let key = ProcFileKey::new(current_proc(), file_key::<ProbeRead>(inode));
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let dentry = ProbeRead::follow(file, offset!(file_dentry));
    let call = InFlight { key, object: dentry.addr(), extra: now };
    inflight::insert(hook::FSYNC, call);
}

#[inline(always)]
fn fsync_exit(result: i32) {
    let Some(call) = inflight::take(hook::FSYNC) else { return };
    // SAFETY: a helper without arguments.
    let took = unsafe { bpf_ktime_get_ns() }.wrapping_sub(call.extra);
    let (proc, file) = (call.key.process(), call.key.file());
    add_wait(proc, file.dev, WaitKind::Fsync, took);
    if result < 0 {
        account_error(proc, file, i64::from(result));
    }
}

#[inline(always)]
fn on_throttled(wb: KernelPtr, pause: i64) {
    // Not positive: no pause, only a check.
    if pause <= 0 {
        return;
    }
    let bdi = ProbeRead::follow(wb, offset!(wb_bdi));
    let device = ProbeRead::follow(bdi, offset!(bdi_dev));
    let dev = ProbeRead::read::<u32>(device, offset!(device_devt));
    add_wait(current_proc(), dev, WaitKind::Throttle, pause as u64);
}

/// Adds one wait; `length` is in nanoseconds for an fsync, in jiffies for a throttled writer.
#[inline(always)]
fn add_wait(proc: ProcKey, dev: u32, kind: WaitKind, length: u64) {
    let key = WaitKey { start_ns: proc.start_ns, tgid: proc.tgid, dev, kind: kind as u32, pad: 0 };
    let first = first_is_active();
    self_stat_add(if first { SelfStat::UsedWaitsA } else { SelfStat::UsedWaitsB }, 1);
    let map = if first { &WAITS_A } else { &WAITS_B };
    if map.get_ptr(key).is_none() {
        let Some(zero) = WAITS_SCRATCH.get_ptr(0) else { return };
        // SAFETY: a map value that no program writes.
        let _ = map.insert(key, unsafe { &*zero }, BPF_NOEXIST);
        process::emit_process_once(proc);
    }
    let Some(waits) = map.get_ptr_mut(key) else {
        self_stat_add(SelfStat::OtherWaits, 1);
        return;
    };
    // SAFETY: fields of a valid map value. The maximum is not atomic: if two waits end at the same
    // instant on two CPUs, the shorter one may win.
    unsafe {
        atomic_add(&raw mut (*waits).count, 1);
        atomic_add(&raw mut (*waits).total, length);
        if length > (*waits).max {
            (*waits).max = length;
        }
        if let WaitKind::Fsync = kind {
            let cell = wait_cell(length / 1_000) as usize;
            if cell < WAIT_CELLS {
                let cell = (&raw mut (*waits).cells).cast::<u32>().add(cell);
                *cell = (*cell).wrapping_add(1);
            }
        }
    }
}
