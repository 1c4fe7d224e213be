//! The kernel side as user space sees it: attaching programs, and reading their maps.

pub(crate) mod attach;
pub mod btf;
pub mod capabilities;
pub mod coverage;
pub mod fence;
pub mod hooks;
pub(crate) mod kernel_config;
pub(crate) mod kernel_version;
pub mod loader;
pub(crate) mod object;
pub(crate) mod options;
pub(crate) mod overlay;
pub(crate) mod preemption;
pub mod preflight;
pub mod read;
pub mod self_overhead;
#[cfg(test)]
mod stack_tests;
pub mod sys;

pub use self::loader::{Tracer, slots_per_cpu};
pub use self::options::TracerOptions;
