//! What an incident's scenario file says: what runs, on what, and what filltop must say by when.

use anyhow::Context as _;
use serde::Deserialize;
use tracer_model::alert::{Event, EventKind, Severity};

/// `tests/incidents/NAME.toml`. The model's own tests read the same files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: String,
    /// A heading.
    pub title: String,
    /// What runs, and how fast: a sentence each.
    pub runs: Vec<String>,
    /// What it runs on.
    pub volume: VolumeSpec,
    /// filltop's configuration; `{mount}` and other words in braces are filled in by the run.
    pub watch: String,
    /// What filltop must say.
    pub say: Vec<Say>,
}

/// A volume of the test's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// Filesystem.
    pub fs: String,
    /// Size, MiB.
    pub mib: u64,
    /// The same for a machine that is too slow to fill that in time; what the run writes is less by as much.
    pub slow_mib: Option<u64>,
}

/// One thing that filltop must say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// What the run calls it.
    pub id: String,
    /// Why it matters, for the document.
    pub what: String,
    /// The phase that the time counts from.
    pub after: String,
    /// Seconds, on a busy machine of two cores.
    pub within_s: f64,
    /// The event's rule.
    pub rule: String,
    /// The event's kind.
    pub event: EventKind,
    /// The event's severity, if that matters.
    pub severity: Option<Severity>,
    /// Words of the summary, all of them; `{mount}` and the like as in the configuration.
    #[serde(default)]
    pub words: Vec<String>,
}

impl Scenario {
    /// Reads one, with the words in braces filled in.
    pub fn read(text: &str, words: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut scenario: Self = toml::from_str(text).context("the scenario file is wrong")?;
        scenario.fill_in(words);
        Ok(scenario)
    }

    /// Fills in words in braces.
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

    /// What must be said, by its name.
    pub fn say(&self, id: &str) -> anyhow::Result<Say> {
        let found = self.say.iter().find(|say| say.id == id).cloned();
        found.with_context(|| format!("{} says nothing of {id}", self.name))
    }
}

impl Say {
    /// Is it this event?
    pub fn is(&self, event: &Event) -> bool {
        event.rule == self.rule
            && event.event == self.event
            && self.severity.is_none_or(|severity| severity == event.severity)
            && self.words.iter().all(|word| event.summary.contains(word))
    }
}
