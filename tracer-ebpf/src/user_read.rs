//! Reads of the current process's own memory.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_user;

/// What is at an address, or zeroes where it is not in memory. `T` is of integers alone.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the source, and zeroes the destination when it cannot be read; of integers
    // zeroes are valid.
    unsafe {
        bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}
