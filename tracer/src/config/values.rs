//! Parsers of values that only the configuration has; [`tracer_model::units::parse`] has the others.

use thiserror::Error;
use tracer_model::alert::{Condition, QuietHours};
use tracer_model::units::parse;
use tracer_model::units::parse::ParseError;

/// Why a text is not the value that its key needs.
#[derive(Debug, PartialEq, Error)]
pub(super) enum ValueError {
    #[error(transparent)]
    Unit(#[from] ParseError),
    #[error("must be a whole number")]
    NotACount,
    #[error("this `when` has no threshold")]
    NoThreshold,
    #[error("must be a time range such as 22:00-07:00")]
    NotATimeRange,
}

/// The unit in which a rule's threshold is written.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Time,
    Size,
    Rate,
    Ratio,
    Count,
    None,
}

impl Unit {
    /// The unit of a condition's thresholds.
    pub(super) const fn of(condition: &Condition) -> Self {
        match condition {
            Condition::TimeToFull | Condition::FsyncWait | Condition::Refill => Self::Time,
            Condition::Full => Self::None,
            Condition::UsedRatio
            | Condition::AvailRatio { .. }
            | Condition::InodesRatio
            | Condition::Drain { .. } => Self::Ratio,
            Condition::UsedBytes
            | Condition::AvailBytes { .. }
            | Condition::Held
            | Condition::DirSize { .. }
            | Condition::DirGrowth { .. } => Self::Size,
            Condition::Growth | Condition::WriterRate { .. } | Condition::GroupRate { .. } => {
                Self::Rate
            }
            Condition::NoSpaceErrors | Condition::WriteErrors => Self::Count,
        }
    }
}

/// Parses a number in this unit.
pub(super) fn number(text: &str, unit: Unit) -> Result<f64, ValueError> {
    Ok(match unit {
        Unit::Time => parse::seconds(text)?,
        Unit::Size => parse::bytes(text)?,
        Unit::Rate => parse::bytes_per_second(text)?,
        Unit::Ratio => parse::ratio(text)?,
        Unit::Count => text.parse::<u32>().map(f64::from).map_err(|_| ValueError::NotACount)?,
        Unit::None => return Err(ValueError::NoThreshold),
    })
}

/// Parses quiet hours: `22:00-07:00`.
pub(super) fn quiet_hours(text: &str) -> Result<QuietHours, ValueError> {
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
    };
    text.split_once('-')
        .and_then(|(from, to)| Some(QuietHours { from: minute(from)?, to: minute(to)? }))
        .filter(|quiet| quiet.from != quiet.to)
        .ok_or(ValueError::NotATimeRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours() {
        assert_eq!(super::quiet_hours("22:00-7:30"), Ok(QuietHours { from: 1320, to: 450 }));
        for bad in ["25:00-01:00", "22:00", "22-23", "10:00-10:00", "a:b-c:d"] {
            assert!(super::quiet_hours(bad).is_err(), "{bad}");
        }
    }
}
