//! Configuration errors: the place in the file, the problem, and a suggestion.

use std::fmt;
use std::ops::Range;

/// An error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file name, as given.
    pub file: String,
    /// Line and column, from 1; `None` if the file cannot be read.
    pub place: Option<(usize, usize)>,
    /// The problem, in one line.
    pub message: String,
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
