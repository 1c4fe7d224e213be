//! Hooks: one file for each backend (fentry, kprobe, tracepoint), and one for each topic. They
//! unpack arguments and call the accounting core.

mod bench_baseline;
mod btrfs_compression;
mod create;
mod direct_io;
mod drain;
mod fallocate;
mod fentry;
mod io_uring;
mod kprobe;
mod latency;
mod mmap;
mod namespace;
mod open_files;
mod path_calls;
mod rename;
pub mod shared;
mod sigbus;
mod syscall_exit;
mod tracepoint;
mod unlinked;
