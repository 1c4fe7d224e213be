//! Alerts that are held back, and reminders.

use super::*;

#[test]
fn quiet_hours_hold_back_warnings_but_not_critical_alerts() {
    let rules = Rule::defaults()
        .into_iter()
        .map(|rule| Rule { quiet: vec![QuietHours { from: 22 * 60, to: 7 * 60 }], ..rule })
        .collect();
    let mut host = Host::new(rules);
    host.minute = 23 * 60;
    host.volume().eta_s = Some(3.0 * 3600.0);
    assert!(host.notices(7200).is_empty());
    host.volume().eta_s = Some(600.0);
    assert_eq!(host.notices(5), ["firing critical time-to-full"]);
    let mut other = Host::new(host.engine.rules().cloned().collect());
    other.minute = 23 * 60;
    other.volume().eta_s = Some(3.0 * 3600.0);
    other.run(60);
    other.minute = 7 * 60;
    assert_eq!(other.notices(5), ["firing warning time-to-full"], "in the morning");
}

#[test]
fn an_acknowledged_alert_is_silent_until_it_gets_worse() {
    let mut host = Host::new(Rule::defaults());
    host.volume().eta_s = Some(3.0 * 3600.0);
    host.run(5);
    assert_eq!(host.engine.acknowledge(Some("full"), None), 0);
    assert_eq!(host.engine.acknowledge(Some("time-to-full"), Some("/srv")), 1);
    assert!(host.notices(7200).is_empty());
    host.volume().eta_s = Some(600.0);
    assert_eq!(host.notices(5), ["firing critical time-to-full"]);
    assert_eq!(host.notices(1800), ["repeat critical time-to-full"]);
}

#[test]
fn reminders_keep_their_schedule_whenever_samples_arrive() {
    let rules =
        Rule::defaults().into_iter().map(|rule| Rule { repeat_s: Some(1.5), ..rule }).collect();
    let mut host = Host::new(rules);
    host.volume().eta_s = Some(600.0);
    let first = host.notices(5);
    assert_eq!(first[0], "firing critical time-to-full");
    assert_eq!(host.notices(30).len(), 20);
}

#[test]
fn a_delayed_reminder_does_not_bring_the_next_one_closer() {
    let quiet = vec![QuietHours { from: 22 * 60, to: 7 * 60 }];
    let rules = Rule::defaults().into_iter().map(|rule| Rule { quiet: quiet.clone(), ..rule });
    let mut host = Host::new(rules.collect());
    host.minute = 12 * 60;
    host.volume().eta_s = Some(3.0 * 3600.0);
    let notices = host.run(600);
    let [first] = &notices[..] else { panic!("{notices:?}") };
    let every = 1800;
    assert!(first.event == EventKind::Firing && first.severity == Severity::Warning);
    host.minute = 23 * 60;
    assert!(host.notices(every + 600).is_empty());
    host.minute = 7 * 60;
    assert_eq!(host.notices(1), ["repeat warning time-to-full"]);
    assert!(host.notices(every - 1).is_empty());
    assert_eq!(host.notices(1), ["repeat warning time-to-full"]);
}
