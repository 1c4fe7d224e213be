//! The scenario file of an incident: what runs, on which volume, and what filltop must report by
//! when.

use anyhow::Context as _;
use serde::Deserialize;
use tracer_model::alert::{Event, EventKind, Severity};

/// `tests/incidents/NAME.toml`. The model's own tests read the same files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name on the command line.
    pub name: String,
    /// Heading in the document.
    pub title: String,
    /// What runs, and how fast: one sentence each.
    pub runs: Vec<String>,
    /// The volume that it runs on.
    pub volume: VolumeSpec,
    /// filltop's configuration; the run fills in `{mount}` and other words in braces.
    pub watch: String,
    /// What filltop must report.
    pub say: Vec<Say>,
}

/// A volume of the test's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// Filesystem type.
    pub fs: String,
    /// Size, MiB.
    pub mib: u64,
    /// Size for a machine that is too slow to fill the volume in time; the run writes less by the
    /// same factor.
    pub slow_mib: Option<u64>,
}

/// One thing that filltop must report.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// Name that the run uses for it.
    pub id: String,
    /// Why it matters, for the document.
    pub what: String,
    /// The phase from which the time is counted.
    pub after: String,
    /// Limit in seconds, on a busy machine with two cores.
    pub within_s: f64,
    /// The event's rule.
    pub rule: String,
    /// The event's kind.
    pub event: EventKind,
    /// The event's severity, if that matters.
    pub severity: Option<Severity>,
    /// Parts of the summary, all of which must occur; `{mount}` and the like as in the
    /// configuration.
    #[serde(default)]
    pub words: Vec<String>,
}

impl Scenario {
    /// Parses a scenario and fills in the words in braces.
    pub fn read(text: &str, words: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut scenario: Self = toml::from_str(text).context("the scenario file is wrong")?;
        scenario.fill_in(words);
        Ok(scenario)
    }

    /// Fills in the words in braces.
    pub fn fill_in(&mut self, words: &[(&str, &str)]) {
        let filled = |text: &str| {
            words.iter().fold(text.to_owned(), |text, (word, value)| {
                text.replace(&format!("{{{word}}}"), value)
            })
        };
        self.watch = filled(&self.watch);
        for say in &mut self.say {
            say.words = say.words.iter().map(|word| filled(word)).collect();
        }
    }

    /// The required report of this name.
    pub fn say(&self, id: &str) -> anyhow::Result<Say> {
        let found = self.say.iter().find(|say| say.id == id).cloned();
        found.with_context(|| format!("{} has no report {id}", self.name))
    }
}

impl Say {
    /// Whether this event meets the requirement.
    pub fn is(&self, event: &Event) -> bool {
        event.rule == self.rule
            && event.event == self.event
            && self.severity.is_none_or(|severity| severity == event.severity)
            && self.words.iter().all(|word| event.summary.contains(word))
    }
}
