//! No process is blamed for growth that is not attributed to it.

use super::*;

fn hidden(cause: BlindCause) -> Blind {
    Blind { cause, unexplained_bytes: 4900 << 20, grown_bytes: 5 << 30, over_s: 10.0 }
}

#[test]
fn an_innocent_writer_is_neither_named_nor_suggested() {
    let mut host = Host::new(Rule::defaults());
    host.snapshot.writers = vec![writer(7, "innocent", 20e3)];
    host.run(5);
    host.volume().eta_s = Some(600.0);
    host.volume().blind = Some(hidden(BlindCause::Unexplained));
    let events = host.run(5);
    let alert = events.iter().find(|event| event.rule == "time-to-full").unwrap();
    assert!(alert.culprits.is_empty());
    assert_eq!(alert.suggestion, None);
    assert!(!alert.summary.contains("innocent"), "{}", alert.summary);
    let health: Vec<_> = events.iter().filter(|event| event.rule == "blind").collect();
    assert_eq!(health.len(), 1, "reported once");
    // The same host with everything explained.
    let mut host = Host::new(Rule::defaults());
    host.snapshot.writers = vec![writer(7, "culprit", 20e6)];
    host.run(5);
    host.volume().eta_s = Some(600.0);
    let events = host.run(5);
    assert_eq!(events[0].culprits[0].pid, 7);
    assert!(events[0].suggestion.is_some());
}

#[test]
fn each_volume_and_cause_is_reported_once() {
    let mut host = Host::new(vec![]);
    host.volume().blind = Some(hidden(BlindCause::NeedsSysAdmin));
    assert_eq!(host.notices(20), ["health warning blind"]);
    host.volume().blind = None;
    assert!(host.notices(20).is_empty());
    host.volume().blind = Some(hidden(BlindCause::NeedsSysAdmin));
    assert!(host.notices(20).is_empty());
    host.volume().blind = Some(hidden(BlindCause::Unexplained));
    assert_eq!(host.notices(20), ["health warning blind"]);
}
