//! Actions: target → plan (pure, in `tracer_model::action`) → audit line → carry out → undo.
//!
//! An action that can be undone is carried out by a supervisor ([`keeper`]): a small process that
//! records what it suspends and resumes it at the time limit. A watchdog process does that in its
//! place if the supervisor is killed. docs/actions.md lists which process is responsible for what, and
//! within which time.

pub mod audit;
pub mod bridge;
pub mod engine;
pub mod executor;
pub mod facts;
pub mod fence;
pub mod footing;
pub mod foreground;
mod freezer;
pub mod guard;
pub mod guard_config;
mod harden;
pub mod helper;
pub mod members;
pub mod names;
pub mod pins;
pub mod record;
pub mod restart;
pub mod resume;
mod signals;
pub mod supervisor;
pub mod suspend;
pub mod target;
pub mod terminate;
pub mod text;
pub mod throttle;
pub mod truncate;
pub mod unit;
mod watchdog;
