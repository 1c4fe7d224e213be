//! One clear error: where it is in the file, what is wrong, what was probably meant.

use std::fmt;
use std::ops::Range;

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was given.
    pub file: String,
    /// Line and column, from 1 on; `None` where the file cannot be read.
    pub place: Option<(usize, usize)>,
    /// One line.
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

/// The text being read: turns spans into lines.
#[derive(Clone, Copy)]
pub(super) struct Source<'t> {
    pub(super) file: &'t str,
    pub(super) text: &'t str,
}

impl Source<'_> {
    /// An error at a span of the text.
    pub(super) fn error(&self, span: Option<Range<usize>>, message: String) -> ConfigError {
        let place = span.map(|span| {
            let before = self.text.get(..span.start).unwrap_or(self.text);
            let line = before.matches('\n').count() + 1;
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            (line, before[start..].chars().count() + 1)
        });
        ConfigError { file: self.file.to_owned(), place, message }
    }

    /// What the TOML reader says, with what was probably meant.
    pub(super) fn of_toml(&self, error: &toml::de::Error) -> ConfigError {
        self.error(error.span(), explain(error.message()))
    }
}

/// serde's `unknown field` and `unknown variant`, in our words.
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

/// `: did you mean …?` where one is near, else what there is.
pub(super) fn did_you_mean(found: &str, known: &[&str]) -> String {
    let near = |name: &&&str| strsim::damerau_levenshtein(found, name);
    match known.iter().min_by_key(near) {
        Some(best) if near(&best) <= 1 + best.len().max(found.len()) / 3 => {
            format!(": did you mean `{best}`?")
        }
        Some(_) => format!("; there are {}", known.join(", ")),
        None => String::new(),
    }
}
