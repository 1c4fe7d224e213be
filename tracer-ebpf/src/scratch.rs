//! ScratchBuffer to build records in, which the stack of 512 bytes has not.
//!
//! Per CPU, and several each: where the kernel is fully preemptible, a program may be put aside in
//! the middle and another one run on its CPU.

use aya_ebpf::maps::PerCpuArray;
use tracer_common::{NameRecord, ProcRecord};

use crate::atomic::exchange;

/// ScratchPool of one kind per CPU: programs that may be put aside at the same time.
pub const SCRATCH_BUFFERS: u32 = 4;

/// One room.
#[repr(C)]
pub struct ScratchBuffer<T> {
    /// What is built in it.
    pub value: T,
    /// 1 while it is taken.
    busy: u64,
}

/// A name, and where the walk that sends it is.
#[repr(C)]
pub struct NameWork {
    /// What is sent.
    pub record: NameRecord,
    /// `struct dentry *` of the component that is next; 0 at the end.
    pub next: u64,
}

/// ScratchPool of one kind.
pub type ScratchPool<T> = PerCpuArray<ScratchBuffer<T>>;

/// ScratchPool for processes.
pub type ProcScratchPool = ScratchPool<ProcRecord>;

/// Takes a room: its number, to be given to [`release`].
#[inline(always)]
pub fn acquire<T>(rooms: &'static ScratchPool<T>) -> Option<u32> {
    for number in 0..SCRATCH_BUFFERS {
        let room = rooms.get_ptr_mut(number)?;
        // SAFETY: a field of a map value.
        if exchange(unsafe { &raw mut (*room).busy }, 0, 1) {
            return Some(number);
        }
    }
    None
}

/// Gives it back.
#[inline(always)]
pub fn release<T>(rooms: &'static ScratchPool<T>, number: u32) {
    if let Some(room) = rooms.get_ptr_mut(number) {
        // SAFETY: a field of a map value; volatile, so that it comes after what was done there.
        unsafe { core::ptr::write_volatile(&raw mut (*room).busy, 0) };
    }
}

/// What is in a room that was taken.
#[inline(always)]
pub fn get<T>(rooms: &'static ScratchPool<T>, number: u32) -> Option<&'static mut T> {
    // SAFETY: a valid pointer from the map, which nobody else uses until the room is left.
    rooms.get_ptr_mut(number).map(|room| unsafe { &mut (*room).value })
}
