//! Alerts: rules evaluated on Snapshots, and the events that result.
//!
//! Pure: the input is a [`Moment`], a Snapshot and the sizes of declared directories, the output is
//! [`Event`]s. This module uses no clock, file or socket, so that replaying a recorded history
//! raises the same alerts as the live program. `docs/alerts.md` describes how to write rules,
//! `docs/decisions/alerts.md` the reasons for their behaviour.

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

/// The time at which a Snapshot is evaluated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Seconds on a clock that never steps; all delays are measured with it.
    pub steady_s: f64,
    /// Wall-clock time; it may step.
    pub wall: Timestamp,
    /// Minute of the day in local time, 0..1440, for quiet hours.
    pub minute: u16,
}
