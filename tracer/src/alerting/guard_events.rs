//! Connects the guard to the watch: its decisions become events.

use tracer_model::action::Action;
use tracer_model::alert::{Event, EventKind, Severity, Suggestion};
use tracer_model::guard::GuardConfig;
use tracer_model::snapshot::{SCHEMA, Snapshot};

use crate::actions::guard::{Guard, GuardEvent};
use tracer_host::clock;

/// Maximum number of culprits in an event.
const MAX_CULPRITS: usize = 3;

/// Why a guard cannot be enabled by a reload.
#[derive(Debug, thiserror::Error)]
#[error("the guard was enabled after filltop dropped the privileges to act; restart filltop")]
pub(super) struct EnabledTooLate;

/// The configured guard, if it is enabled.
pub(super) struct GuardEvents {
    guard: Option<Guard>,
    /// Number of events so far; makes event ids unique within a millisecond.
    events: u64,
}

impl GuardEvents {
    /// Starts the guard. To be called before the tracer drops its privileges.
    ///
    /// # Errors
    /// If the process that carries out actions cannot be started.
    pub(super) fn start(config: &GuardConfig) -> anyhow::Result<Self> {
        Ok(Self { guard: Guard::start(config.clone())?, events: 0 })
    }

    /// Evaluates one Snapshot, which may start an action. Returns the guard's own events
    /// ([`EventKind::Action`]), which are delivered like all others. Does not block.
    pub(super) fn evaluate(&mut self, snapshot: &Snapshot) -> Vec<Event> {
        let Some(guard) = &mut self.guard else { return Vec::new() };
        let events = guard.evaluate(clock::boottime_s(), snapshot);
        events.into_iter().map(|decided| self.event(decided, snapshot)).collect()
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// [`EnabledTooLate`]: the guard stays off.
    pub(super) fn replace(&mut self, config: &GuardConfig) -> Result<(), EnabledTooLate> {
        match &mut self.guard {
            Some(guard) => guard.replace(config.clone()),
            None if config.enabled => return Err(EnabledTooLate),
            None => {}
        }
        Ok(())
    }

    fn event(&mut self, decided: GuardEvent, snapshot: &Snapshot) -> Event {
        self.events += 1;
        let GuardEvent { decision, summary, command, .. } = decided;
        let time = clock::now();
        let volume = snapshot.volumes.iter().find(|row| row.mount_point == decision.volume);
        let on_it = snapshot.writers.iter().filter(|row| row.volume == decision.volume);
        let culprits = on_it
            .filter(|row| row.group.as_ref().is_some_and(|group| *group == decision.group))
            .take(MAX_CULPRITS)
            .cloned();
        let suggestion = command.map(|command| Suggestion {
            target: decision.group.name.clone(),
            how: decision.step.map_or("", Action::name).to_owned(),
            frees_bytes: 0,
            command,
        });
        let key = format!("{}/guard/{}", snapshot.host, decision.volume);
        Event {
            schema: SCHEMA,
            time,
            event: EventKind::Action,
            rule: "guard".to_owned(),
            severity: Severity::Critical,
            directory: None,
            summary,
            avail_bytes: volume.map(|row| row.avail_bytes),
            eta_s: volume.and_then(|row| row.eta_s),
            pace_s: volume.and_then(|row| row.pace_s),
            culprits: culprits.collect(),
            victims: snapshot
                .victims
                .iter()
                .filter(|row| row.volume == decision.volume)
                .cloned()
                .collect(),
            held_bytes: volume.and_then(|row| row.held_bytes),
            resolved: false,
            suggestion,
            host: snapshot.host.clone(),
            id: format!("{key}/{}/{}", time.as_millisecond(), self.events),
            key,
            since: time,
            volume: Some(decision.volume),
        }
    }
}
