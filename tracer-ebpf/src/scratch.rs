//! Room to build records in, which the stack of 512 bytes has not.
//!
//! Per CPU, and several each: where the kernel is fully preemptible, a program may be put aside in
//! the middle and another one run on its CPU.

use aya_ebpf::maps::PerCpuArray;
use tracer_common::{NameRecord, ProcRecord};

use crate::atomic::exchange;

/// Rooms of one kind per CPU: programs that may be put aside at the same time.
pub const ROOMS: u32 = 4;

/// One room.
#[repr(C)]
pub struct Room<T> {
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

/// Rooms of one kind.
pub type Rooms<T> = PerCpuArray<Room<T>>;

/// Rooms for processes.
pub type ProcRooms = Rooms<ProcRecord>;

/// Takes a room: its number, to be given to [`leave`].
#[inline(always)]
pub fn enter<T>(rooms: &'static Rooms<T>) -> Option<u32> {
    for number in 0..ROOMS {
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
pub fn leave<T>(rooms: &'static Rooms<T>, number: u32) {
    if let Some(room) = rooms.get_ptr_mut(number) {
        // SAFETY: a field of a map value; volatile, so that it comes after what was done there.
        unsafe { core::ptr::write_volatile(&raw mut (*room).busy, 0) };
    }
}

/// What is in a room that was taken.
#[inline(always)]
pub fn inside<T>(rooms: &'static Rooms<T>, number: u32) -> Option<&'static mut T> {
    // SAFETY: a valid pointer from the map, which nobody else uses until the room is left.
    rooms.get_ptr_mut(number).map(|room| unsafe { &mut (*room).value })
}
