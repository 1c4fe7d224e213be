//! The state of one rule: its alerts, with the latches of each subject.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::event::{EventKind, Severity};
use super::latch::{Delays, Latch};
use super::rule::{Comparison, Condition, Rule};
use super::sizes::{DirectorySize, flow};
use super::state::{DirectoryState, VolumeState};
use super::time::EvalTime;
use super::value;
use crate::snapshot::{Snapshot, Volume, volume_of};
use crate::verdict::Conclusion;

/// An alert whose volume is no longer mounted resolves after this time, seconds.
const UNMOUNTED_S: f64 = 10.0;

/// The last event sent for an alert.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastNotice {
    pub(super) severity: Severity,
    pub(super) at_s: f64,
}

/// One alert of one rule: pending, active, or about to resolve.
#[derive(Debug, Clone)]
pub(super) struct Alert {
    pub(super) volume: String,
    /// For a rate rule, the name of the process or group.
    pub(super) writer: Option<String>,
    pub(super) warning: Latch,
    pub(super) critical: Latch,
    pub(super) value: f64,
    pub(super) since: Timestamp,
    pub(super) seen_s: f64,
    pub(super) last_notice: Option<LastNotice>,
    pub(super) acknowledged: bool,
    /// What was concluded when the last event was due that had a culprit, or nothing to name.
    pub(super) conclusion: Option<Conclusion>,
}

impl Alert {
    fn new(at: &EvalTime, volume: &Volume, writer: Option<&str>, value: f64) -> Self {
        Self {
            volume: volume.mount_point.clone(),
            writer: writer.map(str::to_owned),
            warning: Latch::default(),
            critical: Latch::default(),
            value,
            since: at.wall,
            seen_s: at.steady_s,
            last_notice: None,
            acknowledged: false,
            conclusion: None,
        }
    }

    /// Notes that an event of this kind and severity is sent, `dt` seconds after the last evaluation.
    pub(super) fn note(
        &mut self,
        at: &EvalTime,
        dt: f64,
        rule: &Rule,
        kind: EventKind,
        severity: Severity,
    ) {
        if kind == EventKind::Firing {
            self.acknowledged = false;
            if self.last_notice.is_none() {
                self.since = at.wall;
            }
        }
        let at_s = match self.last_notice {
            // Keep to the schedule: otherwise samples that arrive slightly early would lengthen
            // every interval. A reminder that was due earlier and was held back starts a new
            // schedule, or the next one would come too soon.
            Some(last) if kind == EventKind::Repeat => {
                let every = rule.repeat_s.unwrap_or(f64::INFINITY);
                let planned = last.at_s + every * ((at.steady_s - last.at_s) / every).floor();
                if at.steady_s - planned < dt { planned } else { at.steady_s }
            }
            _ => at.steady_s,
        };
        self.last_notice = (kind != EventKind::Resolved).then_some(LastNotice { severity, at_s });
    }

    /// Takes over what is concluded now. If nothing grew lately, the culprits that were known remain.
    pub(super) fn update_conclusion(&mut self, present: Option<&Conclusion>) {
        let Some(present) = present else { return };
        let verdict = &present.verdict;
        let names_somebody = !verdict.culprits.is_empty() || verdict.mostly_unexplained;
        match &mut self.conclusion {
            Some(known) if !names_somebody => {
                known.verdict.victims.clone_from(&verdict.victims);
            }
            known => *known = Some(present.clone()),
        }
    }

    /// The highest severity whose latch is on; `None` while the alert is not active.
    pub(super) fn severity(&self) -> Option<Severity> {
        let warning = self.warning.on.then_some(Severity::Warning);
        if self.critical.on { Some(Severity::Critical) } else { warning }
    }
}

/// A rule with its alerts, by subject: a mount point, with a name of a writer if it is a rate rule.
#[derive(Debug, Clone)]
pub(super) struct RuleState {
    pub(super) rule: Rule,
    pub(super) alerts: BTreeMap<String, Alert>,
    pub(super) directory: DirectoryState,
}

impl RuleState {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, alerts: BTreeMap::new(), directory: DirectoryState::default() }
    }

    /// Evaluates the rule on all of its subjects, `dt` seconds after the last evaluation.
    pub(super) fn evaluate(
        &mut self,
        at: &EvalTime,
        dt: f64,
        snapshot: &Snapshot,
        volumes: &HashMap<String, VolumeState>,
        sizes: &[DirectorySize],
    ) {
        match &self.rule.condition {
            Condition::WriterRate { .. } | Condition::GroupRate { .. } => {
                self.evaluate_rates(at, snapshot);
            }
            condition => match condition.directory().map(str::to_owned) {
                Some(path) => self.evaluate_directory(at, dt, snapshot, &path, sizes),
                None => self.evaluate_volumes(at, snapshot, volumes),
            },
        }
        self.reset_unmounted(at.steady_s, snapshot);
    }

    fn evaluate_rates(&mut self, at: &EvalTime, snapshot: &Snapshot) {
        for ((mount_point, name), rate) in value::write_rates(&self.rule.condition, snapshot) {
            if let Some(volume) = find(snapshot, mount_point) {
                self.apply(at, volume, &format!("{mount_point}\n{name}"), Some(name), rate);
            }
        }
        // A process or group that writes nothing has no row.
        let absent: Vec<(String, String)> = self
            .alerts
            .iter()
            .filter(|(_, alert)| alert.seen_s < at.steady_s)
            .map(|(key, alert)| (key.clone(), alert.volume.clone()))
            .collect();
        for (key, mount_point) in absent {
            if let Some(volume) = find(snapshot, &mount_point) {
                self.apply(at, volume, &key, None, 0.0);
            }
        }
    }

    fn evaluate_directory(
        &mut self,
        at: &EvalTime,
        dt: f64,
        snapshot: &Snapshot,
        path: &str,
        sizes: &[DirectorySize],
    ) {
        let volume = volume_of(snapshot, path).and_then(|name| find(snapshot, name));
        let Some(volume) = volume else { return };
        let size = sizes.iter().find(|size| size.path == path);
        if let Some(value) = self.directory_value(at.steady_s, dt, snapshot, size) {
            self.apply(at, volume, &volume.mount_point, None, value);
        }
    }

    fn evaluate_volumes(
        &mut self,
        at: &EvalTime,
        snapshot: &Snapshot,
        volumes: &HashMap<String, VolumeState>,
    ) {
        for volume in snapshot.volumes.iter().filter(|volume| !volume.read_only) {
            let Some(state) = volumes.get(&volume.mount_point) else { continue };
            let condition = &self.rule.condition;
            if let Some(value) = value::volume_value(condition, at.steady_s, volume, state) {
                self.apply(at, volume, &volume.mount_point, None, value);
            }
        }
    }

    fn directory_value(
        &mut self,
        now: f64,
        dt: f64,
        snapshot: &Snapshot,
        size: Option<&DirectorySize>,
    ) -> Option<f64> {
        match &self.rule.condition {
            Condition::DirSize { .. } => size.map(|size| size.bytes as f64),
            Condition::DirGrowth { per_s, .. } => {
                let (per_s, bytes) = (*per_s, size?.bytes);
                Some(self.directory.growth_within(now, per_s, bytes))
            }
            Condition::Drain { path } => {
                let flow = flow(snapshot, path);
                let time_constant = (self.rule.hold_s / 2.0).max(10.0);
                self.directory.add_flow(dt, time_constant, flow.inflow_bytes, flow.outflow_bytes?);
                Some(self.directory.drain())
            }
            _ => None,
        }
    }

    /// Applies one value of one subject. `key` identifies the subject within the rule.
    fn apply(
        &mut self,
        at: &EvalTime,
        volume: &Volume,
        key: &str,
        writer: Option<&str>,
        value: f64,
    ) {
        if !self.rule.applies_to(&volume.mount_point) {
            return;
        }
        let compared = [Severity::Warning, Severity::Critical]
            .map(|severity| self.rule.compare(severity, value));
        if !self.alerts.contains_key(key) {
            if !compared.iter().flatten().any(|one| one.breached) {
                return;
            }
            self.alerts.insert(key.to_owned(), Alert::new(at, volume, writer, value));
        }
        let Some(alert) = self.alerts.get_mut(key) else { return };
        alert.value = value;
        alert.seen_s = at.steady_s;
        let delays =
            Delays { hold_s: self.rule.hold_s, clear_s: self.rule.clear_s, pinned: volume.full };
        for (latch, compared) in [&mut alert.warning, &mut alert.critical].into_iter().zip(compared)
        {
            // A threshold that a reload removed no longer holds the alert.
            latch.update(at.steady_s, compared.unwrap_or(Comparison::NO_THRESHOLD), delays);
        }
    }

    /// Resets the latches of alerts whose volume is no longer mounted.
    fn reset_unmounted(&mut self, now: f64, snapshot: &Snapshot) {
        for alert in self.alerts.values_mut().filter(|alert| now - alert.seen_s > UNMOUNTED_S) {
            if !snapshot.volumes.iter().any(|row| row.mount_point == alert.volume) {
                alert.warning = Latch::default();
                alert.critical = Latch::default();
            }
        }
    }
}

fn find<'s>(snapshot: &'s Snapshot, mount_point: &str) -> Option<&'s Volume> {
    snapshot.volumes.iter().find(|row| row.mount_point == mount_point)
}
