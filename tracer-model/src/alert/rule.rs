//! Alert rules: a [`Rule`] is a condition on a value, two thresholds, and settings for delays,
//! reminders and quiet hours.

use super::event::Severity;

/// A pattern for names: `*` matches any text, `?` any one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Creates a pattern. Every text is a valid pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the pattern matches all of `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Position of the last `*` in the pattern, and how far into the text it has matched.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(b'?') => (p, t) = (p + 1, t + char_len(text, t)),
                Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
                _ => match &mut star {
                    Some((at, taken)) => {
                        *taken += 1;
                        (p, t) = (*at + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

/// Length in bytes of the UTF-8 character that starts at `at`.
fn char_len(text: &[u8], at: usize) -> usize {
    let rest = &text[at + 1..];
    1 + rest.iter().take_while(|byte| **byte & 0xc0 == 0x80).count()
}

/// A rule's condition: the value that it evaluates, in bytes, bytes per second, seconds, or as a
/// ratio 0..1. "Below" and "above" is the side of the threshold on which the rule fires.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
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
        who: Glob,
    },
    /// Bytes written per second by a group; above.
    GroupRate {
        /// Group names to which the rule applies.
        who: Glob,
    },
}

impl When {
    /// Whether the rule fires below its threshold rather than above.
    #[must_use]
    pub const fn below(&self) -> bool {
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
pub struct Quiet {
    /// First minute of the day.
    pub from: u16,
    /// First minute after the quiet hours; less than `from` if they span midnight.
    pub to: u16,
}

impl Quiet {
    /// Whether this minute of the day (0..1440) is within the quiet hours.
    #[must_use]
    pub const fn holds(&self, minute: u16) -> bool {
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
    pub when: When,
    /// Mount points to which the rule applies; empty: all.
    pub volumes: Vec<Glob>,
    /// Threshold of a warning, in the unit of the condition ([`When`]); `None`: no warning.
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
    pub quiet: Vec<Quiet>,
    /// Rules that inhibit this one (they report the same and more): while one of them fires for a
    /// volume, this rule sends nothing for it.
    pub yields_to: Vec<String>,
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;

impl Rule {
    /// Creates a rule with the defaults: fires immediately, resolves after 5 min without the
    /// condition, sends a reminder every 30 min.
    #[must_use]
    pub fn new(name: &str, when: When, warning: Option<f64>, critical: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            // An alert for an estimate under 4 h must not resolve at 4 h 1 min.
            hysteresis: if matches!(when, When::TimeToFull) { 1.0 } else { 0.1 },
            when,
            volumes: Vec::new(),
            warning,
            critical,
            hold_s: 0.0,
            clear_s: 5.0 * MINUTE,
            repeat_s: Some(0.5 * HOUR),
            quiet: Vec::new(),
            yields_to: Vec::new(),
        }
    }

    /// Whether the rule applies to this volume.
    #[must_use]
    pub fn wants(&self, mount_point: &str) -> bool {
        self.volumes.is_empty() || self.volumes.iter().any(|glob| glob.matches(mount_point))
    }

    /// Whether `value` is past this severity's threshold, and whether it is far enough back for the
    /// alert to resolve. Both are `false` in between. `None` if the severity has no threshold.
    #[must_use]
    pub(super) fn judge(&self, severity: Severity, value: f64) -> Option<(bool, bool)> {
        let threshold = match severity {
            Severity::Warning => self.warning?,
            Severity::Critical => self.critical?,
        };
        Some(if self.when.below() {
            (value < threshold, value >= threshold * (1.0 + self.hysteresis))
        } else {
            (value > threshold, value <= threshold * (1.0 - self.hysteresis))
        })
    }

    /// The built-in rules, which `filltop watch` uses without a configuration.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        vec![
            Self::new("full", When::Full, None, Some(0.5)),
            Self {
                yields_to: names(&["full"]),
                ..Self::new("time-to-full", When::TimeToFull, Some(4.0 * HOUR), Some(0.5 * HOUR))
            },
            Self {
                yields_to: names(&["full", "time-to-full"]),
                hold_s: 10.0,
                ..Self::new("low-space", When::AvailRatio { shrinking: true }, Some(0.05), None)
            },
            Self {
                yields_to: names(&["full", "time-to-full", "low-space"]),
                hold_s: 30.0,
                repeat_s: None,
                ..Self::new("nearly-full", When::AvailRatio { shrinking: false }, Some(0.05), None)
            },
            Self::new("no-space-errors", When::NoSpaceErrors, None, Some(0.0)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("*", "", true)]
    #[case("/srv/*", "/srv/store", true)]
    #[case("/srv/*", "/srv", false)]
    #[case("*a*b", "xaxxab", true)]
    #[case("a?c", "aéc", true)]
    #[case("a?c", "ac", false)]
    #[case("", "", true)]
    #[case("", "a", false)]
    #[case("a**", "a", true)]
    fn globs(#[case] pattern: &str, #[case] text: &str, #[case] expected: bool) {
        assert_eq!(Glob::new(pattern).matches(text), expected);
    }

    #[rstest]
    #[case(22 * 60, 7 * 60, 23 * 60, true)]
    #[case(22 * 60, 7 * 60, 6 * 60 + 59, true)]
    #[case(22 * 60, 7 * 60, 7 * 60, false)]
    #[case(12 * 60, 13 * 60, 12 * 60, true)]
    #[case(12 * 60, 13 * 60, 13 * 60, false)]
    fn quiet_hours(#[case] from: u16, #[case] to: u16, #[case] at: u16, #[case] quiet: bool) {
        assert_eq!(Quiet { from, to }.holds(at), quiet);
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_and_its_parts_with_stars(text in "[a-zé/]{0,12}", cut in 0usize..12) {
            prop_assert!(Glob::new(&text).matches(&text));
            let cut = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
            let pattern = format!("{}*{}", &text[..cut], &text[cut..]);
            prop_assert!(Glob::new(&pattern).matches(&text));
        }

        #[test]
        fn no_value_is_bad_and_over_at_once(value in 0.0..1e12f64, threshold in 0.0..1e12f64) {
            for when in [When::TimeToFull, When::UsedBytes] {
                let rule = Rule::new("x", when, Some(threshold), None);
                let (bad, over) = rule.judge(Severity::Warning, value).unwrap();
                prop_assert!(!(bad && over));
            }
        }
    }
}
