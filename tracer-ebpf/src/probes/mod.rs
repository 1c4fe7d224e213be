//! Hooks: one file for each backend (fentry, kprobe, tracepoint), and one for each topic. They
//! unpack arguments and call the accounting core.

mod bench_baseline;
mod btrfs_compression;
mod create;
mod drain;
mod fallocate;
mod fentry;
mod io_uring;
mod kprobe;
mod latency;
mod mmap;
mod open_files;
mod rename;
pub mod shared;
mod syscall_exit;
mod tracepoint;
mod write_errors;
