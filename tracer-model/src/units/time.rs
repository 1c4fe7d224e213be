//! Formats durations and the time until a volume is full.

use super::UNKNOWN;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// Formats a duration: `45 s`, `4 min`, `1 h 20 min`, `2 d 4 h`, `30 d`, `3 y`.
///
/// Rounded to the unit shown: seconds below two minutes (`1 min 30 s`), then minutes, hours from
/// one day on, days from ten days on, years from two years on.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return UNKNOWN.to_owned();
    }
    if seconds < 1.0 && seconds > 0.0 {
        return "<1 s".to_owned();
    }
    let s = seconds.round() as u64;
    match s {
        0..MINUTE => format!("{s} s"),
        _ if s < 2 * MINUTE => pair(s, MINUTE, "min", 1, "s"),
        _ => match nearest(s, MINUTE) {
            m if m < 60 => format!("{m} min"),
            m if m < 24 * 60 => pair(m, 60, "h", 1, "min"),
            _ => match nearest(s, HOUR) {
                h if h < 10 * 24 => pair(h, 24, "d", 1, "h"),
                _ => match nearest(s, DAY) {
                    d if d < 2 * 365 => format!("{d} d"),
                    _ if s / YEAR < 100 => format!("{} y", s / YEAR),
                    _ => ">99 y".to_owned(),
                },
            },
        },
    }
}

/// Formats a duration in at most five columns: `45s`, `4m`, `1h20`, `2d4h`, `30d`, `3y`.
#[must_use]
pub fn short_duration(seconds: f64) -> String {
    let long = duration(seconds);
    let mut parts = long.split(' ');
    let mut out = String::new();
    while let (Some(number), Some(unit)) = (parts.next(), parts.next()) {
        out.push_str(number);
        // `1h20` and `1m30` are unambiguous without the second letter.
        if out.len() == number.len() || unit == "h" {
            out.push_str(&unit[..1]);
        }
    }
    if out.is_empty() { long } else { out }
}

fn nearest(seconds: u64, unit: u64) -> u64 {
    (seconds.saturating_add(unit / 2)) / unit
}

fn pair(value: u64, per: u64, big: &str, step: u64, small: &str) -> String {
    match (value / per, value % per / step) {
        (n, 0) => format!("{n} {big}"),
        (n, rest) => format!("{n} {big} {rest} {small}"),
    }
}

/// Describes when a volume fills: `FULL`, `full in 4 min (3–6)`, `not filling`. Arguments in
/// seconds.
#[must_use]
pub fn until_full(full: bool, eta: Option<f64>, lo: Option<f64>, hi: Option<f64>) -> String {
    match eta {
        Some(_) if !full => format!("full in {}", eta_words(full, eta, lo, hi)),
        None if !full => "not filling".to_owned(),
        _ => "FULL".to_owned(),
    }
}

/// Like [`until_full`], for a column with the heading `FULL IN`: `FULL`, `4 min (3–6)`, `-`.
///
/// The interval uses the unit of the estimate if all three share it, and ends in `?` if there is no
/// upper bound.
#[must_use]
pub fn eta_words(full: bool, eta: Option<f64>, lo: Option<f64>, hi: Option<f64>) -> String {
    match eta {
        _ if full => "FULL".to_owned(),
        None => "-".to_owned(),
        Some(eta) => match interval(eta, lo, hi) {
            Some(interval) => format!("{} ({interval})", duration(eta)),
            None => duration(eta),
        },
    }
}

/// Like [`eta_words`], in at most 19 columns: `4m (3m–6m)`, `1h20 (55m–1h50)`.
#[must_use]
pub fn eta_short(full: bool, eta: Option<f64>, lo: Option<f64>, hi: Option<f64>) -> String {
    let short = |end: Option<f64>| end.map_or_else(|| UNKNOWN.to_owned(), short_duration);
    match eta {
        Some(eta) if !full => match interval(eta, lo, hi) {
            Some(_) => format!("{} ({}–{})", short_duration(eta), short(lo), short(hi)),
            None => short_duration(eta),
        },
        _ => eta_words(full, eta, lo, hi),
    }
}

/// Formats the interval: `3–6` if all three values share one unit, otherwise both ends with units.
/// Returns `None` if it would add nothing to the estimate.
fn interval(eta: f64, lo: Option<f64>, hi: Option<f64>) -> Option<String> {
    if lo.is_none() && hi.is_none() {
        return None;
    }
    let middle = duration(eta);
    if [lo, hi].iter().all(|end| end.map(duration).as_ref() == Some(&middle)) {
        return None;
    }
    let ends = [lo, hi].map(|end| end.map_or_else(|| UNKNOWN.to_owned(), duration));
    let unit = |text: &str| match text.split(' ').collect::<Vec<_>>()[..] {
        [_, unit] => Some(unit.to_owned()),
        _ => None,
    };
    let one_unit = ends.iter().all(|end| end == UNKNOWN || unit(end) == unit(&middle));
    let [lo, hi] = ends;
    if one_unit && unit(&middle).is_some() {
        // `<1` as a lower end means 0.
        let number = |text: &str| match text.split(' ').next() {
            Some("<1") => "0".to_owned(),
            number => number.unwrap_or(UNKNOWN).to_owned(),
        };
        return Some(format!("{}–{}", number(&lo), number(&hi)));
    }
    Some(format!("{lo} – {hi}"))
}
