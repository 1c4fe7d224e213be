//! Scratch buffers to build records in: the stack of 512 bytes is too small.
//!
//! Several for each CPU: where the kernel is fully preemptible, a program can be preempted, and
//! another one can run on the same CPU.

use aya_ebpf::maps::PerCpuArray;
use tracer_common::records::PlaceRecord;
use tracer_common::{NameRecord, ProcRecord};

use crate::atomic::exchange;

/// Buffers of each pool and CPU: how many programs can be preempted at the same time.
pub const SCRATCH_BUFFERS: u32 = 4;

/// One buffer.
#[repr(C)]
pub struct ScratchBuffer<T> {
    /// The record being built.
    pub value: T,
    /// 1 while the buffer is in use.
    busy: u64,
}

/// A name record, and the position of the walk that sends it.
#[repr(C)]
pub struct NameWork {
    /// The record to send.
    pub record: NameRecord,
    /// `struct dentry *` of the next component; 0 at the end.
    pub next: u64,
}

/// A place record, and the state of the search for the directory in its path. Here and not in
/// variables: the verifier would follow each of their values.
#[repr(C)]
pub struct PlaceWork {
    /// The record to send.
    pub record: PlaceRecord,
    /// Hash of the path up to the present byte.
    pub hash: u32,
    /// Hash of the directory.
    pub dir_hash: u32,
    /// 1 if the last byte was a slash.
    pub after_slash: u32,
    /// Always 0.
    pub pad: u32,
}

/// A pool of buffers for `T`.
pub type ScratchPool<T> = PerCpuArray<ScratchBuffer<T>>;

/// The pool for process records.
pub type ProcScratchPool = ScratchPool<ProcRecord>;

/// Takes a buffer. Returns its number, which [`release`] needs; `None` if all are in use.
#[inline(always)]
pub fn acquire<T>(pool: &'static ScratchPool<T>) -> Option<u32> {
    for number in 0..SCRATCH_BUFFERS {
        let buffer = pool.get_ptr_mut(number)?;
        // SAFETY: a field of a map value.
        if exchange(unsafe { &raw mut (*buffer).busy }, 0, 1) {
            return Some(number);
        }
    }
    None
}

/// Returns a buffer to its pool.
#[inline(always)]
pub fn release<T>(pool: &'static ScratchPool<T>, number: u32) {
    if let Some(buffer) = pool.get_ptr_mut(number) {
        // SAFETY: a field of a map value; volatile, so that it comes after all uses of the buffer.
        unsafe { core::ptr::write_volatile(&raw mut (*buffer).busy, 0) };
    }
}

/// The content of a buffer that was acquired.
#[inline(always)]
pub fn get<T>(pool: &'static ScratchPool<T>, number: u32) -> Option<&'static mut T> {
    // SAFETY: a valid pointer from the map, which no other program uses until the buffer is
    // released.
    pool.get_ptr_mut(number).map(|buffer| unsafe { &mut (*buffer).value })
}
