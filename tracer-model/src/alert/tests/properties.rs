//! Invariants that hold for any history.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Step {
    seconds: i64,
    avail: u64,
    eta: Option<f64>,
    minute: u16,
    mounted: bool,
    errors: u64,
}

fn step() -> impl Strategy<Value = Step> {
    (1i64..400, 0u64..40, proptest::option::of(0.0..30_000.0f64), 0u16..1440, 0..20u8, 0..8u64)
        .prop_map(|(seconds, avail, eta, minute, mounted, errors)| Step {
            seconds,
            avail,
            eta,
            minute,
            mounted: mounted > 0,
            errors: errors.saturating_sub(6),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// For any history: one `firing` begins an alert, `resolved` ends it, `repeat` is in between
    /// and not more often than configured; nothing resolves while the volume is full; warnings
    /// respect quiet hours; ids are never reused.
    #[test]
    fn alerts_begin_and_end_as_they_should(steps in proptest::collection::vec(step(), 1..40)) {
        let quiet = QuietHours { from: 22 * 60, to: 7 * 60 };
        let rules: Vec<Rule> = Rule::defaults()
            .into_iter()
            .map(|rule| Rule { quiet: vec![quiet], ..rule })
            .collect();
        let mut host = Host::new(rules);
        let mut on: std::collections::HashMap<String, (Severity, i64)> = Default::default();
        let mut ids = std::collections::HashSet::new();
        for step in steps {
            if step.mounted == host.snapshot.volumes.is_empty() {
                if step.mounted {
                    host.snapshot.volumes = Host::new(vec![]).snapshot.volumes;
                } else {
                    host.snapshot.volumes.clear();
                }
            }
            if let Some(volume) = host.snapshot.volumes.first_mut() {
                volume.avail_bytes = step.avail * GIB;
                volume.full = step.avail == 0;
                volume.eta_s = if volume.full { Some(0.0) } else { step.eta };
            }
            let mut row = writer(3, "w", 1e6);
            row.errors.enospc = step.errors;
            host.snapshot.writers = vec![row];
            host.minute = step.minute;
            for _ in 0..step.seconds {
                for event in host.run(1) {
                    prop_assert!(ids.insert(event.id.clone()), "{} twice", event.id);
                    prop_assert!(event.summary.len() < 1000 && !event.summary.contains('\n'));
                    let full = host.snapshot.volumes.first().is_some_and(|v| v.full);
                    match event.event {
                        EventKind::Firing => {
                            let before = on.insert(event.key.clone(), (event.severity, host.second));
                            prop_assert!(before.is_none_or(|(old, _)| old != event.severity));
                        }
                        EventKind::Repeat => {
                            let (severity, last) = on[&event.key];
                            prop_assert_eq!(severity, event.severity);
                            prop_assert!(host.second - last >= 1800);
                            on.insert(event.key.clone(), (severity, host.second));
                        }
                        EventKind::Resolved => {
                            prop_assert!(on.remove(&event.key).is_some());
                            prop_assert!(!full, "cleared because full: {}", event.summary);
                        }
                        _ => {}
                    }
                    if event.severity == Severity::Warning && event.event != EventKind::Resolved {
                        prop_assert!(!quiet.contains(host.minute) || event.event == EventKind::Health);
                    }
                }
            }
        }
    }

    /// An estimate that varies within a factor of two around a threshold raises one alert.
    #[test]
    fn a_varying_estimate_is_one_alert(etas in proptest::collection::vec(7200.0..28_000.0f64, 50..300)) {
        let mut host = Host::new(Rule::defaults());
        let mut begun = 0;
        for eta in etas {
            host.volume().eta_s = Some(eta);
            for event in host.run(20) {
                prop_assert!(event.event != EventKind::Resolved);
                begun += usize::from(event.event == EventKind::Firing);
            }
        }
        prop_assert!(begun <= 1);
    }
}
