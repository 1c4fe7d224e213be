//! Cost of alert rules: 10,000 evaluations per second, without and with active alerts.
//!
//! Run: `cargo bench -p tracer --bench rules`.

use jiff::Timestamp;
use tracer_host::clock;
use tracer_model::alert::{Condition, Engine, EvalTime, Glob, Rule};
use tracer_model::fixtures;
use tracer_model::snapshot::{Snapshot, Volume};

const VOLUMES: usize = 100;
const RULES: usize = 100;
const WRITERS: u32 = 1_000;
const ROUNDS: u32 = 200;

fn snapshot(share_on: f64) -> Snapshot {
    let mut snapshot = fixtures::busy();
    snapshot.interval_s = 1.0;
    snapshot.volumes = (0..VOLUMES)
        .map(|n| {
            let on = (n as f64) < share_on * VOLUMES as f64;
            Volume { eta_s: on.then_some(600.0), ..fixtures::volume(&format!("/srv/{n:03}")) }
        })
        .collect();
    snapshot.writers = (0..WRITERS)
        .map(|n| {
            fixtures::writer(
                1000 + n,
                "worker",
                &format!("/srv/{:03}", n as usize % VOLUMES),
                1 << 20,
            )
        })
        .collect();
    snapshot
}

/// Rules of every kind on volumes, names or directories.
fn rules() -> Vec<Rule> {
    let kinds = [
        Condition::TimeToFull,
        Condition::Full,
        Condition::UsedRatio,
        Condition::AvailRatio { shrinking: true },
        Condition::InodesRatio,
        Condition::Growth,
        Condition::Held,
        Condition::NoSpaceErrors,
        Condition::WriteErrors,
        Condition::FsyncWait,
    ];
    let of_volumes = (0..RULES).map(|n| {
        let condition = kinds[n % kinds.len()].clone();
        let (warning, critical) = match condition {
            Condition::TimeToFull => (14_400.0, 1_800.0),
            Condition::AvailRatio { .. } => (0.05, 0.02),
            _ => (1e15, 1e16),
        };
        Rule {
            volumes: vec![Glob::new("/srv/*")],
            ..Rule::new(&format!("rule-{n}"), condition, Some(warning), Some(critical))
        }
    });
    of_volumes.collect()
}

fn main() {
    println!("{RULES} rules x {VOLUMES} volumes, {WRITERS} writers; CPU time per sample");
    println!(
        "{:>12} {:>8} {:>14} {:>20}",
        "active", "ms", "ns/evaluation", "of a core at 10,000/s"
    );
    for share_on in [0.0, 0.01, 0.1] {
        let mut engine = Engine::new(rules());
        let seen = snapshot(share_on);
        let mut sample = |second: u32| {
            let wall = Timestamp::from_second(fixtures::NOW + i64::from(second)).unwrap();
            let at = EvalTime { steady_s: f64::from(second), wall, minute: 720 };
            engine.evaluate(&at, &seen, &[]).len()
        };
        // The first sample raises all events; the later ones are the steady state.
        sample(0);
        let start = clock::own_cpu_s();
        for second in 1..=ROUNDS {
            sample(second);
        }
        let each = (clock::own_cpu_s() - start) / f64::from(ROUNDS);
        let on = engine.active_alerts().count();
        println!(
            "{on:>12} {:>8.3} {:>14.0} {:>19.2}%",
            each * 1e3,
            each * 1e9 / (RULES * VOLUMES) as f64,
            each * 100.0
        );
    }
}
