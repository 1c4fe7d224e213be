//! Atomic operations on map values.

use core::arch::asm;

use crate::kernel_read::config;

#[inline(always)]
pub fn store<T>(cell: *mut T, value: T) {
    // SAFETY: a field of a map value.
    unsafe { core::ptr::write_volatile(cell, value) };
}

/// A relaxed add whose result is not used: BPF_XADD, which 5.10 has (it refuses fetch_add). Inline
/// assembly because core offers no atomic add for this target.
#[inline(always)]
pub fn atomic_add(cell: *mut u64, n: u64) {
    // SAFETY: a field of a map value, aligned to 8.
    unsafe {
        asm!("lock *(u64 *)({cell} + 0) += {n}", cell = in(reg) cell, n = in(reg) n);
    }
}

/// Puts a value into a map's cell if the old one is still there, atomically where BPF can (5.12);
/// before that always.
#[inline(always)]
pub fn exchange(cell: *mut u64, old: u64, new: u64) -> bool {
    if config!(has_cmpxchg) != 0 {
        let found: u64;
        // SAFETY: a field of a map value, aligned to 8.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({cell} + 0, r0, {new})",
                cell = in(reg) cell,
                new = in(reg) new,
                inout("r0") old => found,
            );
        }
        found == old
    } else {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(cell, new) };
        true
    }
}
