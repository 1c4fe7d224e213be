//! Hooks that do nothing, and one that counts in the plainest way: the baseline for `cargo xtask
//! bench`. filltop never loads them; the example `floor` does.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{fexit, kprobe, kretprobe, raw_tracepoint};
use aya_ebpf::programs::{FExitContext, ProbeContext, RawTracePointContext, RetProbeContext};
use tracer_common::ProcFileKey;

use crate::atomic::atomic_add;
use crate::event::ZERO;
use crate::maps::slots::SPILL_A;

#[fexit]
fn empty_fexit(_: FExitContext) -> i32 {
    0
}

#[kprobe]
fn empty_kprobe(_: ProbeContext) -> u32 {
    0
}

#[kretprobe]
fn empty_kretprobe(_: RetProbeContext) -> u32 {
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
fn empty_raw_tp(_: RawTracePointContext) -> i32 {
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`: recognizes writes of one byte, without counting
/// them.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn filter_raw_tp(ctx: RawTracePointContext) -> i32 {
    i32::from(ctx.arg::<i64>(1) == 1)
}

/// Counts writes of one byte by process, in an entry that all CPUs share.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn hash_raw_tp(ctx: RawTracePointContext) -> i32 {
    let written: i64 = ctx.arg(1);
    if written != 1 {
        return 0;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let key = ProcFileKey { start_ns: 0, ino: 0, tgid, dev: 0, generation: 0, pad: 0 };
    match SPILL_A.get_ptr_mut(&key) {
        // SAFETY: a field of a valid map value.
        Some(counters) => unsafe { atomic_add(&raw mut (*counters).written, written as u64) },
        // The process's first write.
        None => drop(SPILL_A.insert(&key, &ZERO, 0)),
    }
    0
}
