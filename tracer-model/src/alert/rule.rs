//! What is watched for: a [`Rule`] is a condition on a value, two thresholds, and manners.

use super::event::Severity;

/// A name with `*` (any text) and `?` (any one character).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Every text is a pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Does it match all of `text`?
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where the last `*` stands, and how much of the text it has taken.
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

/// Bytes of the UTF-8 character that starts at `at`.
fn char_len(text: &[u8], at: usize) -> usize {
    let rest = &text[at + 1..];
    1 + rest.iter().take_while(|byte| **byte & 0xc0 == 0x80).count()
}

/// The value that a rule looks at. Bytes, bytes a second, seconds, or ratios 0..1.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// Likely seconds to full; below.
    TimeToFull,
    /// It is full; no threshold.
    Full,
    /// used / (used + avail), as df's Use%; above.
    UsedRatio,
    /// Bytes used; above.
    UsedBytes,
    /// avail / size; below. With `shrinking`, only while it gets less.
    AvailRatio {
        /// Only while it gets less?
        shrinking: bool,
    },
    /// Bytes available; below. With `shrinking`, only while it gets less.
    AvailBytes {
        /// Only while it gets less?
        shrinking: bool,
    },
    /// Inodes used / inodes; above.
    InodesRatio,
    /// Growth of the volume, bytes a second, evened out over 10 s; above.
    Growth,
    /// Bytes of deleted files that are still open; above.
    Held,
    /// Failed writes in a window for want of space or quota; above.
    NoSpaceErrors,
    /// Failed writes in a window, of any kind; above.
    WriteErrors,
    /// The longest fsync in a window, seconds; above.
    FsyncWait,
    /// A clean-up's space is gone again within so many seconds; below.
    Refill,
    /// Size of a directory, bytes; above.
    DirSize {
        /// As seen from the host's root.
        path: String,
    },
    /// Growth of a directory within a time, bytes; above.
    DirGrowth {
        /// As seen from the host's root.
        path: String,
        /// Within how many seconds.
        per_s: f64,
    },
    /// outflow / inflow of a directory, evened out; below.
    Drain {
        /// As seen from the host's root.
        path: String,
    },
    /// Bytes written a second by all processes of one name; above.
    WriterRate {
        /// Names (comm) that it is about.
        who: Glob,
    },
    /// Bytes written a second by a group; above.
    GroupRate {
        /// Names of groups that it is about.
        who: Glob,
    },
}

impl When {
    /// Is a low value the bad one?
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

    /// The directory that it is about.
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

/// Hours in which warnings wait. Local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// First minute of the day.
    pub from: u16,
    /// First minute after it; before `from` if it goes on past midnight.
    pub to: u16,
}

impl Quiet {
    /// Is this minute of the day (0..1440) in it?
    #[must_use]
    pub const fn holds(&self, minute: u16) -> bool {
        if self.from <= self.to {
            self.from <= minute && minute < self.to
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Unique.
    pub name: String,
    /// What it looks at.
    pub when: When,
    /// Mount points that it is about; empty: all.
    pub volumes: Vec<Glob>,
    /// Threshold of a warning, in the unit of [`When`].
    pub warning: Option<f64>,
    /// Threshold of a critical alert.
    pub critical: Option<f64>,
    /// How far back behind a threshold the value must be for the alert to end, as a share of the
    /// threshold.
    pub hysteresis: f64,
    /// How long the condition must hold before it is believed, seconds.
    pub hold_s: f64,
    /// How long the value must be back before the alert ends, seconds.
    pub clear_s: f64,
    /// Time between two reminders, seconds; `None`: none.
    pub repeat_s: Option<f64>,
    /// When warnings wait. Critical alerts never do.
    pub quiet: Vec<Quiet>,
    /// Rules that say the same and more: while one of them fires for the volume, this one is silent.
    pub yields_to: Vec<String>,
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;

impl Rule {
    /// A rule with the manners that most want: at once, ends after five quiet minutes, reminds
    /// every half hour.
    #[must_use]
    pub fn new(name: &str, when: When, warning: Option<f64>, critical: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            // An estimate under 4 h is not over at 4 h 1 min.
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

    /// Is it about this volume?
    #[must_use]
    pub fn wants(&self, mount_point: &str) -> bool {
        self.volumes.is_empty() || self.volumes.iter().any(|glob| glob.matches(mount_point))
    }

    /// Is `value` over this severity's threshold, and is it far enough back for the alert to end?
    /// Both are `false` in between.
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

    /// What `filltop watch` watches for with no configuration at all.
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
