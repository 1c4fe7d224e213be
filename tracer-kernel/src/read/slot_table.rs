//! The direct-mapped table, read through mmap: no system call per entry.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};

use tracer_common::Slot;

use super::mmap_array::{Access, Mapped};

/// A read-only view of the map `SLOTS`; index = cpu × slots per CPU + slot.
pub struct Table(Mapped<Slot>);

impl Table {
    /// Maps the whole array.
    ///
    /// # Errors
    /// What mmap says.
    pub fn map(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Ok(Self(Mapped::new(map, len, Access::Read)?))
    }

    /// Copies of all cells that ever had a tenant, with their index.
    pub fn occupied(&self) -> impl Iterator<Item = (usize, Slot)> + '_ {
        (0..self.0.len()).filter_map(|index| {
            let cell = self.cell(index);
            (cell.seq != 0).then_some((index, cell))
        })
    }

    /// A copy of one cell that was not changing hands while it was taken. Where a fully preemptible
    /// kernel has put the program aside that gives it to another tenant, which may last, a copy
    /// without counts, whose number is odd.
    fn cell(&self, index: usize) -> Slot {
        const TRIES: u32 = 1_000;
        let cell = self.0.cell(index);
        for _ in 0..TRIES {
            // SAFETY: aligned and mapped; volatile because the kernel writes it meanwhile. All bit
            // patterns are valid.
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
