//! filltop's kernel side.
//!
//! The probes in [`probes`] only unpack their arguments. [`account`] is the accounting core: all
//! probes call it with what was *really* written. Counts live in maps, never in event streams. The
//! ring buffer carries only rare records: names of new files, new writers, ended processes.

#![no_std]
#![no_main]
// For the atomic operations in atomic.rs and the loads in kernel_read.rs.
#![feature(asm_experimental_arch)]

mod account;
mod atomic;
mod behind;
mod cgroups;
mod charge;
mod counted;
mod entries;
mod errno;
mod event;
mod fast_path;
mod filesystem;
mod inflight;
mod inode_usage;
mod kernel_read;
mod maps;
mod names;
mod overlay;
mod place;
mod probes;
mod process;
mod scratch;
mod space;
mod syscall;
mod user_read;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier rejects programs that could panic, and rustc removes this
    // function.
    loop {}
}

/// Some helpers are available only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
