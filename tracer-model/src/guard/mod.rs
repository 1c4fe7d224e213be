//! The guard: decides which action to take next when a volume is about to be full and one group fills
//! it, and why no other group is chosen.
//!
//! Pure: takes a time, a [`Snapshot`](crate::snapshot::Snapshot) and the suspensions in force, returns
//! [`Decision`]s. The caller carries them out and reports the results with
//! [`Policy::record_result`]. `docs/actions.md` describes the rules for users.

pub mod config;
mod decision;
mod exclusions;
mod message;
mod policy;
mod shares;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use self::config::{GuardConfig, Seconds};
pub use self::decision::{ActionResult, Decision, Excluded};
pub use self::policy::Policy;
