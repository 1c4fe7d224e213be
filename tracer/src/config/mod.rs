//! The configuration file of `filltop watch` and `filltop check`: rules, and where alerts go.
//!
//! Unknown keys and values are errors with their line. A file with one error is rejected as a whole:
//! half of a configuration is never what was intended.

mod condition;
mod error;
mod raw;
mod rules;
mod sinks;
mod targets;
mod template;
#[cfg(test)]
mod tests;
mod values;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tracer_model::alert::{Glob, Rule};
use tracer_model::guard::GuardConfig;
use tracer_model::units::parse;

use error::{ConfigError, Source};
pub(crate) use targets::{
    AlertmanagerTarget, Endpoint, ExecTarget, JournaldTarget, MailTarget, SinkConfig, SinkKind,
    SyslogAddress, SyslogTarget, WebhookTarget,
};
#[cfg(test)]
pub(crate) use template::TEMPLATE_NAMES;
pub(crate) use template::{Template, placeholder};

/// The annotated sample printed by `--print-config`.
pub(crate) const SAMPLE: &str = include_str!("sample.toml");
/// Maximum size of a configuration file, bytes; guards against reading a wrong, huge file.
const MAX_BYTES: u64 = 1 << 20;

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Time between two Snapshots.
    pub(crate) interval: Duration,
    /// The rules, built-in ones included.
    pub(crate) rules: Vec<Rule>,
    /// The guard, which can act on its own.
    pub(crate) guard: GuardConfig,
    /// Mount points to ignore.
    pub(crate) ignore: Vec<Glob>,
    /// Whether events are also printed on standard output.
    pub(crate) stdout: bool,
    /// All other sinks.
    pub(crate) sinks: Vec<SinkConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            rules: Rule::defaults(),
            guard: GuardConfig::default(),
            ignore: Vec::new(),
            stdout: true,
            sinks: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a file; without one, returns the defaults.
    ///
    /// # Errors
    /// The first error in the file, with its line.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = file else { return Ok(Self::default()) };
        let name = path.display().to_string();
        let unreadable = |message: String| ConfigError { file: name.clone(), place: None, message };
        let length =
            fs::metadata(path).map_err(|e| unreadable(format!("cannot read the file: {e}")))?.len();
        if length > MAX_BYTES {
            return Err(unreadable(format!("configuration file too large ({length} bytes)")));
        }
        let text = fs::read_to_string(path)
            .map_err(|e| unreadable(format!("cannot read the file: {e}")))?;
        Self::parse(&name, &text)
    }

    /// Parses a text. `file` is the name used in errors.
    ///
    /// # Errors
    /// The first error in the text, with its line.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let raw: raw::File = toml::from_str(text).map_err(|error| source.of_toml(&error))?;
        let default = Self::default();
        Ok(Self {
            interval: match &raw.interval {
                None => default.interval,
                Some(text) => parse::duration(text.get_ref(), 0.1, 3600.0)
                    .map_err(|why| source.error(Some(text.span()), format!("interval: {why}")))?,
            },
            rules: rules::read(source, &raw.rule, raw.builtin_rules.unwrap_or(true))?,
            guard: match &raw.guard {
                None => default.guard,
                Some(guard) => {
                    guard.get_ref().check().map_err(|why| source.error(Some(guard.span()), why))?;
                    guard.get_ref().clone()
                }
            },
            ignore: raw.ignore.iter().map(|pattern| Glob::new(pattern)).collect(),
            stdout: raw.stdout.unwrap_or(true),
            sinks: sinks::read(source, &raw)?,
        })
    }

    /// The directories of all rules, each once, sorted.
    #[must_use]
    pub(crate) fn directories(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .rules
            .iter()
            .filter_map(|rule| rule.condition.directory().map(str::to_owned))
            .collect();
        all.sort();
        all.dedup();
        all
    }
}
