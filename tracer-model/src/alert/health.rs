//! What filltop says about itself: hooks that stopped counting, losses, clocks, gaps.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::blind::blind as words_of;
use super::event::{Event, Severity};
use super::{Moment, message};
use crate::snapshot::{BlindCause, HookState, Snapshot};
use crate::units;

/// The wall clock may run this far ahead of the steady one between two looks, seconds.
const STEP_S: f64 = 2.0;
/// No look for this long is worth a word, seconds.
const GAP_S: f64 = 15.0;
/// The same thing is said again after this time, seconds.
const AGAIN_S: f64 = 1800.0;

/// The last look.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    last: Option<(f64, Timestamp)>,
    /// Hooks that do not work, with the kernel's words.
    broken: BTreeMap<String, String>,
    lost_events: u64,
    unattributed: u64,
    /// Volumes of which too little is seen, by mount point, and why.
    blind: BTreeSet<(String, BlindCause)>,
    /// When it was last said, by what it is about.
    said: BTreeMap<&'static str, f64>,
}

impl Health {
    /// What is to be said after this look.
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
                    "nothing was looked at for {}: the machine slept, or filltop did not get to run",
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
                "the hook {} does not work ({}): what it counts is missing",
                message::safe(name),
                message::safe(reason)
            );
            events.push(health("backend", words).of(name));
        }
        for name in self.broken.keys().filter(|name| !broken.contains_key(*name)) {
            let words = format!("the hook {} works again", message::safe(name));
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
            let words = format!(
                "{lost} events were lost{why}: some names, processes or bytes may be missing"
            );
            events.push(health("lost-events", words));
            self.lost_events = snapshot.backend.lost_events;
        }
        self.unattributed += snapshot.backend.unattributed_bytes;
        if self.unattributed > 0 && due("map-full", &mut self.said) {
            let words = format!(
                "the tables were full: {} were written by somebody who is not named",
                units::Units::Iec.bytes(self.unattributed)
            );
            events.push(health("map-full", words));
            self.unattributed = 0;
        }
        events
    }

    /// Says once for each volume and cause that too little is seen. A volume that takes no writes for a while is
    /// not blind then; it is not told again when it takes some.
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
