//! Atomic operations on map values.

use core::arch::asm;

use crate::kernel_read::config;

/// Stores to a field of a map value, in the order of the program (volatile).
#[inline(always)]
pub fn store<T>(cell: *mut T, value: T) {
    // SAFETY: a field of a map value.
    unsafe { core::ptr::write_volatile(cell, value) };
}

/// Adds `n` to a map value: a relaxed add whose result is not used (BPF_XADD). 5.10 has that; it
/// rejects a fetch_add. Inline assembly, because core offers no atomic add for this target.
#[inline(always)]
pub fn atomic_add(cell: *mut u64, n: u64) {
    // SAFETY: a field of a map value, aligned to 8.
    unsafe {
        asm!("lock *(u64 *)({cell} + 0) += {n}", cell = in(reg) cell, n = in(reg) n);
    }
}

/// Replaces a map value if it is still `old`, and returns whether it was. Atomic where BPF has an
/// exchange (5.12); before that, it always replaces the value.
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
