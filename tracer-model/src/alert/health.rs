//! Health events about filltop itself: broken hooks, losses, clock steps, gaps, blind volumes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::blind::blind as words_of;
use super::event::{Event, Severity};
use super::{Moment, message};
use crate::snapshot::{BlindCause, HookState, Snapshot};
use crate::units;

/// Difference between the wall clock and the steady clock from one sample to the next above which
/// the wall clock counts as stepped, seconds.
const STEP_S: f64 = 2.0;
/// A time without samples is reported from this length on, seconds.
const GAP_S: f64 = 15.0;
/// Losses on one topic are reported at most once in this time, seconds.
const AGAIN_S: f64 = 1800.0;

/// State of the last sample, for comparison with the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    last: Option<(f64, Timestamp)>,
    /// Broken hooks by name, with the kernel's error.
    broken: BTreeMap<String, String>,
    lost_events: u64,
    unattributed: u64,
    /// Blind volumes, by mount point and cause.
    blind: BTreeSet<(String, BlindCause)>,
    /// Time of the last event, by topic.
    said: BTreeMap<&'static str, f64>,
}

impl Health {
    /// Compares a Snapshot with the last one and returns the health events that are due.
    pub(super) fn see(&mut self, at: &Moment, snapshot: &Snapshot) -> Vec<Event> {
        let mut events = Vec::new();
        let health = |about: &str, summary| {
            Event::health(at.wall, &snapshot.host, about, Severity::Warning, summary)
        };
        if let Some((steady, wall)) = self.last {
            let passed = at.steady_s - steady;
            let stepped = at.wall.duration_since(wall).as_secs_f64() - passed;
            if stepped.abs() > STEP_S {
                let way = if stepped > 0.0 { "forward" } else { "back" };
                let by = units::duration(stepped.abs());
                events.push(health("clock-step", format!("the clock was set {way} by {by}")));
            }
            if passed > GAP_S {
                let words = format!(
                    "no samples for {}: the machine was suspended or filltop was starved of CPU",
                    units::duration(passed)
                );
                events.push(health("gap", words));
            }
        }
        self.last = Some((at.steady_s, at.wall));
        let broken: BTreeMap<String, String> = snapshot
            .backend
            .hooks
            .iter()
            .filter_map(|hook| match &hook.state {
                HookState::Broken { reason } => Some((hook.name.clone(), reason.clone())),
                _ => None,
            })
            .collect();
        for (name, reason) in broken.iter().filter(|(name, _)| !self.broken.contains_key(*name)) {
            let words = format!(
                "hook {} does not work ({}): the events that it counts are missing",
                message::safe(name),
                message::safe(reason)
            );
            events.push(health("backend", words).of(name));
        }
        for name in self.broken.keys().filter(|name| !broken.contains_key(*name)) {
            let words = format!("hook {} works again", message::safe(name));
            events.push(health("backend", words).of(name).ending());
        }
        self.broken = broken;
        self.see_blind(snapshot, |name, summary| health("blind", summary).of(name), &mut events);
        let due = |about, said: &mut BTreeMap<&'static str, f64>| {
            let due = said.get(about).is_none_or(|last| at.steady_s - last >= AGAIN_S);
            if due {
                said.insert(about, at.steady_s);
            }
            due
        };
        let lost = snapshot.backend.lost_events.saturating_sub(self.lost_events);
        if lost > 0 && due("lost-events", &mut self.said) {
            let most = snapshot.backend.lost.iter().max_by_key(|loss| loss.events);
            let why =
                most.map_or_else(String::new, |loss| format!(" ({})", message::safe(&loss.cause)));
            let count =
                if lost == 1 { "1 event was".to_owned() } else { format!("{lost} events were") };
            let words = format!("{count} lost{why}: some names, processes or bytes may be missing");
            events.push(health("lost-events", words));
            self.lost_events = snapshot.backend.lost_events;
        }
        self.unattributed += snapshot.backend.unattributed_bytes;
        if self.unattributed > 0 && due("map-full", &mut self.said) {
            let words = format!(
                "tables were full: {} could not be attributed",
                units::Units::Iec.bytes(self.unattributed)
            );
            events.push(health("map-full", words));
            self.unattributed = 0;
        }
        events
    }

    /// Reports each blind volume once per cause. A volume without writes for a while is not blind
    /// in that time; it is not reported again when writes resume.
    fn see_blind(
        &mut self,
        snapshot: &Snapshot,
        event: impl Fn(&str, String) -> Event,
        events: &mut Vec<Event>,
    ) {
        let mounted = |name: &String| snapshot.volumes.iter().any(|row| row.mount_point == *name);
        self.blind.retain(|(name, _)| mounted(name));
        for volume in &snapshot.volumes {
            let Some(blind) = &volume.blind else { continue };
            if self.blind.insert((volume.mount_point.clone(), blind.cause)) {
                let words = words_of(volume, units::Units::Iec).unwrap_or_default();
                events.push(event(&volume.mount_point, words));
            }
        }
    }
}
