//! Alerts: rules evaluated on Snapshots, and the events that result.
//!
//! Pure: the input is an [`EvalTime`], a Snapshot and the sizes of declared directories, the output is
//! [`Event`]s. This module uses no clock, file or socket, so that replaying a recorded history
//! raises the same alerts as the live program. `docs/alerts.md` describes how to write rules,
//! `docs/decisions/alerts.md` the reasons for their behaviour.

mod blind;
mod engine;
mod event;
mod glob;
mod health;
mod latch;
mod message;
pub mod replay;
mod rule;
mod rule_state;
pub mod sizes;
mod state;
#[cfg(test)]
mod tests;
mod time;
mod value;

pub use crate::snapshot::Suggestion;
pub use blind::{blind_message, unexplained_part};
pub use engine::{ActiveAlert, Engine};
pub use event::{Event, EventKind, Severity};
pub use glob::Glob;
pub use rule::{Condition, QuietHours, Rule};
pub use time::EvalTime;
