//! Parsers of values that only the configuration has; [`tracer_model::units::parse`] has the others.

use tracer_model::alert::Quiet;

/// Parses quiet hours: `22:00-07:00`.
pub(super) fn quiet(text: &str) -> Result<Quiet, String> {
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
    };
    text.split_once('-')
        .and_then(|(from, to)| Some(Quiet { from: minute(from)?, to: minute(to)? }))
        .filter(|quiet| quiet.from != quiet.to)
        .ok_or_else(|| "must be a time range such as 22:00-07:00".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours() {
        assert_eq!(quiet("22:00-7:30"), Ok(Quiet { from: 1320, to: 450 }));
        for bad in ["25:00-01:00", "22:00", "22-23", "10:00-10:00", "a:b-c:d"] {
            assert!(quiet(bad).is_err(), "{bad}");
        }
    }
}
