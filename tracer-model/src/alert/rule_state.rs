//! The state of one rule: its alerts, with the latches of each subject.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::culprits::GroupBlame;
use super::event::Severity;
use super::latch::{Latch, Waits};
use super::rule::{Rule, When};
use super::sizes::{DirBytes, flow, volume_of};
use super::state::{DirMemory, VolumeMemory};
use super::{Moment, measure};
use crate::snapshot::{Snapshot, Volume, Writer};

/// An alert whose volume is no longer mounted resolves after this time, seconds.
const GONE_S: f64 = 10.0;

/// The last event sent for an alert.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) severity: Severity,
    pub(super) at_s: f64,
}

/// One alert of one rule: pending, active, or about to resolve.
#[derive(Debug, Clone)]
pub(super) struct Alert {
    pub(super) volume: String,
    /// For a rate rule, the process or group name.
    pub(super) who: Option<String>,
    pub(super) warning: Latch,
    pub(super) critical: Latch,
    pub(super) value: f64,
    pub(super) since: Timestamp,
    pub(super) seen_s: f64,
    pub(super) told: Option<Told>,
    pub(super) acknowledged: bool,
    /// Culprits of the last event that had any: on a full volume no process grows.
    pub(super) culprits: Vec<Writer>,
    /// The first culprit's share of all growth, 0..1.
    pub(super) first_share: f64,
    pub(super) group: Option<GroupBlame>,
}

impl Alert {
    pub(super) fn level(&self) -> Option<Severity> {
        let warning = self.warning.on.then_some(Severity::Warning);
        if self.critical.on { Some(Severity::Critical) } else { warning }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) rule: Rule,
    pub(super) alerts: BTreeMap<String, Alert>,
    pub(super) directory: DirMemory,
}

impl Watched {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, alerts: BTreeMap::new(), directory: DirMemory::default() }
    }
}

impl Watched {
    /// Evaluates the rule on all of its subjects, `dt` seconds after the last evaluation.
    pub(super) fn look(
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
                // A process or group that writes nothing has no row.
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
                        if let Some(value) = measure::of_volume(when, now, volume, memory) {
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

    /// Applies one value of one subject. `key` identifies the subject within the rule.
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
                first_share: 0.0,
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
            // A threshold that a reload removed no longer holds the alert.
            latch.see(at.steady_s, judged.unwrap_or((false, true)), waits);
        }
    }

    /// Resets the latches of alerts whose volume is no longer mounted.
    fn end_unmounted(&mut self, now: f64, snapshot: &Snapshot) {
        for alert in self.alerts.values_mut().filter(|alert| now - alert.seen_s > GONE_S) {
            if !snapshot.volumes.iter().any(|row| row.mount_point == alert.volume) {
                alert.warning = Latch::default();
                alert.critical = Latch::default();
            }
        }
    }
}
