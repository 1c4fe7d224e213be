//! The slot table, read through mmap: no system call per entry.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};

use tracer_common::Slot;

use super::mmap_array::{Access, MmapArray};

/// A read-only view of the map `SLOTS`; index = cpu × slots per CPU + slot.
pub(crate) struct SlotTable(MmapArray<Slot>);

impl SlotTable {
    /// Maps the whole table.
    ///
    /// # Errors
    /// The error of mmap(2).
    pub(crate) fn map(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Ok(Self(MmapArray::new(map, len, Access::Read)?))
    }

    /// Returns copies of all slots that ever had an occupant, with their index.
    pub(crate) fn occupied(&self) -> impl Iterator<Item = (usize, Slot)> + '_ {
        (0..self.0.len()).filter_map(|index| {
            let cell = self.cell(index);
            (cell.seq != 0).then_some((index, cell))
        })
    }

    /// Returns a consistent copy of one slot. A fully preemptible kernel may preempt the program
    /// that gives the slot to another occupant, possibly for long; then the copy has no counts and
    /// an odd `seq`.
    fn cell(&self, index: usize) -> Slot {
        const TRIES: u32 = 1_000;
        let cell = self.0.cell(index);
        for _ in 0..TRIES {
            // SAFETY: aligned and mapped; volatile because the kernel writes it concurrently. All
            // bit patterns are valid.
            let before = unsafe { std::ptr::read_volatile(&raw const (*cell).seq) };
            fence(Ordering::Acquire);
            // SAFETY: as above.
            let copy = unsafe { std::ptr::read_volatile(cell) };
            fence(Ordering::Acquire);
            // SAFETY: as above.
            let after = unsafe { std::ptr::read_volatile(&raw const (*cell).seq) };
            if before == after && before & 1 == 0 && copy.seq == before {
                return copy;
            }
            std::hint::spin_loop();
        }
        // SAFETY: as above.
        let seq = unsafe { std::ptr::read_volatile(&raw const (*cell).seq) };
        Slot { seq: seq | 1, ..Slot::default() }
    }
}
