//! What was measured about a target, for its plan: the growth that stopping it would end, and
//! whether it is a victim rather than a culprit.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::sanitize::display;
use crate::snapshot::{Snapshot, Writer};

/// The process that measured a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The running `filltop watch`.
    Service,
    /// The command that acts.
    Here,
}

/// The target's writes over the last seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The process that measured.
    pub source: Source,
    /// Length of the measurement, seconds.
    pub seconds: f64,
    /// The volumes that the target wrote to or failed to write to, fastest growth first.
    pub volumes: Vec<VolumeGrowth>,
}

/// The target's growth on one volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeGrowth {
    /// Mount point.
    pub volume: String,
    /// Growth of the target's files, bytes per second.
    pub growth_bytes_per_s: f64,
    /// Bytes written by the target per second.
    pub written_bytes_per_s: f64,
    /// The target's share of the volume's growth, 0..1.
    pub share: f64,
    /// Number of writes that failed with ENOSPC or EDQUOT.
    pub no_space: u64,
}

impl Measurement {
    /// Collects the measurements of a Snapshot for these processes, and for processes of their `cgroup`
    /// that have exited since.
    #[must_use]
    pub fn of(
        pids: &BTreeSet<u32>,
        cgroup: Option<&str>,
        snapshot: &Snapshot,
        source: Source,
    ) -> Self {
        let is_its = |writer: &&Writer| {
            let inside = |path: &str| {
                cgroup
                    .and_then(|of| path.strip_prefix(of))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            (writer.alive && pids.contains(&writer.pid))
                || writer.group.as_ref().and_then(|g| g.cgroup.as_deref()).is_some_and(inside)
        };
        let mut volumes: BTreeMap<&str, VolumeGrowth> = BTreeMap::new();
        for writer in snapshot.writers.iter().filter(is_its) {
            let sum = volumes.entry(&writer.volume).or_insert_with(|| VolumeGrowth {
                volume: writer.volume.clone(),
                growth_bytes_per_s: 0.0,
                written_bytes_per_s: 0.0,
                share: 0.0,
                no_space: 0,
            });
            sum.growth_bytes_per_s += writer.growth_bytes_per_s;
            sum.written_bytes_per_s += writer.written_bytes_per_s;
            sum.share += writer.share;
            sum.no_space += writer.errors.enospc + writer.errors.edquot;
        }
        let mut volumes: Vec<VolumeGrowth> = volumes.into_values().collect();
        volumes.sort_by(|a, b| b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s));
        Self { source, seconds: snapshot.interval_s, volumes }
    }

    /// Returns the warnings that an operator should read before acting, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let victim = |grown: &&VolumeGrowth| grown.no_space > 0 && grown.share < VICTIM_BELOW;
        let victims = self.volumes.iter().filter(victim).map(|grown| {
            format!(
                "it may be a victim: {} of its writes to {} failed for lack of space, and it caused \
                 {:.0} % of the growth there",
                grown.no_space,
                display(&grown.volume),
                grown.share * 100.0
            )
        });
        let still = self.volumes.iter().all(|grown| grown.growth_bytes_per_s <= 0.0);
        let still = still.then(|| {
            format!("it has not grown in the last {:.0} s, so this stops no growth", self.seconds)
        });
        victims.chain(still).collect()
    }
}

/// A target with a smaller share of the growth than this, whose writes fail, did not take the space.
const VICTIM_BELOW: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(pid: u32, cgroup: &str, alive: bool, growth: f64, share: f64) -> serde_json::Value {
        serde_json::json!({
            "pid": pid, "start_time": "2026-11-21T00:00:00Z", "comm": "x", "exe": null,
            "cmdline": null, "uid": 0, "user": null, "alive": alive, "volume": "/data",
            "group": {"kind": "cgroup", "name": cgroup, "cgroup": cgroup},
            "written_bytes": 0, "allocated_bytes": null, "freed_bytes": null, "held_bytes": null,
            "written_bytes_per_s": growth, "growth_bytes_per_s": growth, "share": share,
            "files": 1, "errors": {"ENOSPC": 3, "EDQUOT": 0}, "fsync": null,
        })
    }

    fn snapshot(writers: &[serde_json::Value]) -> Snapshot {
        let mut snapshot = crate::guard::tests::snapshot(None, &[]);
        snapshot.interval_s = 10.0;
        snapshot.writers =
            writers.iter().map(|row| serde_json::from_value(row.clone()).unwrap()).collect();
        snapshot
    }

    #[test]
    fn an_exited_process_of_the_cgroup_counts_and_a_similar_cgroup_does_not() {
        let rows = [
            writer(7, "/jail", true, 100.0, 0.5),
            writer(8, "/jail/w", false, 50.0, 0.25),
            writer(9, "/jail2", true, 30.0, 0.15),
        ];
        let measured =
            Measurement::of(&[7].into(), Some("/jail"), &snapshot(&rows), Source::Service);
        let [grown] = &measured.volumes[..] else { panic!("{measured:?}") };
        assert_eq!((grown.growth_bytes_per_s, grown.share, grown.no_space), (150.0, 0.75, 6));
        assert!(measured.warnings().is_empty(), "the largest writer is no victim");
    }

    #[test]
    fn an_exited_writer_of_a_reused_pid_does_not_count_and_a_victim_is_named() {
        let rows = [writer(7, "/a", false, 100.0, 0.9), writer(8, "/a", true, 1.0, 0.01)];
        let measured = Measurement::of(&[7, 8].into(), None, &snapshot(&rows), Source::Here);
        assert_eq!(measured.volumes[0].growth_bytes_per_s, 1.0);
        assert!(
            measured.warnings()[0].contains("3 of its writes to /data failed for lack of space")
        );
        let none = Measurement::of(&[12].into(), None, &snapshot(&rows), Source::Here);
        assert!(none.warnings()[0].contains("stops no growth"), "{none:?}");
    }
}
