//! What the sinks' tests share, and tests of queue and worker.

use tracer_model::alert::{Event, EventKind, Severity, Suggestion};

use crate::fixtures;

/// A critical alert with every field.
pub(crate) fn event() -> Event {
    let busy = fixtures::busy();
    Event {
        schema: 1,
        time: busy.taken_at,
        event: EventKind::Firing,
        rule: "time-to-full".to_owned(),
        severity: Severity::Critical,
        volume: Some("/srv/store".to_owned()),
        directory: Some("/srv/store/.minio.sys/multipart".to_owned()),
        summary: "/srv/store will be full in 4 min: minio (pid 2114) grows by 100.0 MiB/s"
            .to_owned(),
        avail_bytes: Some(busy.volumes[0].avail_bytes),
        eta_s: busy.volumes[0].eta_s,
        culprits: vec![busy.writers[0].clone()],
        victims: busy.victims,
        held_bytes: busy.volumes[0].held_bytes,
        suggestion: Some(Suggestion {
            target: "2114".to_owned(),
            how: "freeze".to_owned(),
            frees_bytes: 0,
            command: "filltop stop 2114 --how freeze".to_owned(),
        }),
        host: busy.host,
        key: "db1/time-to-full//srv/store".to_owned(),
        id: "db1/time-to-full//srv/store/1/1".to_owned(),
        since: busy.taken_at,
    }
}
