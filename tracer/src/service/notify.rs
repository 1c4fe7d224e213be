//! What systemd is told: that it runs, that it still runs, and how it is. Nothing where nobody listens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracer_model::sanitize;
use tracer_model::snapshot::Snapshot;

use crate::output::format::{blind_short, eta_cell};

/// The line to a service manager (sd_notify(3)).
pub struct Notify {
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Notify {
    /// Looks whether a watchdog waits for us (`WatchdogSec=`).
    #[must_use]
    pub fn new() -> Self {
        // Twice in its time, as sd_watchdog_enabled(3) advises.
        Self { every: sd_notify::watchdog_enabled().map(|time| time / 2), last: None }
    }

    /// Start-up is over.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// To be called after each measurement, and not when there was none: that is what the watchdog
    /// is for. `true` where a watchdog was told: a good time to say more.
    pub fn alive(&mut self, now: Instant) -> bool {
        let Some(every) = self.every else { return false };
        let due = self.last.is_none_or(|last| now.duration_since(last) >= every);
        if due {
            self.last = Some(now);
            tell(&[NotifyState::Watchdog]);
        }
        due
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        tell(&[NotifyState::Status(line)]);
    }

    /// The end has begun.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

/// The volume in most danger, for `systemctl status`.
#[must_use]
pub fn line(snapshot: &Snapshot) -> String {
    let Some(volume) = snapshot.volumes.first() else { return "no volume".to_owned() };
    let volumes = snapshot.volumes.len();
    let mount = sanitize::display(&volume.mount_point);
    match snapshot.volumes.iter().find(|volume| volume.blind.is_some()) {
        Some(blind) => {
            let name = sanitize::display(&blind.mount_point);
            format!(
                "{volumes} volumes; {name}: {}; {mount}: {}",
                blind_short(blind),
                eta_cell(volume)
            )
        }
        None => format!("{volumes} volumes; {mount}: {}", eta_cell(volume)),
    }
}

fn tell(what: &[NotifyState<'_>]) {
    // Not being heard is no reason to end: the manager has its own time-outs.
    if let Err(error) = sd_notify::notify(what) {
        tracing::info!("the service manager was not told: {error}");
    }
}
