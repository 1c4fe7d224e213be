//! The time of an evaluation, which the caller reads from its clocks.

use jiff::Timestamp;

/// The time at which a Snapshot is evaluated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvalTime {
    /// Seconds on a clock that never steps; all delays are measured with it.
    pub steady_s: f64,
    /// Wall-clock time; it may step.
    pub wall: Timestamp,
    /// Minute of the day in local time, 0..1440, for quiet hours.
    pub minute: u16,
}
