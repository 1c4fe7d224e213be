//! Properties of the guard over random Snapshots.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 6] =
    ["/jail", "/shop", "postgresql.service", "ssh.service", "web.service", "avoided.service"];

fn some_snapshot() -> impl Strategy<Value = Snapshot> {
    let growths = prop::collection::vec(prop_oneof![Just(0.0), 1e4..2e8f64], NAMES.len());
    let eta = prop_oneof![Just(None), Just(Some(0.0)), (1.0..1_500.0f64).prop_map(Some)];
    (growths, eta, prop::collection::vec(any::<bool>(), NAMES.len())).prop_map(
        |(growths, eta, victims)| {
            let groups: Vec<_> = NAMES.into_iter().zip(growths).collect();
            let mut snapshot = snapshot(eta, &groups);
            snapshot.writers = NAMES
                .iter()
                .enumerate()
                .map(|(i, name)| writer(100 + i as u32, "worker", name))
                .collect();
            snapshot.victims = victims
                .into_iter()
                .enumerate()
                .filter(|(_, is)| *is)
                .map(|(i, _)| victim(100 + i as u32))
                .collect();
            snapshot
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_guard_keeps_its_limits_for_any_history(
        history in prop::collection::vec((some_snapshot(), 1u32..40), 1..25),
        resumed in prop::collection::vec(any::<bool>(), 25),
    ) {
        let config = GuardConfig {
            avoid: vec!["^avoided".parse().unwrap()],
            ..armed()
        };
        let mut simulations = [Simulation::new(config.clone()), Simulation::new(config.clone())];
        let mut acted: Vec<f64> = Vec::new();
        for ((snapshot, seconds), resumed) in history.iter().zip(resumed) {
            for _ in 0..*seconds {
                let decisions = simulations[0].observe(1, snapshot);
                prop_assert_eq!(&decisions, &simulations[1].observe(1, snapshot), "not deterministic");
                for decision in decisions.iter().filter(|decision| decision.step.is_some()) {
                    let name = decision.group.name.as_str();
                    let never = ["postgresql.service", "ssh.service", "avoided.service"];
                    prop_assert!(!never.contains(&name), "{}", decision.explanation);
                    prop_assert!(config.ladder.contains(&decision.step.unwrap()));
                    let first = decision.step == Some(Action::Freeze);
                    prop_assert!(!first || decision.share >= 0.4, "{decision:?}");
                    // A victim is never chosen: no other group grew more than the culprit.
                    let shares = simulations[0].policy.volumes[VOLUME].shares.candidates();
                    let most = shares.first().map(|c| c.group.name.clone());
                    prop_assert!(!first || most.as_deref() == Some(name), "{decision:?}");
                    acted.push(simulations[0].now_s);
                }
            }
            if resumed {
                for simulation in &mut simulations {
                    simulation.in_force.clear();
                }
            }
        }
        for pair in acted.windows(2) {
            prop_assert!(pair[1] - pair[0] >= config.cool_down.0);
        }
        for from in &acted {
            let hour = acted.iter().filter(|at| **at >= *from && **at - from < policy::HOUR_S).count();
            prop_assert!(hour <= config.max_per_hour as usize);
        }
    }
}
