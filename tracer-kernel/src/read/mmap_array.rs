//! Array maps that are mapped into memory: no system call per entry, and none during which the
//! kernel skips programs.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use bytemuck::AnyBitPattern;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Access to the mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// A memory-mapped array map. The size of a value must be a multiple of eight bytes, unless there
/// is only one value.
pub(crate) struct MmapArray<T> {
    cells: NonNull<T>,
    len: usize,
    _values: PhantomData<T>,
}

// SAFETY: reads and writes are volatile and of plain values, valid from any thread.
unsafe impl<T: Send> Send for MmapArray<T> {}

impl<T: AnyBitPattern> MmapArray<T> {
    /// Maps the whole array.
    ///
    /// # Errors
    /// The error of mmap(2).
    pub(crate) fn new(map: BorrowedFd<'_>, len: usize, access: Access) -> io::Result<Self> {
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            let bytes = len * size_of::<T>();
            mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, map, 0)?
        };
        let cells = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { cells, len, _values: PhantomData })
    }

    /// Returns the number of cells.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Returns a pointer to one cell. The kernel may write the cell concurrently.
    ///
    /// # Panics
    /// If the index is out of bounds.
    pub(crate) fn cell(&self, index: usize) -> *mut T {
        assert!(index < self.len, "cell {index} of {}", self.len);
        // SAFETY: within the mapping, which lives as long as `self`.
        unsafe { self.cells.add(index) }.as_ptr()
    }

    /// Returns a copy of one cell.
    ///
    /// # Panics
    /// If the index is out of bounds.
    pub(crate) fn get(&self, index: usize) -> T {
        // SAFETY: aligned and mapped; volatile because the kernel writes it concurrently. All bit
        // patterns are valid.
        unsafe { std::ptr::read_volatile(self.cell(index)) }
    }
}

impl<T> Drop for MmapArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        let result = unsafe { munmap(self.cells.as_ptr().cast(), self.len * size_of::<T>()) };
        debug_assert!(result.is_ok());
    }
}
