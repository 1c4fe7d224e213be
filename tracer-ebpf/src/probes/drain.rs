//! Drains maps for the daemon, with iterators over a map's elements (`bpf_iter_bpf_map_elem`, 5.9)
//! and with a program that the daemon runs itself.
//!
//! The system calls that could do it are not used: while one of them reads a hash map, the kernel
//! skips the programs of kprobes on that CPU (`bpf_disable_instrumentation`, kernel/bpf/syscall.c).
//! Where tasks can be preempted in the kernel, the daemon can be preempted there, and writes on
//! that CPU are missed meanwhile.

use aya_ebpf::helpers::generated::bpf_seq_write;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::{
    BtrfsFile, Counters, Entries, ErrorKey, Errors, FileKey, ProcFileKey, WaitKey, Waits,
};

use crate::kernel_read::{BtfRead, KernelPtr, Read};
use crate::maps::btrfs::{SAVED_A, SAVED_B};
use crate::maps::created::{CREATED_A, CREATED_B};
use crate::maps::errors::{ERRORS_A, ERRORS_B};
use crate::maps::events::NAMED;
use crate::maps::inodes::SHARED;
use crate::maps::latency::{WAITS_A, WAITS_B};
use crate::maps::slots::{SPILL_A, SPILL_B, first_is_active};

/// `struct bpf_iter__bpf_map_elem`
#[repr(C)]
pub struct MapElemCtx {
    /// `struct bpf_iter_meta *`, whose first field is the `struct seq_file *`.
    meta: *const u8,
    /// `struct bpf_map *`
    map: *const u8,
    /// Null at the end.
    key: *const u8,
    /// Null at the end.
    value: *const u8,
}

/// The kernel continues with the next element.
const NEXT: i32 = 0;
/// The kernel discards what was written for this element, and calls the program for it again.
const RETRY: i32 = 1;

/// Writes the element's key and value, and removes it from its map with `remove`. If it does not
/// fit, the element stays.
#[inline(always)]
fn drain<K: Copy, V>(ctx: *const MapElemCtx, remove: impl FnOnce(&K) -> bool) -> i32 {
    // SAFETY: the context that the kernel passes.
    let MapElemCtx { meta, key, value, .. } = unsafe { core::ptr::read(ctx) };
    if key.is_null() || value.is_null() {
        return NEXT;
    }
    let seq = BtfRead::follow(KernelPtr(meta), 0).0.cast_mut();
    // SAFETY: a key of the map that the iterator was created for. Helpers accept a key only from
    // the stack.
    let owned_key: K = unsafe { core::ptr::read(key.cast()) };
    // SAFETY: a typed pointer, and the map's own key and value. Data that does not fit marks the
    // seq_file as overflowed, and the kernel calls the program for the element again.
    let fits = unsafe {
        bpf_seq_write(seq.cast(), key.cast_mut().cast(), size_of::<K>() as u32) == 0
            && bpf_seq_write(seq.cast(), value.cast_mut().cast(), size_of::<V>() as u32) == 0
    };
    // Reporting an entry without removing it would report it twice.
    if fits && !remove(&owned_key) { RETRY } else { NEXT }
}

/// Drains the inactive map of a pair, to which no program adds any more.
#[inline(always)]
fn drain_inactive<K: Copy, V>(
    ctx: *const MapElemCtx,
    first: &HashMap<K, V>,
    second: &HashMap<K, V>,
) -> i32 {
    drain::<K, V>(ctx, |key| {
        if first_is_active() { second.remove(key).is_ok() } else { first.remove(key).is_ok() }
    })
}

/// Drains the inactive spill map.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn iter_spill(ctx: *const MapElemCtx) -> i32 {
    drain_inactive::<ProcFileKey, Counters>(ctx, &SPILL_A, &SPILL_B)
}

/// Drains the inactive map of waits.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn iter_waits(ctx: *const MapElemCtx) -> i32 {
    drain_inactive::<WaitKey, Waits>(ctx, &WAITS_A, &WAITS_B)
}

/// Drains the inactive map of created files.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn iter_created(ctx: *const MapElemCtx) -> i32 {
    drain_inactive::<ProcFileKey, Entries>(ctx, &CREATED_A, &CREATED_B)
}

/// Drains the inactive map of what compression saved.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn iter_saved(ctx: *const MapElemCtx) -> i32 {
    drain_inactive::<BtrfsFile, u64>(ctx, &SAVED_A, &SAVED_B)
}

/// Drains the inactive map of failed writes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn iter_errors(ctx: *const MapElemCtx) -> i32 {
    drain_inactive::<ErrorKey, Errors>(ctx, &ERRORS_A, &ERRORS_B)
}

/// Drains the files that share space with others.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn iter_shared(ctx: *const MapElemCtx) -> i32 {
    // A file that is added again meanwhile is reported, at the latest now.
    drain::<FileKey, u32>(ctx, |key| {
        let _ = SHARED.remove(key);
        true
    })
}

/// Makes the kernel side send a file's name again. Not attached: the daemon runs it
/// (BPF_PROG_TEST_RUN), with the fields of the file's [`FileKey`] as arguments.
#[raw_tracepoint]
fn run_forget_name(ctx: RawTracePointContext) -> i32 {
    let key =
        FileKey { ino: ctx.arg::<u64>(0), generation: ctx.arg::<u32>(1), dev: ctx.arg::<u32>(2) };
    // It may have been evicted already.
    let _ = NAMED.remove(key);
    0
}
