//! Attaches each hook with the first method that works: fexit, then kprobe, then tracepoint.

pub(crate) mod error;
pub(crate) mod fallback;
pub(crate) mod fs_coverage;
pub(crate) mod fs_handling;
pub(crate) mod hook_log;
pub(crate) mod manager;
pub(crate) mod optional_hooks;
pub(crate) mod parallel_load;
pub(crate) mod raw_loader;
pub(crate) mod space;
pub(crate) mod syscall_fallback;
