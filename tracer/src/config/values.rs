//! Parsers of values with units: `4h`, `10GiB`, `50MB/s`, `90%`, `22:00-07:00`.

use std::time::Duration;

use tracer_model::alert::Quiet;

/// Parses a time, in seconds: `500ms`, `30s`, `5m`, `4h`, `7d`, or a number of seconds; at most ten
/// years.
pub(super) fn length(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown time unit {unit:?}: use ms, s, m, h or d")),
    };
    let length = number * seconds;
    if length > 10.0 * 365.25 * 86_400.0 {
        return Err("must be at most ten years".to_owned());
    }
    Ok(length)
}

/// Parses a time as a [`Duration`] from `least` to `most` seconds.
pub(super) fn duration(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    let seconds = length(text)?;
    if !(least..=most).contains(&seconds) {
        return Err(format!("must be from {least} s to {most} s"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Parses a size in bytes (`10GiB`, `500MB`, `4096`), or with `rate` a rate in bytes per second
/// (`50MB/s`, also per `/m`, `/h` or `/d`).
pub(super) fn bytes(text: &str, rate: bool) -> Result<f64, String> {
    let (size, per) = match text.split_once('/') {
        Some((size, per)) => (size.trim(), Some(per.trim())),
        None => (text.trim(), None),
    };
    let seconds = match (rate, per) {
        (false, None) | (true, Some("s")) => 1.0,
        (true, Some("m" | "min")) => 60.0,
        (true, Some("h")) => 3600.0,
        (true, Some("d")) => 86_400.0,
        (true, None) => return Err("must be a rate such as 50MB/s".to_owned()),
        (true, Some(_)) => return Err("a rate must be per s, m, h or d".to_owned()),
        (false, Some(_)) => return Err("must be a size such as 10GiB, not a rate".to_owned()),
    };
    let (number, unit) = split(size)?;
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
        _ => {
            return Err(format!("unknown unit {unit:?}: use KiB, MiB, GiB, TiB or kB, MB, GB, TB"));
        }
    };
    Ok(number * factor / seconds)
}

/// Parses a share as a ratio: `90%` or `0.9`.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text)?;
    let ratio = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => return Err("must be a share such as 90%".to_owned()),
    };
    if ratio > 100.0 {
        return Err("must be at most 10000%".to_owned());
    }
    Ok(ratio)
}

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

/// Splits a text into a number, which is not negative, and its unit.
fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 =
        number.parse().map_err(|_| format!("{text:?} does not start with a number"))?;
    if !number.is_finite() || number > 1e20 {
        return Err(format!("{text:?} is too large"));
    }
    Ok((number, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        assert_eq!(length("4h"), Ok(14_400.0));
        assert_eq!(length(" 1.5 min "), Ok(90.0));
        assert_eq!(bytes("10GiB", false), Ok(10_737_418_240.0));
        assert_eq!(bytes("60MB/m", true), Ok(1e6));
        assert_eq!(ratio("95%"), Ok(0.95));
        assert_eq!(quiet("22:00-7:30"), Ok(Quiet { from: 1320, to: 450 }));
        for bad in ["", "h", "-1h", "4 fortnights", "1e9h", "99999999d", ".", "1.2.3s"] {
            assert!(length(bad).is_err(), "{bad}");
        }
        for bad in ["50MB", "50MB/x", "50XB/s", "/s"] {
            assert!(bytes(bad, true).is_err(), "{bad}");
        }
        assert!(bytes("1GiB/s", false).is_err());
        for bad in ["25:00-01:00", "22:00", "22-23", "10:00-10:00", "a:b-c:d"] {
            assert!(quiet(bad).is_err(), "{bad}");
        }
    }
}
