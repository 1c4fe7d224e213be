//! What makes a good service of `filltop watch`.

use tracer_model::{sanitize, snapshot::Snapshot};

use super::hardening;
use crate::outputs::words::eta_cell;

/// As far as we may: each is worth having alone.
pub(crate) fn harden() {
    if let Err(error) = hardening::lock_memory() {
        tracing::info!("memory is not locked: {error}");
    }
    if let Err(error) = hardening::spare_from_oom() {
        tracing::info!("the OOM killer was not told to take others first: {error}");
    }
}

/// The volume in most danger, for `systemctl status`.
pub(crate) fn status(snapshot: &Snapshot) -> String {
    let Some(volume) = snapshot.volumes.first() else { return "no volume".to_owned() };
    let volumes = snapshot.volumes.len();
    let mount = sanitize::display(&volume.mount_point);
    format!("{volumes} volumes; {mount}: {}", eta_cell(volume))
}
