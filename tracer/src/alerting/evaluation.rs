//! What an evaluation of the rules needs besides the measurement: the time, and the volumes that are
//! not ignored.

use jiff::tz::TimeZone;
use tracer_host::clock;
use tracer_model::alert::{EvalTime, Glob};
use tracer_model::snapshot::Snapshot;

/// The present time on both clocks, with the minute of the local day.
pub(crate) fn eval_time(zone: &TimeZone) -> EvalTime {
    let wall = clock::now();
    let local = wall.to_zoned(zone.clone()).time();
    let minute = local.hour() as u16 * 60 + local.minute() as u16;
    EvalTime { steady_s: clock::boottime_s(), wall, minute }
}

/// Removes ignored volumes from a Snapshot.
pub(crate) fn ignore_volumes(snapshot: &mut Snapshot, ignored: &[Glob]) {
    let is_ignored = |name: &str| ignored.iter().any(|glob| glob.matches(name));
    let kept: Vec<String> = snapshot
        .volumes
        .iter()
        .map(|row| row.mount_point.clone())
        .filter(|name| !is_ignored(name))
        .collect();
    snapshot.retain_volumes(&kept);
}
