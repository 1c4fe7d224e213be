//! Hooks that do nothing: the floor that `cargo xtask bench` holds the real ones against. filltop
//! never loads them; the example `floor` does.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};

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
