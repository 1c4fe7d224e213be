//! The supervisor: a small process that suspends a target and is responsible for resuming it.
//!
//! It resumes the target on request (SIGTERM, sent by `filltop resume`), at the time limit, when its
//! owner exits (for the screen and the guard, detected by the end of a socket), and when no process of
//! the target is left. A watchdog process monitors it and resumes the target in its place if it is
//! killed or hangs. Both have their memory locked and are exempt from the OOM killer.

pub(crate) mod client;
pub(crate) mod end_reason;
mod harden;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod signals;
mod watchdog;
