//! Alerts: rules over Snapshots, and the events that come of them.
//!
//! Pure: a [`Moment`], a Snapshot and the sizes of declared directories go in, [`Event`]s come out.
//! There is no clock, no file and no socket in here, so that a recorded history gives the alerts
//! that the live program gave. `docs/alerts.md` says how to write rules, `docs/decisions/alerts.md`
//! why they behave as they do.

mod blind;
mod culprits;
mod engine;
mod event;
mod health;
mod latch;
mod measure;
mod message;
pub mod replay;
mod rule;
mod rule_state;
pub mod sizes;
mod state;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use blind::{blind, unexplained};
pub use engine::{Engine, Standing};
pub use event::{Event, EventKind, Severity, Suggestion};
pub use rule::{Glob, Quiet, Rule, When};

/// When a Snapshot was looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Seconds on a clock that never steps: all waiting is measured by it.
    pub steady_s: f64,
    /// What the wall clock says; it may step.
    pub wall: Timestamp,
    /// Minute of the day in local time, 0..1440, for quiet hours.
    pub minute: u16,
}
