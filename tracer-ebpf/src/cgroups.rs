//! Names of cgroup v2 directories. They are sent when they are created, as names of files are: a
//! container's cgroup may be gone before the daemon could look it up. The daemon reads those that
//! existed before.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel_str};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::offsets::Offsets;
use tracer_common::records::{CGROUP_DEV, NAME_BUFFER, NAME_MAX, WALK_STEPS_UNROLLED, name_flags};
use tracer_common::{FileKey, RecordKind, SelfStat};

use crate::kernel_read::{KernelPtr, ProbeRead, Read, config, offset};
use crate::maps::events::{NAME_SCRATCH, NAMED};
use crate::maps::health::self_stat_add;
use crate::names;
use crate::scratch::{self, NameWork};

/// `cgroup_mkdir(struct cgroup *cgrp, const char *path)`
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
fn tp_cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    let cgroup = KernelPtr(ctx.arg::<*const u8>(0));
    let root = ProbeRead::follow(cgroup, offset!(cgroup_root));
    if ProbeRead::read::<u32>(root, offset!(root_hierarchy)) == 0 {
        send_walk(ProbeRead::follow(cgroup, offset!(cgroup_kn)).addr());
    }
    0
}

#[inline(always)]
fn send_walk(node: u64) {
    let Some(mut buffer) = scratch::acquire(&NAME_SCRATCH) else {
        self_stat_add(SelfStat::RingFull, 1);
        return;
    };
    if let Some(work) = scratch::get(&NAME_SCRATCH, buffer) {
        work.next = node;
        if config!(has_loop) != 0 {
            // As in names::emit_path_walk.
            // SAFETY: the callback gets the number of the buffer, which outlives the call.
            unsafe {
                let callback = walk_step as *const () as *mut c_void;
                bpf_loop(WALK_STEPS_UNROLLED as u32, callback, (&raw mut buffer).cast(), 0);
            }
        } else {
            for _ in 0..WALK_STEPS_UNROLLED {
                if step(work) {
                    break;
                }
            }
        }
    }
    scratch::release(&NAME_SCRATCH, buffer);
}

/// `long callback(u32 index, void *ctx)` of bpf_loop; returns 1 to end the loop.
extern "C" fn walk_step(_index: u32, buffer: *mut u32) -> i64 {
    // SAFETY: the pointer that emit_path_walk passed.
    let buffer = unsafe { *buffer };
    scratch::get(&NAME_SCRATCH, buffer).map_or(1, |work| i64::from(step(work)))
}

/// Moves one step up. Returns whether it was the last.
#[inline(always)]
fn step(work: &mut NameWork) -> bool {
    let node = KernelPtr::from_addr(work.next);
    let record = &mut work.record;
    record.file = node_key(node);
    if NAMED.get_ptr(&record.file).is_some() {
        return true;
    }
    let parent = parent_of(node);
    record.header.kind = RecordKind::Name as u32;
    record.parent = node_key(parent);
    record.flags = if parent.is_null() { name_flags::ROOT } else { 0 };
    record.magic = 0;
    let name = ProbeRead::follow(node, offset!(kn_name));
    // SAFETY: the helper writes at most the 256 bytes of the destination and checks the source.
    let len = unsafe {
        bpf_probe_read_kernel_str(
            record.name.as_mut_ptr().cast(),
            NAME_BUFFER as u32,
            name.0.cast(),
        )
    };
    // The length includes the NUL; it is negative if the name cannot be read.
    record.header.len = if len > 0 { (len as u32).wrapping_sub(1) & NAME_MAX as u32 } else { 0 };
    if !names::emit_name(record) {
        self_stat_add(SelfStat::RingFull, 1);
        return true;
    }
    let _ = NAMED.insert(&record.file, 1, 0);
    work.next = parent.addr();
    parent.is_null()
}

#[inline(always)]
fn node_key(node: KernelPtr) -> FileKey {
    FileKey { ino: ProbeRead::read(node, offset!(kn_id)), generation: 0, dev: CGROUP_DEV }
}

#[inline(always)]
fn parent_of(node: KernelPtr) -> KernelPtr {
    let offset = if offset!(kn_parent) == Offsets::ABSENT {
        offset!(kn_parent_v6_15)
    } else {
        offset!(kn_parent)
    };
    ProbeRead::follow(node, offset)
}
