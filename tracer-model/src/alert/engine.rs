//! The alert engine: the state of all rules and alerts, and which events are due.

use std::collections::HashMap;

use jiff::Timestamp;

use super::event::{Event, EventKind, Severity};
use super::health::HealthChecks;
use super::message::AlertMessage;
use super::rule::{Condition, Rule};
use super::rule_state::{Alert, RuleState};
use super::sizes::DirectorySize;
use super::state::VolumeState;
use super::time::EvalTime;
use crate::sanitize::display;
use crate::snapshot::{SCHEMA, Snapshot, Suggestion, Volume, Writer, is_below};
use crate::verdict;

/// Maximum number of victims in an event.
const MAX_VICTIMS: usize = 5;

/// An active alert, whether it has been sent or not, as shown by `filltop check`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActiveAlert<'e> {
    /// The rule that raised it.
    pub rule: &'e Rule,
    /// The highest severity whose threshold is reached.
    pub severity: Severity,
    /// Mount point of the volume.
    pub volume: &'e str,
    /// The last value, in the unit of the rule's condition.
    pub value: f64,
    /// When the alert began.
    pub since: Timestamp,
    /// Whether another rule that fires for the volume inhibits it.
    pub inhibited: bool,
}

/// All rules with the states of their alerts.
#[derive(Debug, Clone)]
pub struct Engine {
    rules: Vec<RuleState>,
    volumes: HashMap<String, VolumeState>,
    verdicts: verdict::Engine,
    health: HealthChecks,
    last_s: Option<f64>,
    events: u64,
}

impl Engine {
    /// Creates an engine without any history.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules: rules.into_iter().map(RuleState::new).collect(),
            volumes: HashMap::new(),
            verdicts: verdict::Engine::default(),
            health: HealthChecks::default(),
            last_s: None,
            events: 0,
        }
    }

    /// The rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|state| &state.rule)
    }

    /// Replaces the rules. Alerts of a rule whose name and condition are unchanged are kept; all
    /// others are dropped without an event, since they are no longer configured.
    pub fn replace_rules(&mut self, rules: Vec<Rule>) {
        let mut old = std::mem::take(&mut self.rules);
        self.rules = rules
            .into_iter()
            .map(|rule| {
                let same = |state: &RuleState| {
                    state.rule.name == rule.name && state.rule.condition == rule.condition
                };
                match old.iter().position(same) {
                    Some(at) => RuleState { rule, ..old.swap_remove(at) },
                    None => RuleState::new(rule),
                }
            })
            .collect();
    }

    /// Acknowledges active alerts: no reminders until the severity changes or they fire again.
    /// `None` matches any rule or volume. Returns the number of alerts acknowledged.
    pub fn acknowledge(&mut self, rule: Option<&str>, volume: Option<&str>) -> usize {
        let mut count = 0;
        for state in &mut self.rules {
            if rule.is_some_and(|rule| rule != state.rule.name) {
                continue;
            }
            for alert in state.alerts.values_mut() {
                let matches = volume.is_none_or(|volume| volume == alert.volume);
                if matches && alert.last_notice.is_some() && !alert.acknowledged {
                    alert.acknowledged = true;
                    count += 1;
                }
            }
        }
        count
    }

    /// The active alerts.
    pub fn active_alerts(&self) -> impl Iterator<Item = ActiveAlert<'_>> {
        self.rules.iter().flat_map(move |state| {
            state.alerts.values().filter_map(move |alert| {
                let severity = alert.severity()?;
                Some(ActiveAlert {
                    rule: &state.rule,
                    severity,
                    volume: &alert.volume,
                    value: alert.value,
                    since: alert.since,
                    inhibited: self.is_inhibited(&state.rule, &alert.volume, severity),
                })
            })
        })
    }

    /// Evaluates all rules on a Snapshot and returns the events that are due. `sizes` holds the
    /// declared directories whose size is known so far.
    pub fn evaluate(
        &mut self,
        at: &EvalTime,
        snapshot: &Snapshot,
        sizes: &[DirectorySize],
    ) -> Vec<Event> {
        let now = at.steady_s;
        let dt = self.last_s.map_or(snapshot.interval_s, |last| (now - last).max(0.0));
        self.last_s = Some(now);
        let mut events = self.health.check(at, snapshot);
        events.extend(self.unmounted(at, snapshot));
        self.update_volumes(now, dt, snapshot);
        for state in &mut self.rules {
            state.evaluate(at, dt, snapshot, &self.volumes, sizes);
        }
        events.extend(self.due_events(at, dt, snapshot));
        for state in &mut self.rules {
            state.alerts.retain(|_, alert| {
                alert.last_notice.is_some() || !alert.warning.is_idle() || !alert.critical.is_idle()
            });
        }
        events
    }

    /// Health events for volumes that a rule names and that are no longer mounted.
    fn unmounted(&self, at: &EvalTime, snapshot: &Snapshot) -> Vec<Event> {
        let is_named = |name: &String| {
            self.rules().any(|rule| {
                let directory = rule.condition.directory();
                let path = directory.filter(|path| name != "/" && is_below(path, name));
                path.is_some() || (!rule.volumes.is_empty() && rule.applies_to(name))
            })
        };
        let is_mounted =
            |name: &String| snapshot.volumes.iter().any(|row| row.mount_point == *name);
        let mut unmounted: Vec<&String> =
            self.volumes.keys().filter(|name| !is_mounted(name) && is_named(name)).collect();
        unmounted.sort();
        let event = |name: &String| {
            let summary =
                format!("{} is no longer mounted, but a rule refers to it", display(name));
            let event =
                Event::health(at.wall, &snapshot.host, "volume", Severity::Warning, summary);
            Event { volume: Some(name.clone()), ..event.for_subject(name) }
        };
        unmounted.into_iter().map(event).collect()
    }

    fn update_volumes(&mut self, now: f64, dt: f64, snapshot: &Snapshot) {
        self.volumes.retain(|name, _| snapshot.volumes.iter().any(|row| row.mount_point == *name));
        let mut writers: HashMap<&str, Vec<&Writer>> = HashMap::new();
        for row in &snapshot.writers {
            writers.entry(&row.volume).or_default().push(row);
        }
        let mut concluded = self.verdicts.conclude(snapshot);
        for volume in &snapshot.volumes {
            let name = volume.mount_point.as_str();
            if !self.volumes.contains_key(name) {
                self.volumes.insert(name.to_owned(), VolumeState::default());
            }
            let Some(state) = self.volumes.get_mut(name) else { continue };
            let writers = writers.get(name).map_or(&[][..], Vec::as_slice);
            state.update(now, dt, volume, writers);
            // Who made the Snapshot may have seen more of what led there.
            state.conclusion = match (&volume.verdict, concluded.remove(name)) {
                (Some(verdict), own) => Some(verdict::Conclusion::of(verdict, writers, own)),
                (None, own) => own,
            };
        }
    }

    /// Whether a rule that inhibits this one is active for the volume, with the same severity or a
    /// higher one.
    fn is_inhibited(&self, rule: &Rule, volume: &str, severity: Severity) -> bool {
        let inhibiting =
            self.rules.iter().filter(|other| rule.inhibited_by.contains(&other.rule.name));
        inhibiting
            .flat_map(|other| other.alerts.values())
            .any(|alert| alert.volume == volume && alert.severity() >= Some(severity))
            || self.shows_elsewhere(rule, volume, severity)
    }

    /// Whether the same cause raises the same alert on the volume below: a FUSE filesystem or one on a
    /// loop device fills because its writers fill it, and with it the volume that stores it.
    fn shows_elsewhere(&self, rule: &Rule, volume: &str, severity: Severity) -> bool {
        let same = self.rules.iter().filter(|other| other.rule.name == rule.name);
        let mut alerts = same.flat_map(|other| other.alerts.values());
        alerts.any(|alert| {
            alert.volume != volume && alert.severity() >= Some(severity) && {
                let state = self.volumes.get(&alert.volume);
                let conclusion = state.and_then(|state| state.conclusion.as_ref());
                let mut culprits =
                    conclusion.into_iter().flat_map(|conclusion| &conclusion.verdict.culprits);
                culprits.any(|culprit| {
                    let behalf = culprit.on_behalf_of.as_ref();
                    behalf.is_some_and(|behalf| behalf.mount_point.as_deref() == Some(volume))
                })
            }
        })
    }

    /// The alert events that are due, `dt` seconds after the last evaluation.
    fn due_events(&mut self, at: &EvalTime, dt: f64, snapshot: &Snapshot) -> Vec<Event> {
        let mut due = Vec::new();
        for (index, state) in self.rules.iter().enumerate() {
            for (key, alert) in &state.alerts {
                if let Some(kind) = self.due_kind(at, &state.rule, alert) {
                    due.push((index, key.clone(), kind));
                }
            }
        }
        due.into_iter()
            .filter_map(|(index, key, kind)| {
                self.events += 1;
                let number = self.events;
                let RuleState { rule, alerts, .. } = &mut self.rules[index];
                let alert = alerts.get_mut(&key)?;
                let severity = alert.severity().or(alert.last_notice.map(|last| last.severity))?;
                let eased = alert.last_notice.is_some_and(|last| last.severity > severity);
                alert.note(at, dt, rule, kind, severity);
                let volume = snapshot.volumes.iter().find(|row| row.mount_point == alert.volume);
                if let Some(state) = self.volumes.get(&alert.volume) {
                    alert.update_conclusion(state.conclusion.as_ref());
                }
                let notice = Notice { rule, alert, key: &key, kind, severity, eased, number };
                Some(notice.event(at, snapshot, volume))
            })
            .collect()
    }

    /// The kind of the event that is due for an alert; `None` if there is none.
    fn due_kind(&self, at: &EvalTime, rule: &Rule, alert: &Alert) -> Option<EventKind> {
        let is_quiet = |severity| {
            severity == Severity::Warning
                && rule.quiet.iter().any(|quiet| quiet.contains(at.minute))
        };
        match (alert.severity(), alert.last_notice) {
            (None, None) => None,
            (None, Some(_)) => Some(EventKind::Resolved),
            (Some(severity), _)
                if is_quiet(severity) || self.is_inhibited(rule, &alert.volume, severity) =>
            {
                None
            }
            (Some(severity), Some(last)) if severity == last.severity => {
                let every = rule.repeat_s.unwrap_or(f64::INFINITY);
                let due = !alert.acknowledged && at.steady_s - last.at_s >= every;
                due.then_some(EventKind::Repeat)
            }
            (Some(_), _) => Some(EventKind::Firing),
        }
    }
}

/// A notice about an alert that is due.
struct Notice<'e> {
    rule: &'e Rule,
    alert: &'e Alert,
    /// Identifies the alert within its rule.
    key: &'e str,
    kind: EventKind,
    severity: Severity,
    /// Whether the severity was higher before.
    eased: bool,
    /// Number of the event since the start.
    number: u64,
}

impl Notice<'_> {
    /// Makes the event. `volume` is `None` if it is no longer mounted.
    fn event(self, at: &EvalTime, snapshot: &Snapshot, volume: Option<&Volume>) -> Event {
        let Self { rule, alert, kind, severity, .. } = self;
        let conclusion = alert.conclusion.as_ref();
        let mut victims: Vec<_> = match conclusion {
            Some(conclusion) => conclusion.verdict.victims.clone(),
            None => Vec::new(),
        };
        victims.truncate(MAX_VICTIMS);
        let directory = match rule.condition.directory() {
            Some(path) => Some(path.to_owned()),
            None => conclusion.and_then(|conclusion| {
                let first = conclusion.verdict.culprits.first();
                first.and_then(|first| first.directory.clone())
            }),
        };
        let message = AlertMessage {
            rule,
            kind,
            eased: self.eased,
            severity,
            value: alert.value,
            mount_point: &alert.volume,
            volume,
            writer: alert.writer.as_deref(),
            directory: directory.as_deref(),
            verdict: conclusion.map(|conclusion| &conclusion.verdict),
            victims: &victims,
        };
        let summary = message.summary();
        // The visible writers are not the ones that fill the volume.
        let culprits = match conclusion {
            Some(conclusion) if !conclusion.verdict.mostly_unexplained => {
                conclusion.writers.clone()
            }
            _ => Vec::new(),
        };
        let resolved = kind == EventKind::Resolved;
        let suggestion = if resolved { None } else { suggest(rule, snapshot, volume, conclusion) };
        let key = format!("{}/{}/{}", snapshot.host, rule.name, self.key);
        Event {
            schema: SCHEMA,
            time: at.wall,
            event: kind,
            rule: rule.name.clone(),
            severity,
            volume: Some(alert.volume.clone()),
            directory,
            summary,
            avail_bytes: volume.map(|volume| volume.avail_bytes),
            eta_s: volume.and_then(|volume| volume.eta_s),
            pace_s: volume.and_then(|volume| volume.pace_s),
            culprits,
            victims,
            held_bytes: volume.and_then(|volume| volume.held_bytes),
            suggestion,
            host: snapshot.host.clone(),
            id: format!("{key}/{}/{}", at.wall.as_millisecond(), self.number),
            key,
            since: alert.since,
            resolved,
        }
    }
}

/// The next step for an alert: for held space, to end the holder; otherwise the verdict's, or a freeze
/// of its culprit where a rule fires before the volume is in danger.
fn suggest(
    rule: &Rule,
    snapshot: &Snapshot,
    volume: Option<&Volume>,
    conclusion: Option<&verdict::Conclusion>,
) -> Option<Suggestion> {
    let volume = volume?;
    if rule.condition == Condition::Held {
        return verdict::end_holder(snapshot, volume, 0.0);
    }
    let verdict = &conclusion?.verdict;
    verdict.suggestion.clone().or_else(|| verdict::for_culprit(snapshot, volume, verdict).ok())
}
