//! Notifications to systemd: readiness, watchdog and status. Without a service manager, no-ops.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracer_model::sanitize;
use tracer_model::snapshot::Snapshot;

use crate::output::format::{blind_short, eta_cell};

/// The connection to the service manager (sd_notify(3)).
pub(crate) struct Notify {
    interval: Option<Duration>,
    last: Option<Instant>,
}

impl Notify {
    /// Reads whether a watchdog is configured (`WatchdogSec=`).
    #[must_use]
    pub(crate) fn new() -> Self {
        // Twice per watchdog period, as sd_watchdog_enabled(3) recommends.
        Self { interval: sd_notify::watchdog_enabled().map(|time| time / 2), last: None }
    }

    /// Reports that startup is complete.
    pub(crate) fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// Notifies the watchdog if that is due. To be called after each successful measurement only,
    /// since the watchdog guards against missing ones. Returns whether it was due: a good time to
    /// update the status, too.
    pub(crate) fn watchdog(&mut self, now: Instant) -> bool {
        let Some(interval) = self.interval else { return false };
        let due = self.last.is_none_or(|last| now.duration_since(last) >= interval);
        if due {
            self.last = Some(now);
            notify(&[NotifyState::Watchdog]);
        }
        due
    }

    /// Sets the status line of `systemctl status`.
    pub(crate) fn status(&self, line: &str) {
        notify(&[NotifyState::Status(line)]);
    }

    /// Reports that the service is stopping.
    pub(crate) fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

/// The status line: the number of volumes and the one closest to full, after any blind one.
#[must_use]
pub(crate) fn status_line(snapshot: &Snapshot) -> String {
    let Some(volume) = snapshot.volumes.first() else { return "no volume".to_owned() };
    let volumes = match snapshot.volumes.len() {
        1 => "1 volume".to_owned(),
        n => format!("{n} volumes"),
    };
    let mount = sanitize::display(&volume.mount_point);
    match snapshot.volumes.iter().find(|volume| volume.blind.is_some()) {
        Some(blind) => {
            let name = sanitize::display(&blind.mount_point);
            format!("{volumes}; {name}: {}; {mount}: {}", blind_short(blind), eta_cell(volume))
        }
        None => format!("{volumes}; {mount}: {}", eta_cell(volume)),
    }
}

fn notify(what: &[NotifyState<'_>]) {
    // A failed notification is no reason to exit: the manager has its own time-outs.
    if let Err(error) = sd_notify::notify(what) {
        tracing::info!("cannot notify the service manager: {error}");
    }
}
