//! What holds for any history.

use proptest::prelude::*;
use tracer_model::action::protect;
use tracer_model::snapshot::{Resource, Snapshot};
use tracer_model::verdict::Engine;

use super::play::play_all;
use super::scenario::{Expect, Phase, ProcessSpec, Scenario, VolumeSpec};

const NAMES: &[&str] =
    &["app", "rsyslogd", "dockerd", "postgres", "sshd", "systemd", "backup", "mergerfs"];

fn process() -> impl Strategy<Value = ProcessSpec> {
    let amounts = (0..60u32, 0..60u32, 0..300u64, 0..300u64);
    (1..9u32, amounts, any::<[bool; 3]>()).prop_map(|(pid, amounts, [ends, respawns, grouped])| {
        let (takes, frees, creates, removes) = amounts;
        ProcessSpec {
            pid,
            user: None,
            comm: NAMES[pid as usize % NAMES.len()].to_owned(),
            group: grouped.then(|| format!("unit g{}.service", pid % 3)),
            on: None,
            takes: Some(format!("{takes}MiB")),
            frees: Some(format!("{frees}MiB")),
            rewrites: None,
            creates,
            removes,
            path: None,
            dir: None,
            thread: None,
            log_of: None,
            senders: vec![],
            cmdline: None,
            kernel: pid == 8,
            processes: 1,
            respawns,
            ends,
            enospc: 0,
            short: 0,
        }
    })
}

fn phase() -> impl Strategy<Value = Phase> {
    let processes = proptest::collection::vec(process(), 0..5);
    (1..25u32, processes, 0..20u32).prop_map(|(seconds, mut process, unseen)| {
        // One row for each process.
        process.sort_by_key(|one| one.pid);
        process.dedup_by_key(|one| one.pid);
        // New pids must not be those of others.
        process.iter_mut().for_each(|one| {
            if one.respawns {
                one.pid *= 1000;
            }
        });
        Phase {
            seconds,
            process,
            unseen: Some(format!("{unseen}MiB")),
            unseen_inodes: 0,
            held: vec![],
            held_unknown: None,
            suspect: vec![],
            ended: vec![],
            empty: vec![],
            touches_zero: false,
        }
    })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let phases = proptest::collection::vec(phase(), 1..6);
    (phases, any::<bool>()).prop_map(|(phase, few_inodes)| Scenario {
        name: String::new(),
        title: String::new(),
        volume: vec![VolumeSpec {
            mount: "/srv".to_owned(),
            fs: "ext4".to_owned(),
            size: "4GiB".to_owned(),
            used: "2GiB".to_owned(),
            inodes: if few_inodes { 20_000 } else { 0 },
            inodes_used: if few_inodes { 10_000 } else { 0 },
            metadata: None,
            unallocated: None,
            served_by: Some((8, "mergerfs".to_owned())),
            backing_file: None,
            untraced: false,
            quota: None,
        }],
        phase,
        resident: vec![],
        expect: Expect::default(),
    })
}

/// Net amounts of a pid over the last `seconds` Snapshots.
fn net(history: &[Snapshot], pid: u32, seconds: usize, resource: Resource) -> f64 {
    let from = history.len().saturating_sub(seconds);
    let rows = history[from..].iter().flat_map(|one| &one.writers);
    rows.filter(|row| row.pid == pid)
        .map(|row| match resource {
            Resource::Bytes => row.growth_bytes_per_s,
            Resource::Inodes => {
                row.inodes_created.unwrap_or(0) as f64 - row.inodes_removed.unwrap_or(0) as f64
            }
        })
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Shares make 1; nobody is blamed who gave back more than they took; no step is suggested
    /// against what is protected or has ended; and the verdict depends on the Snapshots alone.
    #[test]
    fn a_verdict_is_consistent_and_blames_no_innocent(scenario in scenario()) {
        let history = play_all(&scenario);
        let mut again = Engine::default();
        for (at, snapshot) in history.iter().enumerate() {
            let verdict = snapshot.volumes[0].verdict.clone().expect("a verdict");
            let named: f64 = verdict.culprits.iter().map(|one| one.share).sum();
            if let Some(unexplained) = verdict.unexplained_share {
                let sum = named + verdict.others_share + unexplained;
                prop_assert!((sum - 1.0).abs() < 1e-6, "{sum}: {verdict:?}");
            }
            let so_far = &history[..=at];
            for culprit in &verdict.culprits {
                prop_assert!(culprit.resource_per_s > 0.0, "{culprit:?}");
                // It took something on balance over some time that ends at or before this second.
                let took = culprit.pids.iter().any(|pid| {
                    (1..=so_far.len()).any(|end| {
                        (1..=end).any(|seconds| {
                            net(&so_far[..end], *pid, seconds, verdict.resource) > 0.0
                        })
                    })
                });
                prop_assert!(took, "{culprit:?}");
            }
            if let Some(next) = &verdict.suggestion {
                let first = &verdict.culprits[0];
                prop_assert!(!first.ended, "{verdict:?}");
                prop_assert!(!verdict.mostly_unexplained);
                prop_assert!(!protect::is_protected_name(&first.comm, None), "{next:?}");
                prop_assert!(protect::matching_rule(protect::DATABASES, &first.comm).is_none());
                prop_assert!(!first.pids.contains(&8), "it is a FUSE server: {next:?}");
            }
            prop_assert_eq!(verdict.suggestion.is_some(), verdict.no_suggestion.is_none());

            // Recorded without the verdict, and replayed.
            let json = serde_json::to_string(snapshot).unwrap();
            let mut replayed: Snapshot = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&replayed.volumes[0].verdict, &snapshot.volumes[0].verdict);
            replayed.volumes[0].verdict = None;
            again.judge(&mut replayed);
            prop_assert_eq!(replayed.volumes[0].verdict.as_ref(), Some(&verdict));
        }
    }
}
