//! The alert engine: the state of all rules and alerts, and which events are due.

use std::collections::HashMap;

use jiff::Timestamp;

use super::event::{Event, EventKind, Severity};
use super::health::Health;
use super::rule::Rule;
use super::rule_state::{Told, Watched};
use super::sizes::{DirBytes, is_below};
use super::state::VolumeMemory;
use super::{Moment, message};
use crate::snapshot::{GroupRow, SCHEMA, Snapshot, Writer};

/// Below this estimate of the time to full, seconds, culprits are ranked by the last seconds
/// instead of the last quarter of an hour.
const URGENT_S: f64 = 1800.0;
/// Maximum number of victims in an event.
const VICTIMS: usize = 5;

/// An active alert, whether it has been sent or not, as shown by `filltop check`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing<'e> {
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
    pub muted: bool,
}

/// All rules with the states of their alerts.
#[derive(Debug, Clone)]
pub struct Engine {
    watched: Vec<Watched>,
    volumes: HashMap<String, VolumeMemory>,
    health: Health,
    last_s: Option<f64>,
    events: u64,
}

impl Engine {
    /// Creates an engine without any history.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            watched: rules.into_iter().map(Watched::new).collect(),
            volumes: HashMap::new(),
            health: Health::default(),
            last_s: None,
            events: 0,
        }
    }

    /// The rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.watched.iter().map(|watched| &watched.rule)
    }

    /// Replaces the rules. Alerts of a rule whose name and condition are unchanged are kept; all
    /// others are dropped without an event, since they are no longer configured.
    pub fn replace_rules(&mut self, rules: Vec<Rule>) {
        let mut old = std::mem::take(&mut self.watched);
        self.watched = rules
            .into_iter()
            .map(|rule| {
                let same = |w: &Watched| w.rule.name == rule.name && w.rule.when == rule.when;
                match old.iter().position(same) {
                    Some(at) => Watched { rule, ..old.swap_remove(at) },
                    None => Watched::new(rule),
                }
            })
            .collect();
    }

    /// Acknowledges active alerts: no reminders until the severity changes or they fire again.
    /// `None` matches any rule or volume. Returns the number of alerts acknowledged.
    pub fn acknowledge(&mut self, rule: Option<&str>, volume: Option<&str>) -> usize {
        let mut count = 0;
        for watched in &mut self.watched {
            if rule.is_some_and(|rule| rule != watched.rule.name) {
                continue;
            }
            for alert in watched.alerts.values_mut() {
                let meant = volume.is_none_or(|volume| volume == alert.volume);
                if meant && alert.told.is_some() && !alert.acknowledged {
                    alert.acknowledged = true;
                    count += 1;
                }
            }
        }
        count
    }

    /// The active alerts.
    pub fn standing(&self) -> impl Iterator<Item = Standing<'_>> {
        self.watched.iter().flat_map(move |watched| {
            watched.alerts.values().filter_map(move |alert| {
                let severity = alert.level()?;
                Some(Standing {
                    rule: &watched.rule,
                    severity,
                    volume: &alert.volume,
                    value: alert.value,
                    since: alert.since,
                    muted: self.is_muted(&watched.rule, &alert.volume, severity),
                })
            })
        })
    }

    /// Evaluates all rules on a Snapshot and returns the events that are due. `sizes` holds the
    /// declared directories whose size is known so far.
    pub fn see(&mut self, at: &Moment, snapshot: &Snapshot, sizes: &[DirBytes]) -> Vec<Event> {
        let now = at.steady_s;
        let dt = self.last_s.map_or(snapshot.interval_s, |last| (now - last).max(0.0));
        self.last_s = Some(now);
        let mut events = self.health.see(at, snapshot);
        events.extend(self.gone(at, snapshot));
        self.remember(now, dt, snapshot);
        for watched in &mut self.watched {
            watched.look(at, dt, snapshot, &self.volumes, sizes);
        }
        events.extend(self.say(at, dt, snapshot));
        for watched in &mut self.watched {
            watched.alerts.retain(|_, alert| {
                alert.told.is_some() || !alert.warning.is_idle() || !alert.critical.is_idle()
            });
        }
        events
    }

    /// Health events for volumes that a rule names and that are no longer mounted.
    fn gone(&self, at: &Moment, snapshot: &Snapshot) -> Vec<Event> {
        let is_named = |name: &String| {
            self.rules().any(|rule| {
                let path = rule.when.directory().filter(|path| name != "/" && is_below(path, name));
                path.is_some() || (!rule.volumes.is_empty() && rule.wants(name))
            })
        };
        let is_gone =
            |name: &&String| !snapshot.volumes.iter().any(|row| row.mount_point == **name);
        let mut gone: Vec<&String> =
            self.volumes.keys().filter(is_gone).filter(|name| is_named(name)).collect();
        gone.sort();
        gone.into_iter()
            .map(|name| {
                let words = format!(
                    "{} is no longer mounted, but a rule refers to it",
                    message::safe(name)
                );
                let event =
                    Event::health(at.wall, &snapshot.host, "volume", Severity::Warning, words);
                Event { volume: Some(name.clone()), ..event.of(name) }
            })
            .collect()
    }

    fn remember(&mut self, now: f64, dt: f64, snapshot: &Snapshot) {
        self.volumes.retain(|name, _| snapshot.volumes.iter().any(|row| row.mount_point == *name));
        let mut writers: HashMap<&str, Vec<&Writer>> = HashMap::new();
        for row in &snapshot.writers {
            writers.entry(&row.volume).or_default().push(row);
        }
        let mut groups: HashMap<&str, Vec<&GroupRow>> = HashMap::new();
        for row in &snapshot.groups {
            groups.entry(&row.volume).or_default().push(row);
        }
        for volume in &snapshot.volumes {
            let name = volume.mount_point.as_str();
            if !self.volumes.contains_key(name) {
                self.volumes.insert(name.to_owned(), VolumeMemory::default());
            }
            let Some(memory) = self.volumes.get_mut(name) else { continue };
            let writers = writers.get(name).map_or(&[][..], Vec::as_slice);
            let groups = groups.get(name).map_or(&[][..], Vec::as_slice);
            memory.see(now, dt, volume, writers);
            memory.blame.fade(dt);
            memory.blame.see(now, snapshot.interval_s, writers, groups);
        }
    }

    /// Whether a rule that inhibits this one is active for the volume, with the same severity or a
    /// higher one.
    fn is_muted(&self, rule: &Rule, volume: &str, severity: Severity) -> bool {
        self.watched.iter().filter(|other| rule.yields_to.contains(&other.rule.name)).any(|other| {
            other
                .alerts
                .values()
                .any(|alert| alert.volume == volume && alert.level() >= Some(severity))
        })
    }

    /// The alert events that are due, `dt` seconds after the last evaluation.
    fn say(&mut self, at: &Moment, dt: f64, snapshot: &Snapshot) -> Vec<Event> {
        let mut due = Vec::new();
        for (index, watched) in self.watched.iter().enumerate() {
            for (key, alert) in &watched.alerts {
                let is_quiet = |severity| {
                    severity == Severity::Warning
                        && watched.rule.quiet.iter().any(|quiet| quiet.holds(at.minute))
                };
                let muted = |severity| self.is_muted(&watched.rule, &alert.volume, severity);
                let kind = match (alert.level(), alert.told) {
                    (None, None) => continue,
                    (None, Some(_)) => EventKind::Resolved,
                    (Some(level), _) if is_quiet(level) || muted(level) => continue,
                    (Some(level), Some(told)) if level == told.severity => {
                        let every = watched.rule.repeat_s.unwrap_or(f64::INFINITY);
                        if alert.acknowledged || at.steady_s - told.at_s < every {
                            continue;
                        }
                        EventKind::Repeat
                    }
                    (Some(_), _) => EventKind::Firing,
                };
                due.push((index, key.clone(), kind));
            }
        }
        due.into_iter()
            .filter_map(|(index, key, kind)| self.event((at, dt), snapshot, index, &key, kind))
            .collect()
    }

    fn event(
        &mut self,
        (at, dt): (&Moment, f64),
        snapshot: &Snapshot,
        index: usize,
        key: &str,
        kind: EventKind,
    ) -> Option<Event> {
        self.events += 1;
        let Watched { rule, alerts, .. } = &mut self.watched[index];
        let alert = alerts.get_mut(key)?;
        let severity = alert.level().or(alert.told.map(|told| told.severity))?;
        let eased = alert.told.is_some_and(|told| told.severity > severity);
        if kind == EventKind::Firing {
            alert.acknowledged = false;
            if alert.told.is_none() {
                alert.since = at.wall;
            }
        }
        let at_s = match alert.told {
            // Keep to the schedule: otherwise samples that arrive slightly early would lengthen
            // every interval. A reminder that was due earlier and was held back starts a new
            // schedule, or the next one would come too soon.
            Some(told) if kind == EventKind::Repeat => {
                let every = rule.repeat_s.unwrap_or(f64::INFINITY);
                let planned = told.at_s + every * ((at.steady_s - told.at_s) / every).floor();
                if at.steady_s - planned < dt { planned } else { at.steady_s }
            }
            _ => at.steady_s,
        };
        alert.told = (kind != EventKind::Resolved).then_some(Told { severity, at_s });
        let volume = snapshot.volumes.iter().find(|row| row.mount_point == alert.volume);
        if let Some(memory) = self.volumes.get(&alert.volume) {
            let urgent = volume.is_some_and(|v| v.full || v.eta_s.is_some_and(|s| s < URGENT_S));
            let (culprits, first_share) = memory.blame.culprits(urgent);
            if !culprits.is_empty() {
                alert.culprits = culprits;
                alert.first_share = first_share;
                alert.group = memory.blame.group(urgent);
            }
        }
        let mut victims: Vec<_> =
            snapshot.victims.iter().filter(|row| row.volume == alert.volume).cloned().collect();
        victims.truncate(VICTIMS);
        let directory = match rule.when.directory() {
            Some(path) => Some(path.to_owned()),
            None => message::where_it_grows(snapshot, &alert.volume, alert.group.as_ref()),
        };
        let told = message::Told {
            rule,
            kind,
            eased,
            severity,
            value: alert.value,
            mount_point: &alert.volume,
            volume,
            who: alert.who.as_deref(),
            directory: directory.as_deref(),
            culprits: &alert.culprits,
            first_share: alert.first_share,
            group: alert.group.as_ref(),
            victims: &victims,
        };
        let summary = told.summary();
        // The visible writers are not the ones that fill the volume.
        let culprits = if told.hides_most() { Vec::new() } else { alert.culprits.clone() };
        let suggestion = if kind == EventKind::Resolved { None } else { told.suggestion(snapshot) };
        let key = format!("{}/{}/{key}", snapshot.host, rule.name);
        Some(Event {
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
            culprits,
            victims,
            held_bytes: volume.and_then(|volume| volume.held_bytes),
            suggestion,
            host: snapshot.host.clone(),
            id: format!("{key}/{}/{}", at.wall.as_millisecond(), self.events),
            key,
            since: alert.since,
            over: kind == EventKind::Resolved,
        })
    }
}
