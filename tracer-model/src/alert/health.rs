//! Health events about filltop itself: broken hooks, losses, clock steps, gaps, blind volumes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::blind::blind_message;
use super::event::{Event, Severity};
use super::time::EvalTime;
use crate::sanitize::display;
use crate::snapshot::{BlindCause, HookState, Snapshot};
use crate::units;
use crate::units::Units;

/// Difference between the wall clock and the steady clock from one sample to the next above which
/// the wall clock counts as stepped, seconds.
const STEP_S: f64 = 2.0;
/// A time without samples is reported from this length on, seconds.
const GAP_S: f64 = 15.0;
/// Losses on one topic are reported at most once in this time, seconds.
const REPORT_AGAIN_S: f64 = 1800.0;

/// State of the last sample, for comparison with the next.
#[derive(Debug, Clone, Default)]
pub(super) struct HealthChecks {
    last: Option<(f64, Timestamp)>,
    /// Broken hooks by name, with the kernel's error.
    broken_hooks: BTreeMap<String, String>,
    lost_events: u64,
    unattributed_bytes: u64,
    /// Blind volumes, by mount point and cause.
    blind: BTreeSet<(String, BlindCause)>,
    /// Time of the last event, by topic.
    last_reported: BTreeMap<&'static str, f64>,
}

impl HealthChecks {
    /// Compares a Snapshot with the last one and returns the health events that are due.
    pub(super) fn check(&mut self, at: &EvalTime, snapshot: &Snapshot) -> Vec<Event> {
        let mut events = Vec::new();
        let new = Events { at: at.wall, host: &snapshot.host };
        self.check_clocks(at, new, &mut events);
        self.check_hooks(snapshot, new, &mut events);
        self.check_blind(snapshot, new, &mut events);
        self.check_losses(at.steady_s, snapshot, new, &mut events);
        events
    }

    /// Reports a step of the wall clock, and a time without samples.
    fn check_clocks(&mut self, at: &EvalTime, new: Events<'_>, events: &mut Vec<Event>) {
        if let Some((steady, wall)) = self.last {
            let passed = at.steady_s - steady;
            let stepped = at.wall.duration_since(wall).as_secs_f64() - passed;
            if stepped.abs() > STEP_S {
                let way = if stepped > 0.0 { "forward" } else { "back" };
                let by = units::duration(stepped.abs());
                events.push(new.event("clock-step", format!("the clock was set {way} by {by}")));
            }
            if passed > GAP_S {
                let summary = format!(
                    "no samples for {}: the machine was suspended or filltop was starved of CPU",
                    units::duration(passed)
                );
                events.push(new.event("gap", summary));
            }
        }
        self.last = Some((at.steady_s, at.wall));
    }

    /// Reports hooks that broke since the last sample, and those that work again.
    fn check_hooks(&mut self, snapshot: &Snapshot, new: Events<'_>, events: &mut Vec<Event>) {
        let broken: BTreeMap<String, String> = snapshot
            .backend
            .hooks
            .iter()
            .filter_map(|hook| match &hook.state {
                HookState::Broken { reason } => Some((hook.name.clone(), reason.clone())),
                _ => None,
            })
            .collect();
        for (name, reason) in &broken {
            if !self.broken_hooks.contains_key(name) {
                let summary = format!(
                    "hook {} does not work ({}): the events that it counts are missing",
                    display(name),
                    display(reason)
                );
                events.push(new.event("backend", summary).for_subject(name));
            }
        }
        for name in self.broken_hooks.keys().filter(|name| !broken.contains_key(*name)) {
            let summary = format!("hook {} works again", display(name));
            events.push(new.event("backend", summary).for_subject(name).resolving());
        }
        self.broken_hooks = broken;
    }

    /// Reports each blind volume once per cause. A volume without writes for a while is not blind
    /// in that time; it is not reported again when writes resume.
    fn check_blind(&mut self, snapshot: &Snapshot, new: Events<'_>, events: &mut Vec<Event>) {
        let mounted = |name: &String| snapshot.volumes.iter().any(|row| row.mount_point == *name);
        self.blind.retain(|(name, _)| mounted(name));
        for volume in &snapshot.volumes {
            let Some(blind) = &volume.blind else { continue };
            if self.blind.insert((volume.mount_point.clone(), blind.cause)) {
                let summary = blind_message(volume, Units::Iec).unwrap_or_default();
                events.push(new.event("blind", summary).for_subject(&volume.mount_point));
            }
        }
    }

    /// Reports lost events and unattributed bytes, each at most once in [`REPORT_AGAIN_S`].
    fn check_losses(
        &mut self,
        now: f64,
        snapshot: &Snapshot,
        new: Events<'_>,
        events: &mut Vec<Event>,
    ) {
        let backend = &snapshot.backend;
        let lost = backend.lost_events.saturating_sub(self.lost_events);
        if lost > 0 && self.is_due("lost-events", now) {
            let most = backend.lost.iter().max_by_key(|loss| loss.events);
            let why = most.map_or_else(String::new, |loss| format!(" ({})", display(&loss.cause)));
            let count =
                if lost == 1 { "1 event was".to_owned() } else { format!("{lost} events were") };
            let summary =
                format!("{count} lost{why}: some names, processes or bytes may be missing");
            events.push(new.event("lost-events", summary));
            self.lost_events = backend.lost_events;
        }
        self.unattributed_bytes += backend.unattributed_bytes;
        if self.unattributed_bytes > 0 && self.is_due("map-full", now) {
            let bytes = Units::Iec.bytes(std::mem::take(&mut self.unattributed_bytes));
            let summary = format!("tables were full: {bytes} could not be attributed");
            events.push(new.event("map-full", summary));
        }
    }

    /// Whether a topic may be reported again; notes the time if so.
    fn is_due(&mut self, topic: &'static str, now: f64) -> bool {
        let due = self.last_reported.get(topic).is_none_or(|last| now - last >= REPORT_AGAIN_S);
        if due {
            self.last_reported.insert(topic, now);
        }
        due
    }
}

/// Makes the health events of one sample.
#[derive(Clone, Copy)]
struct Events<'s> {
    at: Timestamp,
    host: &'s str,
}

impl Events<'_> {
    fn event(self, topic: &str, summary: String) -> Event {
        Event::health(self.at, self.host, topic, Severity::Warning, summary)
    }
}
