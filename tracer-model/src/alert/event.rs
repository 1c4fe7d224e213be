//! What an alert says: one [`Event`] is one line of `filltop watch --json`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Victim, Writer};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// An alert began, or its severity changed.
    Firing,
    /// It goes on.
    Repeat,
    /// It is over.
    Resolved,
    /// Something was done, or would have been.
    Action,
    /// About filltop itself: what it cannot see, or cannot deliver.
    Health,
}

impl EventKind {
    /// As the JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Repeat => "repeat",
            Self::Resolved => "resolved",
            Self::Action => "action",
            Self::Health => "health",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody should look today.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// As the JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What could be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// A pid, or the name of a unit or container.
    pub target: String,
    /// In the words of `filltop stop --how`.
    pub how: String,
    /// Space that this step gives back at once.
    pub frees_bytes: u64,
    /// What to type.
    pub command: String,
}

/// One line of `filltop watch --json`. Bytes and seconds; unknown is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`crate::snapshot::SCHEMA`].
    pub schema: u32,
    /// When it was decided.
    pub time: Timestamp,
    /// What happened.
    pub event: EventKind,
    /// Name of the rule; of a health event what it is about.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// Mount point; `None` of a health event that is about no volume.
    pub volume: Option<String>,
    /// Where it grows, or which directory the rule watches.
    pub directory: Option<String>,
    /// One sentence that a tired person understands.
    pub summary: String,
    /// What ordinary users can still take there.
    pub avail_bytes: Option<u64>,
    /// Likely seconds to full.
    pub eta_s: Option<f64>,
    /// Who fills it, at most three, largest growth first.
    pub culprits: Vec<Writer>,
    /// Who suffers.
    pub victims: Vec<Victim>,
    /// Space of deleted files that are still open.
    pub held_bytes: Option<u64>,
    /// What could be done; `None` where nothing safe is known.
    pub suggestion: Option<Suggestion>,
    /// Name of the host.
    pub host: String,
    /// The same for all events of one alert.
    pub key: String,
    /// Never the same for two events: who receives it twice can tell.
    pub id: String,
    /// When the alert began.
    pub since: Timestamp,
    /// Does it end what `key` began? True of every `resolved`, and of the `health` events that say
    /// that something works again.
    pub over: bool,
}

impl Event {
    /// A message about filltop itself.
    #[must_use]
    pub fn health(
        time: Timestamp,
        host: &str,
        about: &str,
        severity: Severity,
        summary: String,
    ) -> Self {
        Self {
            schema: crate::snapshot::SCHEMA,
            time,
            event: EventKind::Health,
            rule: about.to_owned(),
            severity,
            volume: None,
            directory: None,
            summary,
            avail_bytes: None,
            eta_s: None,
            culprits: Vec::new(),
            victims: Vec::new(),
            held_bytes: None,
            suggestion: None,
            host: host.to_owned(),
            key: format!("{host}/health/{about}"),
            id: format!("{host}/health/{about}/{}", time.as_millisecond()),
            since: time,
            over: false,
        }
    }

    /// The same about one of several: another key than for the others.
    #[must_use]
    pub fn of(mut self, one: &str) -> Self {
        self.key = format!("{}/{one}", self.key);
        self.id = format!("{}/{one}", self.id);
        self
    }

    /// The same as the end of what its key began.
    #[must_use]
    pub fn ending(mut self) -> Self {
        self.over = true;
        self
    }
}
