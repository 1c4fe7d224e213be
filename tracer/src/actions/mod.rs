//! Actions: target → plan (pure, in `tracer_model::action`) → audit line → carry out → undo.
//!
//! An action that can be undone is carried out by a supervisor ([`supervisor`]): a small process that
//! records what it suspends and resumes it at the time limit. A watchdog process does that in its
//! place if the supervisor is killed. docs/actions.md lists which process is responsible for what, and
//! within which time.

pub(crate) mod audit;
pub(crate) mod bridge;
pub(crate) mod engine;
mod executor;
mod facts;
mod fence;
pub(crate) mod foreground;
mod freezer;
pub(crate) mod guard;
pub(crate) mod guard_config;
pub(crate) mod helper;
mod members;
mod names;
mod outcome;
mod pins;
pub(crate) mod record;
pub(crate) mod request;
mod restart;
pub(crate) mod resume;
mod resume_guarantee;
pub(crate) mod supervisor;
mod suspend;
pub(crate) mod target;
mod terminate;
pub(crate) mod text;
mod throttle;
mod truncate;
mod unit;
