//! What the guard says, as events like all others.

use tracer_model::{
    action::How,
    alert::{Event, EventKind, Severity, Suggestion},
    guard::GuardConfig,
    snapshot::{SCHEMA, Snapshot},
};

use super::Guard;
use crate::{
    actions::guard::{self, Said},
    clock,
};

/// Writers that an event names.
const CULPRITS: usize = 3;

/// A guard that acts.
pub(super) struct Acting {
    guard: guard::Guard,
    told: u64,
}

impl Acting {
    pub(super) fn new(guard: guard::Guard) -> Self {
        Self { guard, told: 0 }
    }

    fn event(&mut self, said: Said, snapshot: &Snapshot) -> Event {
        self.told += 1;
        let decision = &said.decision;
        let volume = snapshot.volumes.iter().find(|row| row.mount_point == decision.volume);
        let same =
            |kind: &str, name: &str| kind == decision.group.kind && name == decision.group.name;
        let here = snapshot.writers.iter().filter(|row| row.volume == decision.volume);
        let theirs = here
            .filter(|row| row.group.as_ref().is_some_and(|group| same(&group.kind, &group.name)));
        let victims = snapshot.victims.iter().filter(|row| row.volume == decision.volume);
        let (host, time) = (&snapshot.host, clock::now());
        let key = format!("{host}/guard/{}", decision.volume);
        Event {
            schema: SCHEMA,
            time,
            event: EventKind::Action,
            rule: "guard".to_owned(),
            severity: Severity::Critical,
            volume: Some(decision.volume.clone()),
            directory: None,
            summary: said.summary,
            avail_bytes: volume.map(|row| row.avail_bytes),
            eta_s: volume.and_then(|row| row.eta_s),
            culprits: theirs.take(CULPRITS).cloned().collect(),
            victims: victims.cloned().collect(),
            held_bytes: volume.and_then(|row| row.held_bytes),
            suggestion: said.command.map(|command| Suggestion {
                target: decision.group.name.clone(),
                how: decision.step.map_or("", How::name).to_owned(),
                frees_bytes: 0,
                command,
            }),
            host: host.clone(),
            id: format!("{key}/{}/{}", time.as_millisecond(), self.told),
            key,
            since: time,
            over: false,
        }
    }
}

impl Guard for Acting {
    fn see(&mut self, snapshot: &Snapshot, _: &[Event]) -> Vec<Event> {
        let said = self.guard.see(clock::boottime_s(), snapshot);
        said.into_iter().map(|said| self.event(said, snapshot)).collect()
    }

    fn replace(&mut self, config: &GuardConfig) {
        self.guard.replace(config.clone());
    }
}
