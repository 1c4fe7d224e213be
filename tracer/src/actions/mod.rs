//! Actions: target → plan (pure, in `tracer_model::action`) → audit line → carry out → undo.
//!
//! Whatever can be undone is done by a [`keeper`]: a small process that holds a record of what it
//! halts, lets it go on when it expires, and is watched by a second one that does so if the keeper
//! is killed. docs/actions.md says who answers for what, and how soon.

pub mod audit;
pub mod bridge;
pub mod engine;
pub mod executor;
pub mod facts;
pub mod fence;
pub mod footing;
pub mod foreground;
pub mod guard;
pub mod guard_config;
pub mod helper;
pub mod members;
pub mod names;
pub mod pins;
pub mod record;
pub mod restart;
pub mod resume;
pub mod supervisor;
pub mod suspend;
pub mod target;
pub mod terminate;
pub mod text;
pub mod throttle;
pub mod truncate;
pub mod unit;
mod watchdog;
