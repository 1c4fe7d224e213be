//! Replays a recorded history of one volume as Snapshots, so that rules can be tried on it.

use jiff::Timestamp;

use super::time::EvalTime;
use crate::forecast::{Forecaster, Outcome, Policy, Sample};
use crate::snapshot::{Backend, SCHEMA, Snapshot, Volume, WriteBackend};

/// Makes a Snapshot of each row of a history, with the forecast that the live program would have
/// made.
#[derive(Debug, Clone)]
pub struct Replay {
    forecaster: Forecaster,
    last: Option<Sample>,
    /// Elapsed seconds; steps back in the history's clock are ignored.
    steady_s: f64,
    mount_point: String,
}

impl Replay {
    /// Creates a replay without any rows. `mount_point` is shown as the volume's mount point.
    #[must_use]
    pub fn new(mount_point: &str) -> Self {
        Self {
            forecaster: Forecaster::new(Policy::default()),
            last: None,
            steady_s: 0.0,
            mount_point: mount_point.to_owned(),
        }
    }

    /// Makes the Snapshot of the next row. Times are seconds since 1970; any number is accepted.
    pub fn push(&mut self, sample: &Sample) -> (EvalTime, Snapshot) {
        self.forecaster.push(sample);
        let forecast = self.forecaster.forecast();
        let (interval_s, delta) = self.last.as_ref().map_or((0.0, 0), |last| {
            let delta = sample.used.cast_signed().wrapping_sub(last.used.cast_signed());
            (sample.time_s - last.time_s, delta)
        });
        let wall = Timestamp::from_millisecond((sample.time_s * 1000.0) as i64)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        self.steady_s += interval_s.max(0.0);
        self.last = Some(sample.clone());
        let interval = forecast.outcome.interval_s();
        let volume = Volume {
            mount_point: self.mount_point.clone(),
            mount_points: vec![self.mount_point.clone()],
            device: String::new(),
            fs_type: String::new(),
            total_bytes: sample.total,
            used_bytes: sample.used,
            avail_bytes: sample.avail,
            reserved_bytes: sample.total.saturating_sub(sample.used).saturating_sub(sample.avail),
            inodes_total: 0,
            inodes_free: 0,
            held_bytes: None,
            written_bytes: 0,
            allocated_bytes: None,
            freed_bytes: None,
            used_delta_bytes: delta,
            growth_bytes_per_s: if interval_s > 0.0 { delta as f64 / interval_s } else { 0.0 },
            explained: None,
            full: matches!(forecast.outcome, Outcome::Full { .. }),
            limit: forecast.limit.kind(),
            eta_s: forecast.outcome.eta_s(),
            eta_lo_s: interval.map(|(earliest, _)| earliest),
            eta_hi_s: interval.map(|(_, latest)| latest),
            pace_s: forecast.pace.map(|pace| pace.eta_s),
            pace_lo_s: forecast.pace.map(|pace| pace.lo_s),
            pace_hi_s: forecast.pace.map(|pace| pace.hi_s),
            refill: forecast.refill,
            read_only: false,
            container: None,
            persistent_volume: None,
            label: None,
            counted_by: None,
            gap: None,
            blind: None,
            verdict: None,
            btrfs: None,
            quotas: Vec::new(),
            held_unknown_bytes: None,
            inodes_delta: 0,
            was_full: false,
            served_by: None,
            backing_file: None,
            suspects: Vec::new(),
            no_eta: None,
            hidden: false,
        };
        let snapshot = Snapshot {
            schema: SCHEMA,
            host: "replay".to_owned(),
            taken_at: wall,
            interval_s: interval_s.max(0.0),
            backend: Backend {
                write: WriteBackend::Tracepoint,
                kernel: String::new(),
                hooks: Vec::new(),
                blind_spots: Vec::new(),
                lost_events: 0,
                lost: Vec::new(),
                unattributed_bytes: 0,
                folded_files: 0,
                overhead_ns_per_write: None,
                own_cpu: None,
                capabilities: Vec::new(),
                blind_spot_kinds: Vec::new(),
                sampled_fs_types: Vec::new(),
            },
            volumes: vec![volume],
            writers: Vec::new(),
            dirs: Vec::new(),
            paths: Vec::new(),
            held: Vec::new(),
            uninspected_processes: 0,
            ended: Vec::new(),
            victims: Vec::new(),
            groups: Vec::new(),
            residents: Vec::new(),
        };
        let second = sample.time_s.rem_euclid(86_400.0);
        (EvalTime { steady_s: self.steady_s, wall, minute: (second / 60.0) as u16 }, snapshot)
    }
}
