//! The processes that a full or slow volume affects.

use tracer_model::snapshot::{Victim, WriteErrors, Writer};

/// A process that waits for at least this share of the interval is a victim.
const LONG_WAIT_SHARE: f64 = 0.1;

/// Returns the processes whose writes failed for lack of space or with EIO, or that waited for a
/// large part of the interval. `waited` has the milliseconds of each writer, in the same order.
pub(super) fn victims(writers: &[Writer], waited: &[f64], interval_s: f64) -> Vec<Victim> {
    let mut rows: Vec<Victim> = writers
        .iter()
        .zip(waited)
        .filter(|(writer, waited)| {
            let failed = writer.errors.no_space() + writer.errors.eio > 0;
            failed || (interval_s > 0.0 && **waited >= LONG_WAIT_SHARE * interval_s * 1e3)
        })
        .map(|(writer, waited)| Victim {
            pid: writer.pid,
            comm: writer.comm.clone(),
            volume: writer.volume.clone(),
            errors: writer.errors,
            waiting_ms: Some(*waited),
        })
        .collect();
    rows.sort_by(|a, b| {
        let failed = |errors: &WriteErrors| errors.no_space() + errors.eio;
        failed(&b.errors)
            .cmp(&failed(&a.errors))
            .then(b.waiting_ms.unwrap_or(0.0).total_cmp(&a.waiting_ms.unwrap_or(0.0)))
            .then(a.pid.cmp(&b.pid))
    });
    rows
}
