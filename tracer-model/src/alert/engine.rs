//! The state of all alerts, and what is said when.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::blame::GroupBlame;
use super::event::{Event, EventKind, Severity};
use super::health::Health;
use super::latch::{Latch, Waits};
use super::memory::{DirMemory, VolumeMemory};
use super::rule::{Rule, When};
use super::sizes::{DirBytes, flow, volume_of};
use super::{Moment, measure, words};
use crate::snapshot::{SCHEMA, Snapshot, Volume, Writer};

/// An estimate under this makes the last seconds count for who is to blame, seconds.
const URGENT_S: f64 = 1800.0;
/// An alert whose volume is not mounted any more ends after this, seconds.
const GONE_S: f64 = 10.0;
/// Victims of an event.
const VICTIMS: usize = 5;

/// What was last said of an alert.
#[derive(Debug, Clone, Copy)]
struct Told {
    severity: Severity,
    at_s: f64,
}

/// One alert of one rule.
#[derive(Debug, Clone)]
struct Alert {
    volume: String,
    /// The name that a rate rule found.
    who: Option<String>,
    warning: Latch,
    critical: Latch,
    value: f64,
    since: Timestamp,
    seen_s: f64,
    told: Option<Told>,
    acknowledged: bool,
    /// Those of the last event that had some: nobody grows on a full volume.
    culprits: Vec<Writer>,
    group: Option<GroupBlame>,
}

impl Alert {
    fn level(&self) -> Option<Severity> {
        let warning = self.warning.on.then_some(Severity::Warning);
        if self.critical.on { Some(Severity::Critical) } else { warning }
    }
}

#[derive(Debug, Clone)]
struct Watched {
    rule: Rule,
    alerts: BTreeMap<String, Alert>,
    directory: DirMemory,
}

impl Watched {
    fn new(rule: Rule) -> Self {
        Self { rule, alerts: BTreeMap::new(), directory: DirMemory::default() }
    }
}

/// An alert that is on, told or not: what `filltop check` and metrics show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing<'e> {
    /// Its rule.
    pub rule: &'e Rule,
    /// How bad it is.
    pub severity: Severity,
    /// Mount point.
    pub volume: &'e str,
    /// The last value, in the unit of the rule.
    pub value: f64,
    /// Since when.
    pub since: Timestamp,
    /// Is a rule that says more firing for the volume?
    pub muted: bool,
}

/// All rules with the state of their alerts.
#[derive(Debug, Clone)]
pub struct Engine {
    watched: Vec<Watched>,
    volumes: HashMap<String, VolumeMemory>,
    health: Health,
    last_s: Option<f64>,
    events: u64,
}

impl Engine {
    /// Nothing has been seen yet.
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

    /// Takes other rules. Alerts of a rule that still looks at the same value go on; the others end
    /// without a word: nobody asks for them any more.
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

    /// Ends the reminders of alerts that are on, until they get worse or come again. `None` means
    /// any. How many it were.
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

    /// Alerts that are on.
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

    /// Takes in a Snapshot; what is to be said. `sizes` are those of the declared directories that
    /// are known by now.
    pub fn see(&mut self, at: &Moment, snapshot: &Snapshot, sizes: &[DirBytes]) -> Vec<Event> {
        let now = at.steady_s;
        let dt = self.last_s.map_or(snapshot.interval_s, |last| (now - last).max(0.0));
        self.last_s = Some(now);
        let mut events = self.health.see(at, snapshot);
        self.remember(now, dt, snapshot);
        for watched in &mut self.watched {
            watched.look(at, dt, snapshot, &self.volumes, sizes);
        }
        events.extend(self.say(at, snapshot));
        for watched in &mut self.watched {
            watched.alerts.retain(|_, alert| {
                alert.told.is_some() || !alert.warning.is_idle() || !alert.critical.is_idle()
            });
        }
        events
    }

    fn remember(&mut self, now: f64, dt: f64, snapshot: &Snapshot) {
        self.volumes.retain(|name, _| snapshot.volumes.iter().any(|row| row.mount_point == *name));
        for volume in &snapshot.volumes {
            if !self.volumes.contains_key(&volume.mount_point) {
                self.volumes.insert(volume.mount_point.clone(), VolumeMemory::default());
            }
            let Some(memory) = self.volumes.get_mut(&volume.mount_point) else { continue };
            memory.see(now, dt, volume);
            memory.blame.fade(dt);
            let here = |name: &str| name == volume.mount_point;
            memory.blame.see(
                now,
                snapshot.interval_s,
                snapshot.writers.iter().filter(|row| here(&row.volume)),
                snapshot.groups.iter().filter(|row| here(&row.volume)),
            );
        }
    }

    /// Does a rule that says more fire for this volume?
    fn is_muted(&self, rule: &Rule, volume: &str, severity: Severity) -> bool {
        self.watched.iter().filter(|other| rule.yields_to.contains(&other.rule.name)).any(|other| {
            other
                .alerts
                .values()
                .any(|alert| alert.volume == volume && alert.level() >= Some(severity))
        })
    }

    fn say(&mut self, at: &Moment, snapshot: &Snapshot) -> Vec<Event> {
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
            .filter_map(|(index, key, kind)| self.event(at, snapshot, index, &key, kind))
            .collect()
    }

    fn event(
        &mut self,
        at: &Moment,
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
        alert.told = (kind != EventKind::Resolved).then_some(Told { severity, at_s: at.steady_s });
        let volume = snapshot.volumes.iter().find(|row| row.mount_point == alert.volume);
        if let Some(memory) = self.volumes.get(&alert.volume) {
            let urgent = volume.is_some_and(|v| v.full || v.eta_s.is_some_and(|s| s < URGENT_S));
            let culprits = memory.blame.culprits(urgent);
            if !culprits.is_empty() {
                alert.culprits = culprits;
                alert.group = memory.blame.group(urgent);
            }
        }
        let mut victims: Vec<_> =
            snapshot.victims.iter().filter(|row| row.volume == alert.volume).cloned().collect();
        victims.truncate(VICTIMS);
        let directory = match rule.when.directory() {
            Some(path) => Some(path.to_owned()),
            None => words::where_it_grows(snapshot, &alert.volume, alert.group.as_ref()),
        };
        let told = words::Told {
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
            group: alert.group.as_ref(),
            victims: &victims,
        };
        let summary = told.summary();
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
            culprits: alert.culprits.clone(),
            victims,
            held_bytes: volume.and_then(|volume| volume.held_bytes),
            suggestion,
            host: snapshot.host.clone(),
            id: format!("{key}/{}/{}", at.wall.as_millisecond(), self.events),
            key,
            since: alert.since,
        })
    }
}

impl Watched {
    /// Looks at all that the rule is about.
    fn look(
        &mut self,
        at: &Moment,
        dt: f64,
        snapshot: &Snapshot,
        memories: &HashMap<String, VolumeMemory>,
        sizes: &[DirBytes],
    ) {
        let now = at.steady_s;
        let find = |name: &str| snapshot.volumes.iter().find(|row| row.mount_point == name);
        match &self.rule.when {
            When::WriterRate { .. } | When::GroupRate { .. } => {
                for ((mount_point, who), rate) in measure::rates(&self.rule.when, snapshot) {
                    if let Some(volume) = find(mount_point) {
                        self.take(at, volume, &format!("{mount_point}\n{who}"), Some(who), rate);
                    }
                }
                // Who writes nothing has no row.
                let unseen: Vec<(String, String)> = self
                    .alerts
                    .iter()
                    .filter(|(_, alert)| alert.seen_s < now)
                    .map(|(key, alert)| (key.clone(), alert.volume.clone()))
                    .collect();
                for (key, mount_point) in unseen {
                    if let Some(volume) = find(&mount_point) {
                        self.take(at, volume, &key, None, 0.0);
                    }
                }
            }
            when => match when.directory() {
                Some(path) => {
                    let Some(volume) = volume_of(snapshot, path).and_then(find) else { return };
                    let size = sizes.iter().find(|size| size.path == path);
                    if let Some(value) = self.of_directory(now, dt, snapshot, size) {
                        self.take(at, volume, &volume.mount_point, None, value);
                    }
                }
                None => {
                    for volume in snapshot.volumes.iter().filter(|volume| !volume.read_only) {
                        let Some(memory) = memories.get(&volume.mount_point) else { continue };
                        let when = &self.rule.when;
                        if let Some(value) = measure::of_volume(when, now, snapshot, volume, memory)
                        {
                            self.take(at, volume, &volume.mount_point, None, value);
                        }
                    }
                }
            },
        }
        self.end_unmounted(now, snapshot);
    }

    fn of_directory(
        &mut self,
        now: f64,
        dt: f64,
        snapshot: &Snapshot,
        size: Option<&DirBytes>,
    ) -> Option<f64> {
        match &self.rule.when {
            When::DirSize { .. } => size.map(|size| size.bytes as f64),
            When::DirGrowth { per_s, .. } => {
                let (per_s, bytes) = (*per_s, size?.bytes);
                Some(self.directory.grown(now, per_s, bytes))
            }
            When::Drain { path } => {
                let flow = flow(snapshot, path);
                let fade = (self.rule.hold_s / 2.0).max(10.0);
                self.directory.flowed(dt, fade, flow.inflow_bytes, flow.outflow_bytes?);
                Some(self.directory.drain())
            }
            _ => None,
        }
    }

    /// Takes in one value of one subject.
    fn take(&mut self, at: &Moment, volume: &Volume, key: &str, who: Option<&str>, value: f64) {
        if !self.rule.wants(&volume.mount_point) {
            return;
        }
        let judged = [Severity::Warning, Severity::Critical]
            .map(|severity| self.rule.judge(severity, value));
        if !self.alerts.contains_key(key) {
            if !judged.iter().flatten().any(|(bad, _)| *bad) {
                return;
            }
            let alert = Alert {
                volume: volume.mount_point.clone(),
                who: who.map(str::to_owned),
                warning: Latch::default(),
                critical: Latch::default(),
                value,
                since: at.wall,
                seen_s: at.steady_s,
                told: None,
                acknowledged: false,
                culprits: Vec::new(),
                group: None,
            };
            self.alerts.insert(key.to_owned(), alert);
        }
        let Some(alert) = self.alerts.get_mut(key) else { return };
        alert.value = value;
        alert.seen_s = at.steady_s;
        let waits =
            Waits { hold_s: self.rule.hold_s, clear_s: self.rule.clear_s, pinned: volume.full };
        for (latch, judged) in [&mut alert.warning, &mut alert.critical].into_iter().zip(judged) {
            // A threshold that a reload took away is not over any more.
            latch.see(at.steady_s, judged.unwrap_or((false, true)), waits);
        }
    }

    /// Alerts whose volume is gone.
    fn end_unmounted(&mut self, now: f64, snapshot: &Snapshot) {
        for alert in self.alerts.values_mut().filter(|alert| now - alert.seen_s > GONE_S) {
            if !snapshot.volumes.iter().any(|row| row.mount_point == alert.volume) {
                alert.warning = Latch::default();
                alert.critical = Latch::default();
            }
        }
    }
}
