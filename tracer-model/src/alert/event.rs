//! Events: one [`Event`] is one line of `filltop watch --json`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Suggestion, Victim, Writer};

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// An alert started to fire, or its severity changed.
    Firing,
    /// A reminder of an alert that is still firing.
    Repeat,
    /// The alert has ended.
    Resolved,
    /// The guard acted, or would have acted in a dry run.
    Action,
    /// About filltop itself: something it cannot see or cannot deliver.
    Health,
}

impl EventKind {
    /// The name used in the JSON.
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

/// The severity of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Needs attention today.
    Warning,
    /// Needs attention now.
    Critical,
}

impl Severity {
    /// The name used in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// One line of `filltop watch --json`. Bytes and seconds; unknown is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`crate::snapshot::SCHEMA`].
    pub schema: u32,
    /// When the event was raised.
    pub time: Timestamp,
    /// The kind of event.
    pub event: EventKind,
    /// Name of the rule; of a health event, its topic.
    pub rule: String,
    /// Severity of the alert; of `resolved`, the severity that it had.
    pub severity: Severity,
    /// Mount point of the volume; `None` for health events that do not concern a volume.
    pub volume: Option<String>,
    /// The directory that grows most, or the one that the rule watches.
    pub directory: Option<String>,
    /// One sentence that a tired operator understands.
    pub summary: String,
    /// Space on the volume available to users other than root, bytes.
    pub avail_bytes: Option<u64>,
    /// Estimated seconds until the volume is full.
    pub eta_s: Option<f64>,
    /// Seconds until it is full if the present pace goes on; no alert is about it alone.
    #[serde(default)]
    pub pace_s: Option<f64>,
    /// The processes that fill the volume, at most three, largest growth first.
    pub culprits: Vec<Writer>,
    /// Processes whose writes fail or stall because of it.
    pub victims: Vec<Victim>,
    /// Space on the volume held by deleted files that are still open, bytes.
    pub held_bytes: Option<u64>,
    /// A suggested action; `None` if no safe one is known.
    pub suggestion: Option<Suggestion>,
    /// Name of the host.
    pub host: String,
    /// Identifies the alert: the same for all of its events.
    pub key: String,
    /// Unique for each event, so that a receiver can detect duplicates.
    pub id: String,
    /// When the alert began.
    pub since: Timestamp,
    /// Whether this event ends what an earlier event with the same `key` began. True for every
    /// `resolved`, and for `health` events that report a recovery.
    #[serde(rename = "over")]
    pub resolved: bool,
}

impl Event {
    /// Creates a health event: a message about filltop itself. `topic` is what it is about.
    #[must_use]
    pub fn health(
        time: Timestamp,
        host: &str,
        topic: &str,
        severity: Severity,
        summary: String,
    ) -> Self {
        Self {
            schema: crate::snapshot::SCHEMA,
            time,
            event: EventKind::Health,
            rule: topic.to_owned(),
            severity,
            volume: None,
            directory: None,
            summary,
            avail_bytes: None,
            eta_s: None,
            pace_s: None,
            culprits: Vec::new(),
            victims: Vec::new(),
            held_bytes: None,
            suggestion: None,
            host: host.to_owned(),
            key: format!("{host}/health/{topic}"),
            id: format!("{host}/health/{topic}/{}", time.as_millisecond()),
            since: time,
            resolved: false,
        }
    }

    /// Narrows a health event to one of several subjects, such as one hook or one sink, with a key
    /// of its own.
    #[must_use]
    pub fn for_subject(mut self, subject: &str) -> Self {
        self.key = format!("{}/{subject}", self.key);
        self.id = format!("{}/{subject}", self.id);
        self
    }

    /// Marks the event as the end of what an earlier event with its key began.
    #[must_use]
    pub fn resolving(mut self) -> Self {
        self.resolved = true;
        self
    }
}
