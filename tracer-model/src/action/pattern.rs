//! Regular expressions from the configuration, checked when they are read.

use std::fmt;
use std::str::FromStr;

use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// A regular expression (syntax of the crate regex-lite) that is searched for in names, like
/// earlyoom's `--avoid` and `--prefer`.
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Regex);

/// Largest compiled expression, bytes: bounds the cost of a single pattern.
const SIZE_LIMIT: usize = 1 << 20;

impl Pattern {
    /// Whether the pattern occurs in `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern would match everything".to_owned());
        }
        RegexBuilder::new(text)
            .size_limit(SIZE_LIMIT)
            .build()
            .map(Self)
            .map_err(|error| format!("{text:?} is not a valid regular expression: {error}"))
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text().to_owned()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_searched_for() {
        let pattern: Pattern = "^(my|post)gres".parse().unwrap();
        assert!(pattern.matches("postgres") && !pattern.matches("a postgres"));
        assert_eq!(format!("{pattern:?}"), "\"^(my|post)gres\"");
        for bad in ["", "(", "[z-a]"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
