//! What was measured of a target, for its plan: what its growth is, which an end of it ends, and
//! whether it is a victim rather than a culprit.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::sanitize::display;
use crate::snapshot::{Snapshot, Writer};

/// What the target did over a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Who measured: `service`, or `here`.
    pub source: String,
    /// Over how long, seconds.
    pub seconds: f64,
    /// Per volume that it wrote to or could not write to, the fastest growing first.
    pub volumes: Vec<Grown>,
}

/// On one volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grown {
    /// Mount point.
    pub volume: String,
    /// Growth of its files, bytes per second.
    pub growth_bytes_per_s: f64,
    /// What it wrote, bytes per second.
    pub written_bytes_per_s: f64,
    /// Its share of the volume's growth, 0..1.
    pub share: f64,
    /// Its writes that failed for want of space.
    pub no_space: u64,
}

impl Measured {
    /// What a Snapshot says of the processes of a plan, and of those that were in its cgroup and have
    /// ended since.
    #[must_use]
    pub fn of(plan: &Plan, snapshot: &Snapshot, source: &str) -> Self {
        let pids: BTreeSet<u32> = plan.processes.iter().map(|hit| hit.pid).collect();
        let cgroup = plan.target.cgroup.as_deref();
        let is_its = |writer: &&Writer| {
            let inside = |path: &str| {
                cgroup
                    .and_then(|of| path.strip_prefix(of))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            (writer.alive && pids.contains(&writer.pid))
                || writer.group.as_ref().and_then(|g| g.cgroup.as_deref()).is_some_and(inside)
        };
        let mut volumes: BTreeMap<&str, Grown> = BTreeMap::new();
        for writer in snapshot.writers.iter().filter(is_its) {
            let sum = volumes.entry(&writer.volume).or_insert_with(|| Grown {
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
        let mut volumes: Vec<Grown> = volumes.into_values().collect();
        volumes.sort_by(|a, b| b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s));
        Self { source: source.to_owned(), seconds: snapshot.interval_s, volumes }
    }

    /// What of it has to be known before it is done, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let victim = |grown: &&Grown| grown.no_space > 0 && grown.share < VICTIM_BELOW;
        let victims = self.volumes.iter().filter(victim).map(|grown| {
            format!(
                "it may be a victim: {} of its writes on {} found no space, and {:.0} % of the growth \
                 there is its",
                grown.no_space,
                display(&grown.volume),
                grown.share * 100.0
            )
        });
        let still = self.volumes.iter().all(|grown| grown.growth_bytes_per_s <= 0.0);
        let still = still.then(|| {
            format!(
                "it has grown by nothing in the last {:.0} s: this ends no growth",
                self.seconds
            )
        });
        victims.chain(still).collect()
    }
}

/// Who has less of the growth than this, and finds no space, did not take it.
const VICTIM_BELOW: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::plan::{Facts, Subject, Wish};
    use crate::action::protect::Protection;
    use crate::action::subject_kind::SubjectKind;
    use crate::action::{Action, Intent};
    use crate::snapshot::GroupKind;

    fn plan(cgroup: Option<&str>, pids: &[u32]) -> Plan {
        let subject = Subject {
            asked: "x".to_owned(),
            kind: SubjectKind::Group(GroupKind::Cgroup),
            name: "x".to_owned(),
            cgroup: cgroup.map(str::to_owned),
        };
        let processes =
            pids.iter().map(|pid| super::super::protect::tests::process(*pid, "x")).collect();
        let facts = Facts {
            subject,
            processes,
            files: Vec::new(),
            means: Vec::new(),
            restart: None,
            warnings: Vec::new(),
        };
        let wish = Wish { how: Action::Freeze, intent: Intent::Asked, file: None };
        Plan::new(&facts, &wish, &Protection::default())
    }

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
    fn what_has_ended_in_the_cgroup_counts_and_a_namesake_does_not() {
        let rows = [
            writer(7, "/jail", true, 100.0, 0.5),
            writer(8, "/jail/w", false, 50.0, 0.25),
            writer(9, "/jail2", true, 30.0, 0.15),
        ];
        let measured = Measured::of(&plan(Some("/jail"), &[7]), &snapshot(&rows), "service");
        let [grown] = &measured.volumes[..] else { panic!("{measured:?}") };
        assert_eq!((grown.growth_bytes_per_s, grown.share, grown.no_space), (150.0, 0.75, 6));
        assert!(measured.warnings().is_empty(), "who took most is no victim");
    }

    #[test]
    fn a_reused_pid_is_not_its_writer_and_a_victim_is_named() {
        let rows = [writer(7, "/a", false, 100.0, 0.9), writer(8, "/a", true, 1.0, 0.01)];
        let measured = Measured::of(&plan(None, &[7, 8]), &snapshot(&rows), "here");
        assert_eq!(measured.volumes[0].growth_bytes_per_s, 1.0);
        assert!(measured.warnings()[0].contains("3 of its writes on /data found no space"));
        let none = Measured::of(&plan(None, &[12]), &snapshot(&rows), "here");
        assert!(none.warnings()[0].contains("ends no growth"), "{none:?}");
    }
}
