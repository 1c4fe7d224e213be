//! Parses values with units, with one grammar for flags, the configuration and the screen: a number
//! (decimal, not negative) and a unit, with or without a space between them.
//!
//! | kind | units |
//! |---|---|
//! | time | `ms`, `s`, `m` or `min`, `h`, `d`; a bare number is seconds |
//! | size | `k`, `M`, `G`, `T` and `KiB`, … are powers of 1024; `kB`, `MB`, … of 1000; upper or lower case; a bare number is bytes |
//! | rate | a size, then `/s`, `/m`, `/h` or `/d` |
//! | share | `%`; a bare number is a ratio |

use std::time::Duration;

use thiserror::Error;

/// Longest time: ten years, in seconds.
const LONGEST_S: f64 = 10.0 * 365.25 * 86_400.0;

/// Why a text is not a value with a unit.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ParseError {
    /// There is no number at the start.
    #[error("{0:?} does not start with a number, e.g. {1}")]
    NoNumber(String, &'static str),
    /// The number is too large to be meant.
    #[error("{0:?} is too large")]
    TooLarge(String),
    /// Not a unit of time.
    #[error("unknown time unit {0:?}; use ms, s, m, h or d")]
    TimeUnit(String),
    /// Not a unit of size.
    #[error("unknown unit {0:?}; use KiB, MiB, GiB, TiB or kB, MB, GB, TB")]
    SizeUnit(String),
    /// A rate where a size is expected.
    #[error("must be a size such as 10GiB, not a rate")]
    NotASize,
    /// A size where a rate is expected.
    #[error("must be a rate such as 50MB/s")]
    NotARate,
    /// Not a unit of time after the slash.
    #[error("a rate must be per s, m, h or d")]
    RateUnit,
    /// Not a share.
    #[error("must be a share such as 90%")]
    NotAShare,
    /// Outside of the range that makes sense here.
    #[error("must be between {0} and {1}")]
    OutOfRange(String, String),
}

/// Parses a time, in seconds; at most ten years.
///
/// # Errors
/// [`ParseError`].
pub fn seconds(text: &str) -> Result<f64, ParseError> {
    let (number, unit) = split(text, "5s")?;
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(ParseError::TimeUnit(unit.to_owned())),
    };
    let seconds = number * factor;
    if seconds > LONGEST_S { Err(ParseError::TooLarge(text.to_owned())) } else { Ok(seconds) }
}

/// Parses a time from `least` to `most` seconds.
///
/// # Errors
/// [`ParseError`].
pub fn duration(text: &str, least: f64, most: f64) -> Result<Duration, ParseError> {
    let seconds = seconds(text)?;
    if (least..=most).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(ParseError::OutOfRange(text_of(least), text_of(most)))
    }
}

/// Writes a time in the largest unit that gives a whole number, in a form that can be parsed.
fn text_of(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"), (0.001, "ms")];
    let whole = |(factor, _): &(f64, &str)| {
        let number = seconds / factor;
        number >= 1.0 && (number - number.round()).abs() < 1e-9
    };
    let (factor, unit) = units.into_iter().find(whole).unwrap_or((1.0, "s"));
    format!("{}{unit}", (seconds / factor * 1e9).round() / 1e9)
}

/// Parses a size, in bytes.
///
/// # Errors
/// [`ParseError`].
pub fn bytes(text: &str) -> Result<f64, ParseError> {
    if text.contains('/') { Err(ParseError::NotASize) } else { size(text) }
}

/// Parses a rate, in bytes per second.
///
/// # Errors
/// [`ParseError`].
pub fn bytes_per_second(text: &str) -> Result<f64, ParseError> {
    let (bytes, per) = text.split_once('/').ok_or(ParseError::NotARate)?;
    let seconds = match per.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(ParseError::RateUnit),
    };
    Ok(size(bytes)? / seconds)
}

/// Parses a share, as a ratio: `90%` is 0.9.
///
/// # Errors
/// [`ParseError`].
pub fn ratio(text: &str) -> Result<f64, ParseError> {
    let (number, unit) = split(text, "90%")?;
    let ratio = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => return Err(ParseError::NotAShare),
    };
    if ratio > 100.0 { Err(ParseError::TooLarge(text.to_owned())) } else { Ok(ratio) }
}

fn size(text: &str) -> Result<f64, ParseError> {
    let (number, unit) = split(text, "10GiB")?;
    let factor: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => 1_073_741_824.0,
        "t" | "tib" => 1_099_511_627_776.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(ParseError::SizeUnit(unit.to_owned())),
    };
    Ok(number * factor)
}

/// Splits a text into a number, which is not negative, and its unit.
fn split<'t>(text: &'t str, example: &'static str) -> Result<(f64, &'t str), ParseError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| ParseError::NoNumber(text.to_owned(), example))?;
    if !number.is_finite() || number > 1e20 {
        return Err(ParseError::TooLarge(text.to_owned()));
    }
    Ok((number, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(seconds("4h"), Ok(14_400.0));
        assert_eq!(seconds(" 1.5 min "), Ok(90.0));
        assert_eq!(seconds("7d"), Ok(604_800.0));
        assert_eq!(seconds("5"), Ok(5.0));
        assert_eq!(duration("500ms", 0.1, 60.0), Ok(Duration::from_millis(500)));
        let outside = duration("0", 0.1, 60.0).unwrap_err();
        assert_eq!(outside, ParseError::OutOfRange("100ms".to_owned(), "1m".to_owned()));
        for bad in ["", "h", "-1h", "4 fortnights", "1e9h", "99999999d", ".", "1.2.3s", "nan"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_rates() {
        assert_eq!(bytes("10GiB"), Ok(10_737_418_240.0));
        assert_eq!(bytes("1.5k"), Ok(1536.0));
        assert_eq!(bytes("5mb"), Ok(5e6));
        assert_eq!(bytes("1GiB/s"), Err(ParseError::NotASize));
        assert_eq!(bytes_per_second("60MB/m"), Ok(1e6));
        assert_eq!(bytes_per_second("50MB"), Err(ParseError::NotARate));
        assert_eq!(bytes_per_second("50MB/x"), Err(ParseError::RateUnit));
        assert_eq!(bytes_per_second("50XB/s"), Err(ParseError::SizeUnit("XB".to_owned())));
        for bad in ["/s", "MB/s", "-1MB/s", "99999999999999999999999MB/s"] {
            assert!(bytes_per_second(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(ratio("95%"), Ok(0.95));
        assert_eq!(ratio("0.5"), Ok(0.5));
        assert_eq!(ratio("95 percent"), Err(ParseError::NotAShare));
        assert!(ratio("20000%").is_err());
    }
}
