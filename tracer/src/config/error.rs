//! Configuration errors: the place in the file, the problem, and a suggestion.

use std::fmt;
use std::ops::Range;

/// An error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// The file name, as given.
    pub(crate) file: String,
    /// Line and column, from 1; `None` if the file cannot be read.
    pub(crate) place: Option<(usize, usize)>,
    /// The problem, in one line.
    pub(crate) message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => {
                write!(f, "{}:{line}:{column}: {}", self.file, self.message)
            }
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The text being parsed, for turning spans into lines and columns.
#[derive(Clone, Copy)]
pub(super) struct Source<'t> {
    pub(super) file: &'t str,
    pub(super) text: &'t str,
}

impl Source<'_> {
    /// Creates an error at a span of the text.
    pub(super) fn error(&self, span: Option<Range<usize>>, message: String) -> ConfigError {
        let place = span.map(|span| {
            let before = self.text.get(..span.start).unwrap_or(self.text);
            let line = before.matches('\n').count() + 1;
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            (line, before[start..].chars().count() + 1)
        });
        ConfigError { file: self.file.to_owned(), place, message }
    }

    /// Converts an error of the TOML parser, with a suggestion.
    pub(super) fn of_toml(&self, error: &toml::de::Error) -> ConfigError {
        self.error(error.span(), explain(error.message()))
    }
}

/// Rewrites serde's `unknown field` and `unknown variant` with a suggestion. Any other message is
/// passed through.
///
/// It reads the text because there is nothing else to read: `serde::de::Error::unknown_field` gets
/// the name and the known names as values, but toml implements neither it nor `unknown_variant`, so
/// that serde's provided methods format them and `toml::de::Error` keeps the result. An error type
/// of our own would need a wrapper around each of toml's deserializers. Only the suggestion depends
/// on the text: if serde words it differently, its own message is printed. A test pins the wording.
fn explain(message: &str) -> String {
    let one_line = message.lines().collect::<Vec<_>>().join(" ");
    let (what, rest) = if let Some(rest) = one_line.strip_prefix("unknown field `") {
        ("key", rest)
    } else if let Some(rest) = one_line.strip_prefix("unknown variant `") {
        ("value", rest)
    } else {
        return one_line;
    };
    let Some((found, expected)) = rest.split_once('`') else { return one_line };
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    format!("unknown {what} `{found}`{}", did_you_mean(found, &known))
}

/// Returns `: did you mean …?` if a known name is similar, else the list of known names.
pub(super) fn did_you_mean(found: &str, known: &[&str]) -> String {
    let near = |name: &&&str| strsim::damerau_levenshtein(found, name);
    match known.iter().min_by_key(near) {
        Some(best) if near(&best) <= 1 + best.len().max(found.len()) / 3 => {
            format!(": did you mean `{best}`?")
        }
        Some(_) => format!("; expected one of {}", known.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde::de::Error as _;

    use super::*;

    /// The wording of the crates serde and toml that [`explain`] relies on.
    #[test]
    fn suggestions_are_found_in_the_wording_of_serde() {
        let known = &["interval", "ignore"];
        let field = toml::de::Error::unknown_field("interwal", known);
        let one = toml::de::Error::unknown_field("interwal", &known[..1]);
        let variant = toml::de::Error::unknown_variant("interwal", known);
        let expected = "unknown field `interwal`, expected `interval` or `ignore`";
        assert_eq!(field.message(), expected);
        assert_eq!(one.message(), "unknown field `interwal`, expected `interval`");
        assert_eq!(variant.message(), expected.replace("field", "variant"));
        let suggestion = "`interwal`: did you mean `interval`?";
        for (error, what) in [(field, "key"), (one, "key"), (variant, "value")] {
            assert_eq!(explain(error.message()), format!("unknown {what} {suggestion}"));
        }
        let three = toml::de::Error::unknown_field("x", &["aaa", "bbb", "ccc"]);
        assert_eq!(explain(three.message()), "unknown key `x`; expected one of aaa, bbb, ccc");
    }
}
