//! The kernel side as user space sees it: attaching programs, and reading their maps.

#![warn(unreachable_pub)]

pub(crate) mod attach;
pub(crate) mod btf;
pub mod capabilities;
pub mod coverage;
pub mod fence;
pub(crate) mod hooks;
pub(crate) mod kernel_config;
pub(crate) mod kernel_version;
pub(crate) mod loader;
pub(crate) mod object;
pub mod open_files;
pub(crate) mod options;
pub(crate) mod overlay;
pub(crate) mod preemption;
pub(crate) mod preflight;
pub mod quotas;
pub mod read;
pub mod self_overhead;
#[cfg(test)]
mod stack_tests;
pub(crate) mod sys;

pub use self::loader::Tracer;
pub use self::options::TracerOptions;
