//! `[guard]` of the configuration: the conditions for acting, and the actions.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::action::Action;
use crate::action::pattern::Pattern;
use crate::units::parse;

/// The `[guard]` section. Off unless `enabled`; only reports what it would do unless `dry_run` is
/// false.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Whether the guard runs at all.
    pub enabled: bool,
    /// Whether the guard only reports what it would do.
    pub dry_run: bool,
    /// Mount points that are guarded; empty for all.
    pub volumes: Vec<String>,
    /// A volume that will be full within this time is in danger, and so is a full one.
    pub within: Seconds,
    /// Minimum share of the volume's growth that makes a group the culprit, 0.5..=1.
    pub share: f64,
    /// Time over which the share is computed, counting only intervals in which the volume grew. The
    /// share must be reached in both halves of it.
    #[serde(rename = "for")]
    pub length: Seconds,
    /// The actions, in this order.
    pub ladder: Vec<Action>,
    /// Time for an operator to intervene after a freeze, before the next step.
    pub wait: Seconds,
    /// Minimum time between the later steps, while the volume is still in danger.
    pub step: Seconds,
    /// Rate of a throttle, bytes per second.
    pub throttle_bytes_per_s: u64,
    /// Time limit of a freeze, throttle or fence, after which it ends even without a further step.
    pub hold: Seconds,
    /// Maximum number of actions in any hour, over all volumes.
    pub max_per_hour: u32,
    /// Minimum time between two actions, and how long a danger must be over before a new episode
    /// begins.
    pub cool_down: Seconds,
    /// Groups that are the culprit with half of `share` or more.
    pub prefer: Vec<Pattern>,
    /// Groups and processes that are never acted on.
    pub avoid: Vec<Pattern>,
    /// Groups whose growth is not counted.
    pub ignore: Vec<Pattern>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            dry_run: true,
            volumes: Vec::new(),
            within: Seconds(600.0),
            share: 0.8,
            length: Seconds(10.0),
            ladder: vec![Action::Freeze, Action::Throttle, Action::Term, Action::Kill],
            wait: Seconds(300.0),
            step: Seconds(60.0),
            throttle_bytes_per_s: 1 << 20,
            hold: Seconds(3600.0),
            max_per_hour: 4,
            cool_down: Seconds(60.0),
            prefer: Vec::new(),
            avoid: Vec::new(),
            ignore: Vec::new(),
        }
    }
}

impl GuardConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// One line that names the invalid field.
    pub fn check(&self) -> Result<(), String> {
        if !(0.5..=1.0).contains(&self.share) {
            return Err(format!("guard.share is {}: it must be between 0.5 and 1", self.share));
        }
        if self.ladder.is_empty() {
            return Err("guard.ladder is empty; list at least one step".to_owned());
        }
        if let Some(step) = self.ladder.iter().find(|how| !STEPS.contains(how)) {
            return Err(format!(
                "guard.ladder contains {}; use freeze, throttle, fence, term, kill and unit only",
                step.name()
            ));
        }
        // In any other order, a reversible step could follow one that cannot be undone.
        if !self.ladder.is_sorted() || self.ladder.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(
                "guard.ladder must list each step at most once, in the order freeze, throttle, fence, \
                 term, kill, unit"
                    .to_owned(),
            );
        }
        if self.max_per_hour == 0 {
            return Err("guard.max_per_hour is 0; set guard.enabled = false instead".to_owned());
        }
        if self.throttle_bytes_per_s < 1024 {
            return Err("guard.throttle_bytes_per_s must be at least 1024".to_owned());
        }
        let longest = self.wait.0.max(self.step.0);
        if self.hold.0 <= longest {
            return Err(format!(
                "guard.hold ({}) must be longer than guard.wait and guard.step ({longest} s)",
                self.hold.text()
            ));
        }
        Ok(())
    }
}

const STEPS: [Action; 6] =
    [Action::Freeze, Action::Throttle, Action::Fence, Action::Term, Action::Kill, Action::Unit];

/// A duration: `"500ms"`, `"10s"`, `"5m"`, `"1h"`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Seconds(
    /// The duration in seconds.
    pub f64,
);

impl Seconds {
    /// Returns the duration in a form that can be parsed again.
    #[must_use]
    pub fn text(self) -> String {
        format!("{}s", self.0)
    }

    fn parse(text: &str) -> Result<Self, String> {
        parse::seconds(text).map_err(|error| error.to_string()).and_then(Self::new)
    }

    fn new(seconds: f64) -> Result<Self, String> {
        if (0.1..=7.0 * 86_400.0).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err("a duration must be between 100ms and 7 days".to_owned())
        }
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Number(f64),
        }
        let result = match Form::deserialize(deserializer)? {
            Form::Text(text) => Self::parse(&text),
            Form::Number(seconds) => Self::new(seconds),
        };
        result.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<GuardConfig, String> {
        let config: GuardConfig = serde_json::from_str(json).map_err(|e| e.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn the_default_is_disabled_and_a_dry_run() {
        let config = read("{}").unwrap();
        assert!(!config.enabled && config.dry_run);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(read(&text).unwrap(), config);
    }

    #[test]
    fn durations_are_texts_or_numbers() {
        let config = read(r#"{"within": "1h", "for": 20, "wait": "2m"}"#).unwrap();
        let lengths = [config.within.0, config.length.0, config.wait.0];
        assert_eq!(lengths, [3600.0, 20.0, 120.0]);
    }

    #[test]
    fn errors_name_the_invalid_field() {
        for (json, word) in [
            (r#"{"shares": 1}"#, "unknown field"),
            (r#"{"share": 0.2}"#, "guard.share"),
            (r#"{"ladder": []}"#, "guard.ladder"),
            (r#"{"ladder": ["kill", "freeze"]}"#, "guard.ladder"),
            (r#"{"ladder": ["truncate"]}"#, "truncate"),
            (r#"{"max_per_hour": 0}"#, "max_per_hour"),
            (r#"{"within": "soon"}"#, "does not start with a number"),
            (r#"{"hold": "1m"}"#, "guard.hold"),
            (r#"{"avoid": ["("]}"#, "regular expression"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
