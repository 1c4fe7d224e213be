//! Alert rules: a [`Rule`] is a condition on a value, two thresholds, and settings for delays,
//! reminders and quiet hours.

use super::event::Severity;
use super::glob::Glob;

/// A rule's condition: the value that it evaluates, in bytes, bytes per second, seconds, or as a
/// ratio 0..1. "Below" and "above" is the side of the threshold on which the rule fires.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Estimated seconds until the volume is full; below.
    TimeToFull,
    /// The volume is full; no threshold.
    Full,
    /// used / (used + avail), as df's Use%; above.
    UsedRatio,
    /// Bytes used; above.
    UsedBytes,
    /// avail / size; below.
    AvailRatio {
        /// Fire only while the available space shrinks.
        shrinking: bool,
    },
    /// Bytes available; below.
    AvailBytes {
        /// Fire only while the available space shrinks.
        shrinking: bool,
    },
    /// Inodes used / inodes; above.
    InodesRatio,
    /// Growth of the volume, bytes per second, smoothed over 10 s; above.
    Growth,
    /// Space of deleted files that are still open, bytes; above.
    Held,
    /// Writes that failed for lack of space or quota in one interval; above.
    NoSpaceErrors,
    /// Writes that failed for any reason in one interval; above.
    WriteErrors,
    /// The longest fsync in one interval, seconds; above.
    FsyncWait,
    /// Seconds until the space freed by a clean-up was used up again; below.
    Refill,
    /// Size of a directory, bytes; above.
    DirSize {
        /// The directory, as seen from the host's root.
        path: String,
    },
    /// Growth of a directory within a period, bytes; above.
    DirGrowth {
        /// The directory, as seen from the host's root.
        path: String,
        /// The period, seconds.
        per_s: f64,
    },
    /// outflow / inflow of a directory, smoothed; below.
    Drain {
        /// The directory, as seen from the host's root.
        path: String,
    },
    /// Bytes written per second by all processes of one name; above.
    WriterRate {
        /// Process names (comm) to which the rule applies.
        names: Glob,
    },
    /// Bytes written per second by a group; above.
    GroupRate {
        /// Group names to which the rule applies.
        names: Glob,
    },
}

impl Condition {
    /// Whether the rule fires below its threshold rather than above.
    #[must_use]
    pub const fn fires_below(&self) -> bool {
        matches!(
            self,
            Self::TimeToFull
                | Self::AvailRatio { .. }
                | Self::AvailBytes { .. }
                | Self::Refill
                | Self::Drain { .. }
        )
    }

    /// The directory that the condition evaluates, if any.
    #[must_use]
    pub fn directory(&self) -> Option<&str> {
        match self {
            Self::DirSize { path } | Self::DirGrowth { path, .. } | Self::Drain { path } => {
                Some(path)
            }
            _ => None,
        }
    }
}

/// Quiet hours, in which warnings are held back. Local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    /// First minute of the day.
    pub from: u16,
    /// First minute after the quiet hours; less than `from` if they span midnight.
    pub to: u16,
}

impl QuietHours {
    /// Whether this minute of the day (0..1440) is within the quiet hours.
    #[must_use]
    pub const fn contains(&self, minute: u16) -> bool {
        if self.from <= self.to {
            self.from <= minute && minute < self.to
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// An alert rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Unique name.
    pub name: String,
    /// The condition.
    pub condition: Condition,
    /// Mount points to which the rule applies; empty: all.
    pub volumes: Vec<Glob>,
    /// Threshold of a warning, in the unit of the condition ([`Condition`]); `None`: no warning.
    pub warning: Option<f64>,
    /// Threshold of a critical alert, in the same unit; `None`: never critical.
    pub critical: Option<f64>,
    /// How far the value must retreat past a threshold for the alert to resolve, as a share of that
    /// threshold.
    pub hysteresis: f64,
    /// How long the condition must hold before the alert fires, seconds (`for` in the configuration).
    pub hold_s: f64,
    /// How long the value must stay past the hysteresis before the alert resolves, seconds.
    pub clear_s: f64,
    /// Time between two reminders, seconds; `None`: no reminders.
    pub repeat_s: Option<f64>,
    /// Quiet hours: warnings are held back, critical alerts are not.
    pub quiet: Vec<QuietHours>,
    /// Rules that inhibit this one (they report the same and more): while one of them fires for a
    /// volume, this rule sends nothing for it.
    pub inhibited_by: Vec<String>,
}

/// A value compared with a threshold. Both are `false` within the hysteresis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    /// The value is past the threshold.
    pub(super) breached: bool,
    /// The value is far enough back for the alert to resolve.
    pub(super) clear: bool,
}

impl Comparison {
    /// There is no threshold (any more): nothing holds the alert.
    pub(super) const NO_THRESHOLD: Self = Self { breached: false, clear: true };
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;

impl Rule {
    /// Creates a rule with the defaults: fires immediately, resolves after 5 min without the
    /// condition, sends a reminder every 30 min.
    #[must_use]
    pub fn new(
        name: &str,
        condition: Condition,
        warning: Option<f64>,
        critical: Option<f64>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            // An alert for an estimate under 4 h must not resolve at 4 h 1 min.
            hysteresis: if matches!(condition, Condition::TimeToFull) { 1.0 } else { 0.1 },
            condition,
            volumes: Vec::new(),
            warning,
            critical,
            hold_s: 0.0,
            clear_s: 5.0 * MINUTE,
            repeat_s: Some(0.5 * HOUR),
            quiet: Vec::new(),
            inhibited_by: Vec::new(),
        }
    }

    /// Whether the rule applies to this volume.
    #[must_use]
    pub fn applies_to(&self, mount_point: &str) -> bool {
        self.volumes.is_empty() || self.volumes.iter().any(|glob| glob.matches(mount_point))
    }

    /// Compares a value with this severity's threshold; `None` if the severity has none.
    #[must_use]
    pub(super) fn compare(&self, severity: Severity, value: f64) -> Option<Comparison> {
        let threshold = match severity {
            Severity::Warning => self.warning?,
            Severity::Critical => self.critical?,
        };
        let (breached, clear) = if self.condition.fires_below() {
            (value < threshold, value >= threshold * (1.0 + self.hysteresis))
        } else {
            (value > threshold, value <= threshold * (1.0 - self.hysteresis))
        };
        Some(Comparison { breached, clear })
    }

    /// The built-in rules, which `filltop watch` uses without a configuration.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        vec![
            Self::new("full", Condition::Full, None, Some(0.5)),
            Self {
                inhibited_by: names(&["full"]),
                ..Self::new(
                    "time-to-full",
                    Condition::TimeToFull,
                    Some(4.0 * HOUR),
                    Some(0.5 * HOUR),
                )
            },
            Self {
                inhibited_by: names(&["full", "time-to-full"]),
                hold_s: 10.0,
                ..Self::new(
                    "low-space",
                    Condition::AvailRatio { shrinking: true },
                    Some(0.05),
                    None,
                )
            },
            Self {
                inhibited_by: names(&["full", "time-to-full", "low-space"]),
                hold_s: 30.0,
                repeat_s: None,
                ..Self::new(
                    "nearly-full",
                    Condition::AvailRatio { shrinking: false },
                    Some(0.05),
                    None,
                )
            },
            Self::new("no-space-errors", Condition::NoSpaceErrors, None, Some(0.0)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(22 * 60, 7 * 60, 23 * 60, true)]
    #[case(22 * 60, 7 * 60, 6 * 60 + 59, true)]
    #[case(22 * 60, 7 * 60, 7 * 60, false)]
    #[case(12 * 60, 13 * 60, 12 * 60, true)]
    #[case(12 * 60, 13 * 60, 13 * 60, false)]
    fn quiet_hours(#[case] from: u16, #[case] to: u16, #[case] at: u16, #[case] quiet: bool) {
        assert_eq!(QuietHours { from, to }.contains(at), quiet);
    }

    proptest! {
        #[test]
        fn no_value_is_both_breached_and_clear(value in 0.0..1e12f64, threshold in 0.0..1e12f64) {
            for condition in [Condition::TimeToFull, Condition::UsedBytes] {
                let rule = Rule::new("x", condition, Some(threshold), None);
                let Comparison { breached, clear } = rule.compare(Severity::Warning, value).unwrap();
                prop_assert!(!(breached && clear));
            }
        }
    }
}
