//! Arrays of the kernel side that are mapped: no system call per entry, and none while which the kernel
//! skips programs.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use bytemuck::AnyBitPattern;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Is it only read, or written, too?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is only read.
    Read,
    /// It is written, too.
    Write,
}

/// A whole array map of values whose size is a multiple of eight bytes, or of one value.
pub struct Mapped<T> {
    cells: NonNull<T>,
    len: usize,
    _values: PhantomData<T>,
}

// SAFETY: reads and writes are volatile and of plain values, valid from any thread.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: AnyBitPattern> Mapped<T> {
    /// Maps it.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn new(map: BorrowedFd<'_>, len: usize, access: Access) -> io::Result<Self> {
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

    /// How many cells there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// One cell, which the kernel may write meanwhile.
    ///
    /// # Panics
    /// If there is none of this number.
    pub fn cell(&self, index: usize) -> *mut T {
        assert!(index < self.len, "cell {index} of {}", self.len);
        // SAFETY: within the mapping, which lives as long as `self`.
        unsafe { self.cells.add(index) }.as_ptr()
    }

    /// A copy of one cell.
    ///
    /// # Panics
    /// If there is none of this number.
    pub fn get(&self, index: usize) -> T {
        // SAFETY: aligned and mapped; volatile because the kernel writes it meanwhile. All bit patterns are
        // valid.
        unsafe { std::ptr::read_volatile(self.cell(index)) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        let result = unsafe { munmap(self.cells.as_ptr().cast(), self.len * size_of::<T>()) };
        debug_assert!(result.is_ok());
    }
}
